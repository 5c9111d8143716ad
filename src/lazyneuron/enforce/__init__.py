"""Make it sparse on purpose: selections of neurons, put into a model's MLPs, saved and loaded with it.

`lazyneuron.enforce` is this package and the function of that name in one: `lazyneuron.enforce(model, TopK(k=128))`.
"""

import sys
import types
from typing import Any

from torch import nn

from lazyneuron.enforce.calibrate import calibrate
from lazyneuron.enforce.enforce import enforce, enforced, release, set_step
from lazyneuron.enforce.relufy import relufy
from lazyneuron.enforce.saved import from_pretrained, restore
from lazyneuron.enforce.selection import Anneal, GroupTopK, Selection, StatisticalTopK, Threshold, TopK
from lazyneuron.enforce.verify import NotSparseError, verify
from lazyneuron.sites import Inputs, SiteChoice

__all__ = [
    "Anneal",
    "GroupTopK",
    "NotSparseError",
    "Selection",
    "StatisticalTopK",
    "Threshold",
    "TopK",
    "calibrate",
    "enforce",
    "enforced",
    "from_pretrained",
    "release",
    "relufy",
    "restore",
    "set_step",
    "verify",
]


class _Enforce(types.ModuleType):
    def __call__(
        self, model: nn.Module, selection: Any, sites: SiteChoice = "auto", example_inputs: Inputs | None = None
    ) -> None:
        enforce(model, selection, sites, example_inputs)


# Importing any module of this package makes it the attribute `enforce` of `lazyneuron`, whatever that was before.
sys.modules[__name__].__class__ = _Enforce
