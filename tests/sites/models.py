"""Small modules with and without MLPs, and inputs for them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazyneuron.sites import find_sites

IDS = torch.arange(3, 17).reshape(2, 7)


T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}


T5 |= {"decoder_start_token_id": 0}


class Residual(nn.Module):
    """x + f(x) for each of some modules."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class MLP(nn.Module):
    """An MLP around any activation function."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.relu, d_ff: int = 12) -> None:
        super().__init__()
        self.act = act
        self.w1, self.w2 = nn.Linear(8, d_ff), nn.Linear(d_ff, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.act(self.w1(x)))


class Gated(nn.Module):
    """act(gate(x)) * up(x), with the up branch computed first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        up = self.a(x)
        return self.c(up * F.relu(self.b(x)))


class SqueezeExcite(nn.Module):
    """A bottleneck over the image's mean whose output scales the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()


def _downs(model: nn.Module, *shape: int) -> list[str]:
    return [site.down for site in find_sites(model, torch.randn(*shape, generator=torch.Generator().manual_seed(0)))]


MODEL = Residual(MLP(), Gated(), MLP(F.gelu))


X = torch.ones(2, 8)


SITES = find_sites(MODEL, X)


class Reached(nn.Module):
    """MLPs behind a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = Residual(MLP(), MLP()), nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        if scale != 1:
            raise ValueError("x needs y with scale")
        return self.head(x if y is None else self.inner(x + y))
