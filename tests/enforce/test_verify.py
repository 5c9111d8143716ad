"""Verify names who broke the promise, and leaves nothing behind."""

import pytest
import torch

from lazyneuron.enforce.enforce import enforce
from lazyneuron.enforce.selection import GroupTopK, Threshold, TopK
from lazyneuron.enforce.verify import NotSparseError, verify
from lazyneuron.errors import UsageError
from lazyneuron.sites import find_sites
from tests.enforce.models import num_hooks


def test_verify_tells_who_broke_the_promise(stack, x):
    model = stack()
    with pytest.raises(UsageError, match="nothing to verify"):
        verify(model, x)
    sites = find_sites(model, x)
    enforce(model, {"0": TopK(k=2), "1": GroupTopK(1, 3)}, example_inputs=x)
    assert verify(model, (x,)) == {"0": 15, "1": 15}
    model[1].down.register_forward_pre_hook(lambda module, args: torch.ones_like(args[0]))
    with pytest.raises(NotSparseError) as error:
        verify(model, x)
    promise = "at most 1 nonzeros in each block of 4 does not hold for 15 of 15 tokens; the worst has 4"
    assert str(error.value) == f"site '1': {promise}"
    assert isinstance(error.value, AssertionError)
    enforce(model, Threshold(2.0), sites[1:], x)
    with pytest.raises(NotSparseError, match=r"no nonzero of magnitude 2.0 or less does not hold for 15 of 15"):
        verify(model, x)


def test_verify_leaves_nothing_behind(stack, x):
    model = stack()
    enforce(model, TopK(k=2), example_inputs=x)
    count = num_hooks(model)
    verify(model, x)
    assert num_hooks(model) == count
    with pytest.raises(RuntimeError):
        verify(model, x[..., :3])
    assert num_hooks(model) == count
