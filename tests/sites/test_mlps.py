"""Which linears are down projections of MLPs, and which only look like them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazyneuron.sites import NoSitesError, find_sites
from tests.sites.models import MLP, Residual, SqueezeExcite, _downs


class Transposed(nn.Module):
    """Mixer's token mixing: the MLP runs over the token axis."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)


def test_mixer_has_token_and_channel_sites() -> None:
    """MLPs over the transposed axis count too; two MLPs directly in one module get names of their own."""
    token = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5))
    sites = find_sites(Residual(Transposed(token), MLP(F.gelu)), torch.ones(2, 5, 8))
    assert [(s.name, s.d_model, s.d_ff) for s in sites] == [("blocks.0.mlp", 5, 7), ("blocks.1", 8, 12)]
    flat = Residual(*(nn.Linear(8, 8) for _ in range(4)))
    a, b, c, d = flat.blocks
    flat.forward = lambda x: x + b(a(x).relu()) + d(c(x).relu())
    assert [site.name for site in find_sites(flat, torch.ones(2, 8))] == ["blocks.1", "blocks.3"]


def test_convolutions_of_size_one_are_linears() -> None:
    """1x1 convolutions with batch norm between are MLPs; 3x3 convolutions are not."""

    def block(size: int) -> nn.Module:
        up, down = nn.Conv2d(8, 12, size, padding=size // 2), nn.Conv2d(12, 8, size, padding=size // 2)
        return nn.Sequential(up, nn.BatchNorm2d(12), nn.ReLU(), down)

    assert _downs(Residual(block(1), block(1), block(3)), 2, 8, 4, 4) == ["blocks.0.3.weight", "blocks.1.3.weight"]


def test_heads_beside_blocks_are_dropped() -> None:
    """A deep head, a pooler with classifier, and squeeze-excite are no sites."""
    head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    assert _downs(nn.Sequential(Residual(MLP(), MLP()), nn.LayerNorm(8), head), 2, 8) == [
        f"0.blocks.{i}.w2.weight" for i in (0, 1)
    ]
    pooler = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    assert _downs(nn.Sequential(Residual(MLP()), nn.LayerNorm(8), pooler), 2, 8) == ["0.blocks.0.w2.weight"]
    conv = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 1))
    assert _downs(Residual(SqueezeExcite(), conv, SqueezeExcite()), 2, 8, 4, 4) == ["blocks.1.2.weight"]


def test_a_block_narrower_than_its_stream_is_an_mlp_if_its_output_is_added() -> None:
    """As Perceiver's: a pooler and classifier of the same sizes are none."""
    model = Residual(MLP(d_ff=6))
    model.head = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    body = model.forward
    model.forward = lambda x: model.head(F.layer_norm(body(x), [8]))
    assert _downs(model, 2, 8) == ["blocks.0.w2.weight"]


def test_the_1x1_convolutions_of_a_residual_network_are_no_mlps() -> None:
    """Neither after the sum of two branches, nor one after another with an activation behind each, nor as a head."""

    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2, self.c3 = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
            self.shortcut = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.c3(F.relu(self.c2(F.relu(self.c1(x))))) + self.shortcut(x))

    row = [layer for _ in range(4) for layer in (nn.Conv2d(8, 8, 1), nn.ReLU())]
    head = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 8)]
    for model in (nn.Sequential(*(Bottleneck() for _ in range(3))), nn.Sequential(*row), nn.Sequential(*head)):
        with pytest.raises(NoSitesError):
            find_sites(model, torch.ones(2, 8, 4, 4))


def test_an_mlp_beside_attention_may_share_its_first_weight() -> None:
    """A fused weight gives queries and neurons, as in ViT-22B; where a weight takes all neurons, parts of them do not.

    The second is gMLP's block: half of the neurons are mixed over tokens and gate the other half.
    """

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.o, self.down = nn.Linear(8, 28), nn.Linear(8, 8), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            q, k, h = self.first(x).split([8, 8, 12], -1)
            return self.o((q @ k.mT).softmax(-1) @ x) + self.down(F.gelu(h))

    class SpatialGate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mix, self.down = nn.Linear(8, 12), nn.Linear(5, 5), nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            u, v = F.gelu(self.first(x)).chunk(2, -1)
            return self.down(u * self.mix(F.layer_norm(v, [6]).mT).mT)

    (parallel,) = find_sites(Residual(Parallel()), torch.randn(2, 5, 8))
    assert (parallel.up, parallel.gate, parallel.d_ff) == ("blocks.0.first.weight", None, 12)
    (gated,) = find_sites(Residual(SpatialGate()), torch.randn(2, 5, 8))
    assert (gated.up, gated.gate, gated.d_ff) == ("blocks.0.first.weight", "blocks.0.first.weight", 6)
    assert _downs(Residual(Parallel(), MLP(), SpatialGate()), 2, 5, 8) == [
        "blocks.0.down.weight",
        "blocks.1.w2.weight",
        "blocks.2.down.weight",
    ]
