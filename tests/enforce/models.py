"""Models and checks that several tests of selections share."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Any = model(input_ids=IDS, labels=IDS) if "T5" in type(model).__name__ else model(input_ids=IDS)
    return out.logits if "logits" in out else out.last_hidden_state


def num_hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_pre_hooks) + len(m._forward_hooks) + len(m._forward_hooks_always_called) for m in model.modules()
    )


def by_hand(model: Any, x: Tensor, select: Any) -> Tensor:
    """The stack in eval mode with a function put in by hand."""
    for mlp in model:
        x = x + F.linear(select(mlp.act(mlp.up(x))), mlp.down.weight, mlp.down.bias)
    return x


class Alone(nn.Module):
    """One MLP without a block around it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())
