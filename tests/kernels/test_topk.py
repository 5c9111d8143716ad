"""One contract over every way to run top-k, and each operator against its definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextMLP

from lazyneuron.kernels.topk import group_topk, statistical_topk, threshold, topk, topk_values

WAYS = {"public": topk, "op": torch.ops.lazyneuron.topk, "reference": topk.reference}
MAPS = {
    "relu": lambda x: torch.relu(x - 0.5),
    "gelu": torch.nn.functional.gelu,
    "ties": torch.round,
    "all equal": torch.ones_like,
    "denormal": lambda x: x * 1e-40,
    "huge": lambda x: x * 1e38,
    "zero": lambda x: x * 0,
    "nan and inf": lambda x: x.masked_fill(x > 1.5, math.nan).masked_fill(x < -1.5, -math.inf),
}


def by_hand(row: list[float], k: int) -> set[int]:
    """Indices of the k largest magnitudes, NaN above all, of equal ones the first; zeros are nothing to keep."""

    def rank(i: int) -> tuple[float, int]:
        return (-math.inf if math.isnan(row[i]) else -abs(row[i])), i

    nans = [i for i in range(len(row)) if math.isnan(row[i])]
    others = sorted((i for i in range(len(row)) if not math.isnan(row[i])), key=rank)
    return {i for i in (nans + others)[:k] if row[i] != 0}


def budgets(d_ff: int) -> list[int]:
    return sorted({1, 2, d_ff // 3, d_ff - 1, d_ff} & set(range(1, d_ff + 1)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_exactly_the_k_largest_stay(way, kind, dtype):
    torch.manual_seed(0)
    for shape in ((1, 1), (3, 7), (2, 5, 33), (4, 100)):
        h = MAPS[kind](torch.randn(shape)).to(dtype)
        for k in budgets(shape[-1]):
            before = h.clone()
            kept = WAYS[way](h, k)
            assert torch.equal(h.nan_to_num(), before.nan_to_num()), "the map itself was changed"
            assert kept.dtype == dtype
            assert kept.shape == h.shape
            for row, out in zip(h.flatten(0, -2).tolist(), kept.flatten(0, -2).tolist(), strict=True):
                stays = by_hand(row, k)
                assert {i for i, value in enumerate(out) if value != 0} == stays
                assert all(out[i] == row[i] or math.isnan(row[i]) for i in stays)


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(40, 3072), (300, 1000), (3, 8192), (0, 8), (2, 0, 8)])
def test_wide_maps_and_several_threads(kind, dtype, shape):
    torch.manual_seed(1)
    h, before = MAPS[kind](torch.randn(shape)).to(dtype), torch.get_num_threads()
    torch.set_num_threads(2)
    for k in budgets(shape[-1]):
        assert torch.equal(topk(h, k).nan_to_num(7), topk.reference(h, k).nan_to_num(7))
    torch.set_num_threads(before)


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.floats(width=32)), st.data()
)
def test_any_floats_at_all(array, data):
    h = torch.from_numpy(array)
    k = data.draw(st.integers(1, h.shape[1]))
    kept = topk(h, k)
    for row, out in zip(h.tolist(), kept.tolist(), strict=True):
        assert {i for i, value in enumerate(out) if value != 0} == by_hand(row, k)


def test_rows_do_not_disturb_each_other():
    """The search starts from the row before: scales that jump, and one row of zeros, change nothing."""
    h = torch.randn(64, 500) * torch.logspace(-30, 30, 64)[torch.randperm(64)][:, None]
    h[::7] = 0
    for k in (1, 20, 499):
        whole = topk(h, k)
        assert torch.equal(whole, torch.cat([topk(row[None], k) for row in h]))


def test_strided_maps_and_k_of_all_keep_every_bit():
    h = torch.randn(6, 50, 4).transpose(1, 2)
    assert torch.equal(topk(h, 9), topk.reference(h.contiguous(), 9))
    h = torch.tensor([[-0.0, 0.0, 1.0, -2.0, math.nan]])
    assert torch.equal(topk(h, 5).view(torch.int32), h.view(torch.int32))


def test_gradients_are_those_of_the_kept_entries():
    torch.manual_seed(0)
    h = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: topk(x, 4), (h,))
    assert torch.autograd.gradcheck(lambda x: topk_values(x, 4)[0], (h,))
    assert torch.autograd.gradcheck(lambda x: group_topk(x, 2, 3), (h,))
    assert torch.autograd.gradcheck(lambda x: statistical_topk(x, 0.3), (h,))
    assert torch.autograd.gradgradcheck(lambda x: topk(x, 4).square(), (h,))
    x = torch.randn(3, 200, requires_grad=True)
    topk(x, 10).sum().backward()
    assert torch.equal(x.grad, (topk(x, 10) != 0).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_op_is_one_to_torch(dtype):
    h = torch.randn(4, 9, dtype=dtype, requires_grad=True)
    for op in (torch.ops.lazyneuron.topk, torch.ops.lazyneuron.topk_straight_through):
        torch.library.opcheck(op.default, (h, 3))
    with torch.autocast("cpu"):
        assert topk(h, 3).dtype == dtype


def test_compiled_in_one_graph_with_and_without_gradients():
    compiled = torch.compile(lambda x: topk(torch.relu(x), 3) * 2, backend="eager", fullgraph=True)
    for needs_grad in (False, True):
        x = torch.randn(4, 20, requires_grad=needs_grad)
        assert torch.equal(compiled(x), topk(torch.relu(x), 3) * 2)


def test_values_and_indices_are_the_kept_entries():
    h = torch.relu(torch.randn(2, 3, 40) - 1)
    values, indices = topk_values(h, 8)
    assert values.shape == indices.shape == (2, 3, 8)
    assert all(len(set(row)) == 8 for row in indices.flatten(0, 1).tolist())
    assert torch.equal(torch.zeros_like(h).scatter(-1, indices, values), topk(h, 8))


def test_groups_are_top_k_of_their_own():
    h = torch.randn(5, 24)
    kept = group_topk(h, 2, 4)
    assert ((kept != 0).unflatten(-1, (4, 6)).sum(-1) == 2).all()
    assert torch.equal(kept[:, 6:12], topk(h[:, 6:12], 2))


def test_threshold_keeps_what_is_above_and_nan():
    h = torch.tensor([0.5, -0.6, 0.4, math.nan, -0.5])
    assert threshold(h, 0.5).nan_to_num(9).tolist() == pytest.approx([0, -0.6, 0, 9, 0])


def test_statistical_top_k_keeps_about_its_share_and_is_gemmas():
    torch.manual_seed(0)
    u = torch.randn(200, 4096)
    for density in (0.02, 0.05, 0.3):
        assert (statistical_topk(u, density) > 0).double().mean().item() == pytest.approx(density, rel=0.05)

    class Mlp:
        activation_sparsity = 0.95

    ours = statistical_topk(u, 0.05)
    assert torch.allclose(ours, Gemma3nTextMLP._gaussian_topk(Mlp(), u), atol=1e-6)
    half = statistical_topk(u.bfloat16(), 0.05)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, statistical_topk(u.bfloat16().float(), 0.05).bfloat16())


def test_mistakes_are_named():
    h: Tensor = torch.randn(2, 12)
    for k in (0, 13, -1):
        with pytest.raises(ValueError, match=rf"top-k needs 0 < k <= d_ff; got k={k} with d_ff=12"):
            topk(h, k)
    with pytest.raises(ValueError, match=r"made on floating point maps; got torch\.int64"):
        topk(torch.ones(2, 3, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="5 groups do not divide d_ff=12"):
        group_topk(h, 1, 5)
    with pytest.raises(ValueError, match="got k=4 with d_ff=3"):
        group_topk(h, 4, 4)
    with pytest.raises(ValueError, match="needs 0 < density < 1; got 1"):
        statistical_topk(h, 1)
    with pytest.raises(ValueError, match="a threshold is 0 or more; got nan"):
        threshold(h, math.nan)
