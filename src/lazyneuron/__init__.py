"""Measure, enforce and exploit the activation sparsity of Transformers (arXiv 2210.06313)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyneuron.enforce import (
        Anneal,
        GroupTopK,
        NotSparseError,
        StatisticalTopK,
        Threshold,
        TopK,
        calibrate,
        enforce,
        enforced,
        from_pretrained,
        release,
        relufy,
        restore,
        set_step,
        verify,
    )
    from lazyneuron.errors import LazyneuronError, StoppedError, UsageError
    from lazyneuron.exploit import Advice, Choice, Exploited, advise, choose, exploit, exploited, unexploit
    from lazyneuron.measure import Cost, PartCost, Probe, cost, watch
    from lazyneuron.measure.callbacks import lightning_callback, trainer_callback
    from lazyneuron.measure.monitor import Monitor
    from lazyneuron.records.folder import RunFolder
    from lazyneuron.records.record import Record, Source, Verdict
    from lazyneuron.sites import NoSitesError, Site, find_sites

_HOMES = {
    "lazyneuron.enforce": (
        "Anneal",
        "GroupTopK",
        "NotSparseError",
        "StatisticalTopK",
        "Threshold",
        "TopK",
        "calibrate",
        "enforced",
        "from_pretrained",
        "release",
        "relufy",
        "restore",
        "set_step",
        "verify",
    ),
    "lazyneuron.exploit": ("Advice", "Choice", "Exploited", "advise", "choose", "exploited", "unexploit"),
    "lazyneuron.measure": ("Cost", "PartCost", "Probe", "cost", "watch"),
    "lazyneuron.measure.callbacks": ("lightning_callback", "trainer_callback"),
    "lazyneuron.measure.monitor": ("Monitor",),
    "lazyneuron.errors": ("LazyneuronError", "StoppedError", "UsageError"),
    "lazyneuron.records": ("Record", "RunFolder", "Source", "Verdict"),
    "lazyneuron.sites": ("NoSitesError", "Site", "find_sites"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Advice",
    "Anneal",
    "Choice",
    "Cost",
    "Exploited",
    "GroupTopK",
    "LazyneuronError",
    "Monitor",
    "NoSitesError",
    "NotSparseError",
    "PartCost",
    "Probe",
    "Record",
    "RunFolder",
    "Site",
    "Source",
    "StatisticalTopK",
    "StoppedError",
    "Threshold",
    "TopK",
    "UsageError",
    "Verdict",
    "advise",
    "calibrate",
    "choose",
    "cost",
    "enforce",
    "enforced",
    "exploit",
    "exploited",
    "find_sites",
    "from_pretrained",
    "lightning_callback",
    "release",
    "relufy",
    "restore",
    "set_step",
    "trainer_callback",
    "unexploit",
    "verify",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in ("enforce", "exploit"):  # the package is the function too
        return importlib.import_module(f"lazyneuron.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lazyneuron' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
