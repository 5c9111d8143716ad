"""Nested tensors: batches of sequences of unequal length, which hold no padding."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def padded(h: Any) -> tuple[Tensor, Tensor]:
    """A nested map of B sequences as [B, S, F], S the longest, and which of its tokens are real, bool [B, S]."""
    h_BSF = h.to_padded_tensor(0.0)
    # Only the jagged layout has offsets.
    lengths_B = h.offsets().diff() if h.layout is torch.jagged else h._nested_tensor_size()[:, 0].to(h_BSF.device)
    return h_BSF, torch.arange(h_BSF.shape[1], device=h_BSF.device) < lengths_B[:, None]


def map_tokens(function: Callable[[Tensor], Tensor], x: Any) -> Tensor:
    """`function`, which works token by token on the last axis, applied to a nested tensor or to a plain tensor."""
    if not x.is_nested:
        return function(x)
    if x.layout is torch.jagged:
        return torch.nested.nested_tensor_from_jagged(function(x.values()), x.offsets())
    return torch.nested.as_nested_tensor([function(sequence) for sequence in x.unbind()])
