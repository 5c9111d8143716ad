"""Wrappers leave no prefix in names."""

import sys

import torch
from torch import nn

from lazyneuron.sites import find_sites
from tests.sites.models import MLP, Residual


def test_wrappers_leave_no_prefix() -> None:
    """Names are those of the unwrapped model, whether it or a part of it is wrapped, and also when compiled."""
    model = Residual(MLP(), MLP())
    expected = find_sites(model, torch.ones(2, 8))
    assert find_sites(nn.DataParallel(model), torch.ones(2, 8)) == expected
    compiled = torch.compile(nn.DataParallel(model), backend="eager")
    compiled(torch.ones(2, 8))
    assert find_sites(compiled, (torch.ones(2, 8),)) == expected
    model.blocks[1] = torch.compile(model.blocks[1], backend="eager")
    assert find_sites(model, {"x": torch.ones(2, 8)}) == expected
    assert "torch._dynamo" in sys.modules
