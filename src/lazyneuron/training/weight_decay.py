"""Which weights decay: matrices do; biases, gains of norms and other vectors do not."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor


def decay_groups(weights: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer in which weights of two dimensions or more decay, and the others do not.

    Without decay it is one group. A bias that decays keeps ReLU neurons active: a neuron that fires seldom does so by
    its negative bias, which decay pulls back to zero (docs/log.md, 2026-11-27).
    """
    weights = list(weights)
    if not weight_decay:
        return [{"params": weights, "weight_decay": 0.0}]
    matrices, vectors = ([w for w in weights if (w.dim() > 1) is is_matrix] for is_matrix in (True, False))
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
