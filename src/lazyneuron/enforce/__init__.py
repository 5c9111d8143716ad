"""Enforce sparsity: selections of neurons in a model's MLPs, saved and loaded with the model.

`lazyneuron.enforce` is both this package and the function: `lazyneuron.enforce(model, TopK(k=128))`.
"""

import sys
import types

from lazyneuron.enforce.calibrate import calibrate
from lazyneuron.enforce.enforce import enforce, enforced, release, set_step
from lazyneuron.enforce.relufy import relufy
from lazyneuron.enforce.saved import from_pretrained, restore
from lazyneuron.enforce.selection import Anneal, GroupTopK, Selection, StatisticalTopK, Threshold, TopK
from lazyneuron.enforce.verify import NotSparseError, verify

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
    __call__ = staticmethod(enforce)


# Importing a module of this package sets `lazyneuron.enforce` to the package, so the package must be callable.
sys.modules[__name__].__class__ = _Enforce
