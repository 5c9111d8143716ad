"""Tracing recognises weights, gates and activations however they are written."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from lazyneuron.sites import NoSitesError, Site, find_sites
from tests.sites.models import MLP, Gated, Residual, X, _downs


def _gelu_by_hand(u: Tensor) -> Tensor:
    return 0.5 * u * (1 + torch.tanh(0.79788456 * (u + 0.044715 * u**3)))


def _top_k(u: Tensor) -> Tensor:
    values, indices = F.relu(u).topk(3, dim=-1)
    return torch.zeros_like(u).scatter(-1, indices, values)


def _squared(u: Tensor) -> Tensor:
    h = u.relu()
    return h * h


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "function": (F.relu, "relu"),
    "in place": (nn.ReLU(inplace=True), "relu"),
    "clamp": (lambda u: u.clamp_min(0), "relu"),
    "square": (lambda u: F.relu(u).square(), "relu^2"),
    "product with itself": (_squared, "relu^2"),
    "gelu from tanh": (_gelu_by_hand, "gelu"),
    "gelu from erf": (lambda u: 0.5 * u * (1 + torch.erf(u / 2**0.5)), "gelu"),
    "gelu from tanh by products": (lambda u: u * 0.5 * (1 + torch.tanh(0.8 * u * (1 + 0.04 * u * u))), "gelu"),
    "sigmoid times its input": (lambda u: u * torch.sigmoid(1.702 * u), "sigmoid+mul"),
    "dropout after": (lambda u: F.dropout(F.silu(u), 0.5), "silu"),
    "times its mask": (lambda u: u * (u > 0), "gt"),
    "where": (lambda u: torch.where(u > 0, u, torch.zeros_like(u)), "gt"),
    "masked_fill": (lambda u: u.masked_fill(u < 0, 0.0), "lt"),
    "top-k": (_top_k, "relu+topk"),
}


@pytest.mark.parametrize(("act", "name"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activations_are_named_and_never_look_gated(act: Callable[[Tensor], Tensor], name: str) -> None:
    """Functional, in-place and hand-written nonlinearities give one plain site each."""
    expected = Site("blocks.0", "blocks.0.w1.weight", None, "blocks.0.w2.weight", 8, 12, name)
    assert find_sites(Residual(MLP(act)), torch.ones(3, 8)) == [expected]


def test_masking_with_a_constant_is_no_activation() -> None:
    """Two linears with a padding mask between them are no MLP."""
    padding = torch.arange(12) > 6
    with pytest.raises(NoSitesError):
        find_sites(Residual(MLP(lambda u: u.masked_fill(padding, 0.0))), torch.ones(3, 8))


def test_gate_is_the_activated_branch_whatever_the_order() -> None:
    """The gate is told from up by the nonlinearity, also with d_ff below d_model."""
    assert find_sites(Residual(Gated()), torch.ones(2, 8)) == [
        Site("blocks.0", "blocks.0.a.weight", "blocks.0.b.weight", "blocks.0.c.weight", 8, 6, "relu")
    ]


def test_shared_modules_and_tied_weights_are_one_site_each() -> None:
    """A module used twice is one site; a tied up weight serves two sites with different downs."""
    shared = MLP()
    assert _downs(Residual(shared, shared), 2, 8) == ["blocks.0.w2.weight"]
    tied = Residual(MLP(), MLP())
    tied.blocks[1].w1.weight = tied.blocks[0].w1.weight
    assert [s.up for s in find_sites(tied, torch.ones(2, 8))] == ["blocks.0.w1.weight"] * 2


def test_weights_are_recognised_behind_views_casts_and_parametrizations() -> None:
    """A weight used as a transposed view, an autocast copy, or computed from parameters keeps its name."""
    model = Residual(MLP())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _downs(model, 2, 8) == ["blocks.0.w2.weight"]
    mlp = MLP()
    mlp.w2 = weight_norm(mlp.w2)
    assert _downs(Residual(mlp), 2, 8) == ["blocks.0.w2.parametrizations.weight.original1"]
    bare = Residual()
    bare.up, bare.down = nn.Parameter(torch.ones(8, 12)), nn.Parameter(torch.ones(8, 12))
    bare.forward = lambda x: x + (x @ bare.up).relu() @ bare.down.t()
    assert _downs(bare, 2, 8) == ["down"]


class Recurrence(nn.Module):
    """A gate times a state that earlier steps wrote, as in RWKV: tokens mix, so this is no MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.k, self.o = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        k = self.k(x)
        out, state = torch.zeros_like(k), torch.zeros_like(k[:, 0])
        for t in range(x.shape[1]):
            state = 0.5 * state + k[:, t]
            out[:, t] = state
        return self.o(self.r(x).sigmoid() * out)


class SubNorm(MLP):
    """A normalisation between activation and down projection, as in Magneto and EVA-02."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.norm(F.relu(self.w1(x))))


class Scored(MLP):
    """The output is weighted by its own softmax, as in PatchTSMixer."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * y.detach().softmax(-1)


def test_what_mixes_tokens_or_scales_is_told_from_what_is_scaled() -> None:
    """A recurrence is no MLP; one with a norm inside, or whose output is weighted, is."""
    assert _downs(Residual(Recurrence(), MLP()), 2, 3, 8) == ["blocks.1.w2.weight"]
    assert [site.activation for site in find_sites(Residual(SubNorm()), X)] == ["relu+layer_norm"]
    assert _downs(Residual(Scored(), Scored()), 2, 8) == ["blocks.0.w2.weight", "blocks.1.w2.weight"]
