"""Selections keep what they say, refuse what cannot be, and are written and read without loss."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lazyneuron.enforce.selection import (
    Anneal,
    GroupTopK,
    Selection,
    StatisticalTopK,
    Threshold,
    TopK,
    selection_from_dict,
)
from lazyneuron.errors import UsageError
from lazyneuron.sites import Site

D_FF = 24
RELU = Site("mlp", "mlp.up.weight", None, "mlp.down.weight", 8, D_FF, "relu")
GATED = Site("mlp", "mlp.up.weight", "mlp.gate.weight", "mlp.down.weight", 8, D_FF, "gelu")
FUSED = Site("mlp", "mlp.gate_up.weight", "mlp.gate_up.weight", "mlp.down.weight", 8, D_FF, "silu")
EVERY: list[Selection] = [
    TopK(k=3),
    TopK(density=0.25, straight_through=True),
    GroupTopK(k=2, groups=4),
    Threshold(0.1),
    Threshold(0),
    StatisticalTopK(0.1),
    StatisticalTopK(0.1, form="gemma3n"),
    Anneal(1.0, 0.05, num_steps=10, step=3),
]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_top_k_keeps_the_largest_magnitudes():
    h = torch.tensor([[0.5, -3.0, 0.0, 2.0], [1.0, 1.0, -1.0, 1.0]])
    kept = torch.tensor([[0.0, -3.0, 0.0, 2.0], [1.0, 1.0, 0.0, 0.0]])
    assert torch.equal(TopK(k=2).apply(h), kept)
    assert torch.equal(TopK(density=0.5).apply(h), kept)


@pytest.mark.parametrize(("density", "k"), [(1e-6, 1), (0.05, 1), (0.0625, 2), (0.5, 12), (0.98, 24), (1.0, 24)])
def test_density_is_rounded_and_keeps_at_least_one(density, k):
    """Python rounds halves to even: 1.5 neurons are 2."""
    assert TopK(density=density).k_of(D_FF) == k
    assert int((TopK(density=density).apply(random(1, D_FF)) != 0).sum()) == k


def test_all_of_d_ff_is_the_map_itself():
    """No bit may differ, those of zeros and of their gradient included."""
    h = random(3, D_FF)
    for whole in (TopK(k=D_FF), TopK(density=1.0), GroupTopK(6, 4), Anneal(1.0, 0.1, num_steps=5)):
        assert whole.apply(h) is h


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradient_reaches_the_kept_or_all(straight_through):
    h = random(2, D_FF).requires_grad_()
    y = TopK(k=3, straight_through=straight_through).apply(h)
    assert torch.equal(y, TopK(k=3).apply(h.detach()))
    y.backward(torch.full_like(y, 2.0))
    expected = torch.full_like(y, 2.0) if straight_through else 2.0 * (y != 0)
    assert h.grad is not None
    assert torch.equal(h.grad, expected)


def test_infinite_entries_are_kept_straight_through():
    """An identity written as h + (kept - h) would make them NaN."""
    h = torch.tensor([[math.inf, 1.0, -math.inf, 2.0]], requires_grad=True)
    y = TopK(k=2, straight_through=True).apply(h)
    assert torch.equal(y, torch.tensor([[math.inf, 0.0, -math.inf, 0.0]]))


def test_groups_and_thresholds():
    h = torch.tensor([[1.0, 2.0, 3.0, -9.0, 8.0, 7.0]])
    assert torch.equal(GroupTopK(1, 2).apply(h), torch.tensor([[0.0, 0.0, 3.0, -9.0, 0.0, 0.0]]))
    assert torch.equal(Threshold(3.0).apply(h), torch.tensor([[0.0, 0.0, 0.0, -9.0, 8.0, 7.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("density", [0.02, 0.05, 0.5])
def test_gemma3n_form_is_gemma3n(dtype, density):
    """To the bit in every dtype, against transformers' own code."""
    from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextMLP

    gate = random(5, 7, 96).to(dtype)
    mlp: Any = SimpleNamespace(activation_sparsity=1 - density)
    assert torch.equal(StatisticalTopK(density, form="gemma3n").apply(gate), Gemma3nTextMLP._gaussian_topk(mlp, gate))


def test_spark_form_is_gemma3n_in_float32():
    u = random(5, 4096)
    spark, gemma = StatisticalTopK(0.05).apply(u), StatisticalTopK(0.05, form="gemma3n").apply(u)
    torch.testing.assert_close(spark, gemma, atol=1e-6, rtol=0)
    assert (spark > 0).double().mean().item() == pytest.approx(0.05, abs=0.005)


REFUSED: list[tuple[type[Exception], Any, str]] = [
    (ValueError, lambda: TopK(), "top-k needs either k or density; got k=None and density=None"),
    (ValueError, lambda: TopK(k=3, density=0.1), "top-k needs either k or density; got k=3 and density=0.1"),
    (ValueError, lambda: TopK(k=0), "top-k needs 0 < k <= d_ff; got k=0"),
    (ValueError, lambda: TopK(k=-2), "top-k needs 0 < k <= d_ff; got k=-2"),
    (TypeError, lambda: TopK(k=1.5), "top-k needs 0 < k <= d_ff; got k=1.5, not an integer"),  # pyright: ignore[reportArgumentType]
    (TypeError, lambda: TopK(k=True), "top-k needs 0 < k <= d_ff; got k=True, not an integer"),
    (ValueError, lambda: TopK(density=0.0), "top-k needs 0 < density <= 1; got density=0.0"),
    (ValueError, lambda: TopK(density=1.01), "top-k needs 0 < density <= 1; got density=1.01"),
    (ValueError, lambda: TopK(density=math.nan), "top-k needs 0 < density <= 1; got density=nan"),
    (ValueError, lambda: GroupTopK(0, 2), "group top-k needs 0 < k <= d_ff / groups; got k=0"),
    (ValueError, lambda: GroupTopK(2, 0), "group top-k needs at least one group; got groups=0"),
    (ValueError, lambda: Threshold(-0.1), "a threshold needs 0 <= tau < inf; got tau=-0.1"),
    (ValueError, lambda: Threshold(math.nan), "a threshold needs 0 <= tau < inf; got tau=nan"),
    (ValueError, lambda: StatisticalTopK(1.0), "statistical top-k needs 0 < density < 1; got density=1.0"),
    (
        ValueError,
        lambda: StatisticalTopK(0.1, form="x"),
        "no form 'x' of statistical top-k: choose from spark, gemma3n",
    ),
    (ValueError, lambda: Anneal(0, 0.1, 10), "annealing's start needs 0 < density <= 1; got density=0"),
    (ValueError, lambda: Anneal(1, 0.1, 0), "annealing needs at least one step; got num_steps=0"),
    (ValueError, lambda: Anneal(1, 0.1, 5, step=-1), "annealing counts steps from 0; got step=-1"),
    (ValueError, lambda: TopK(k=25).check(RELU), "site 'mlp': top-k needs 0 < k <= d_ff; got k=25 with d_ff=24"),
    (ValueError, lambda: GroupTopK(1, 5).check(RELU), "site 'mlp': 5 groups do not divide d_ff=24"),
    (
        ValueError,
        lambda: GroupTopK(7, 4).check(RELU),
        "site 'mlp': group top-k needs 0 < k <= d_ff / groups; got k=7 with d_ff=24 in 4 groups",
    ),
    (
        UsageError,
        lambda: StatisticalTopK(0.1).check(FUSED),
        "site 'mlp': statistical top-k cannot find the gate in the fused weight mlp.gate_up.weight: use TopK or "
        "Threshold there, which act after the activation",
    ),
    (
        UsageError,
        lambda: StatisticalTopK(0.1).check(Site("mlp", "u", None, "d", 8, 24, "softplus+mul")),
        "site 'mlp': statistical top-k needs an activation with f(0) = 0 (relu, relu^2, relu6, gelu, silu), not "
        "'softplus+mul': use TopK or Threshold there, which act after the activation",
    ),
    (
        UsageError,
        lambda: StatisticalTopK(0.1, form="gemma3n").check(RELU),
        "site 'mlp': statistical top-k of form 'gemma3n' needs a gated MLP: use form='spark'",
    ),
]


@pytest.mark.parametrize(("kind", "make", "message"), REFUSED, ids=[message[:60] for _, _, message in REFUSED])
def test_what_cannot_be_is_refused_in_one_line(kind, make, message):
    with pytest.raises(kind) as error:
        make()
    assert str(error.value) == message


def test_sites_that_fit_pass():
    for selection in EVERY:
        selection.check(GATED)
    TopK(k=D_FF).check(RELU)
    StatisticalTopK(0.1).check(RELU)


@pytest.mark.parametrize("selection", EVERY, ids=str)
def test_written_and_read(selection):
    assert selection_from_dict(json.loads(json.dumps(selection.to_dict()))) == selection


def test_written_is_plain_and_short():
    assert TopK(k=3).to_dict() == {"kind": "topk", "k": 3}
    assert TopK(density=0.1, straight_through=True).to_dict() == {
        "kind": "topk",
        "density": 0.1,
        "straight_through": True,
    }
    assert Threshold(0).to_dict() == {"kind": "threshold", "tau": 0}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"k": 3}, "no selection of kind None: choose from topk, group_topk"),
        ({"kind": "topk", "kk": 3}, "a selection of kind 'topk' has no 'kk'"),
        ({"kind": "group_topk", "k": 3}, "a selection of kind 'group_topk' cannot be read"),
        ({"kind": "topk", "k": 0}, "top-k needs 0 < k <= d_ff; got k=0"),
    ],
)
def test_what_was_written_wrong_is_refused(written, message):
    with pytest.raises(ValueError, match=message):
        selection_from_dict(written)


def test_annealing_goes_down_by_equal_factors():
    anneal = Anneal(start=1.0, end=0.01, num_steps=4)
    densities = [anneal.at(step).now.density for step in range(6)]
    assert densities == pytest.approx([1.0, 10**-0.5, 0.1, 10**-1.5, 0.01, 0.01], rel=1e-12)
    assert densities[4:] == [0.01, 0.01]
    assert anneal.at(2).apply(random(3, 100)).count_nonzero(dim=-1).tolist() == [10, 10, 10]
