"""Measure, enforce and exploit the activation sparsity of Transformers (arXiv 2210.06313)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyneuron.enforce import Anneal as Anneal
    from lazyneuron.enforce import GroupTopK as GroupTopK
    from lazyneuron.enforce import NotSparseError as NotSparseError
    from lazyneuron.enforce import StatisticalTopK as StatisticalTopK
    from lazyneuron.enforce import Threshold as Threshold
    from lazyneuron.enforce import TopK as TopK
    from lazyneuron.enforce import calibrate as calibrate
    from lazyneuron.enforce import enforce as enforce
    from lazyneuron.enforce import enforced as enforced
    from lazyneuron.enforce import from_pretrained as from_pretrained
    from lazyneuron.enforce import release as release
    from lazyneuron.enforce import relufy as relufy
    from lazyneuron.enforce import restore as restore
    from lazyneuron.enforce import set_step as set_step
    from lazyneuron.enforce import verify as verify
    from lazyneuron.errors import LazyneuronError as LazyneuronError
    from lazyneuron.errors import StoppedError as StoppedError
    from lazyneuron.errors import UsageError as UsageError
    from lazyneuron.exploit import Advice as Advice
    from lazyneuron.exploit import Choice as Choice
    from lazyneuron.exploit import Exploited as Exploited
    from lazyneuron.exploit import advise as advise
    from lazyneuron.exploit import choose as choose
    from lazyneuron.exploit import exploit as exploit
    from lazyneuron.exploit import exploited as exploited
    from lazyneuron.exploit import unexploit as unexploit
    from lazyneuron.maps import CapturedMaps as CapturedMaps
    from lazyneuron.maps import capture as capture
    from lazyneuron.measure import Cost as Cost
    from lazyneuron.measure import PartCost as PartCost
    from lazyneuron.measure import Probe as Probe
    from lazyneuron.measure import cost as cost
    from lazyneuron.measure import watch as watch
    from lazyneuron.measure.callbacks import lightning_callback as lightning_callback
    from lazyneuron.measure.callbacks import trainer_callback as trainer_callback
    from lazyneuron.measure.examples import TopExamples as TopExamples
    from lazyneuron.measure.examples import top_examples as top_examples
    from lazyneuron.measure.monitor import Monitor as Monitor
    from lazyneuron.records.folder import RunFolder as RunFolder
    from lazyneuron.records.record import Record as Record
    from lazyneuron.records.record import Source as Source
    from lazyneuron.records.record import Verdict as Verdict
    from lazyneuron.sites import NoSitesError as NoSitesError
    from lazyneuron.sites import Site as Site
    from lazyneuron.sites import find_sites as find_sites

# Public names by module; type checkers read the imports above.
_HOMES = {
    "enforce": "Anneal GroupTopK NotSparseError StatisticalTopK Threshold TopK calibrate enforced from_pretrained "
    "release relufy restore set_step verify",
    "errors": "LazyneuronError StoppedError UsageError",
    "exploit": "Advice Choice Exploited advise choose exploited unexploit",
    "maps": "CapturedMaps capture",
    "measure": "Cost PartCost Probe cost watch",
    "measure.callbacks": "lightning_callback trainer_callback",
    "measure.examples": "TopExamples top_examples",
    "measure.monitor": "Monitor",
    "records": "Record RunFolder Source Verdict",
    "sites": "NoSitesError Site find_sites",
}
_HOME_OF = {name: f"lazyneuron.{home}" for home, names in _HOMES.items() for name in names.split()}
_VERBS = ("enforce", "exploit")  # packages that are functions too

__all__ = sorted([*_HOME_OF, *_VERBS])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return importlib.import_module(f"lazyneuron.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lazyneuron' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
