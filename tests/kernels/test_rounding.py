"""What a model in bf16 compares is rounded: entries that only rounding makes equal must not be screened out.

Weights on an integer grid have exact sums and many ties, so there the answer is torch's to the bit.
"""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from lazyneuron.kernels.screen import screen_of
from lazyneuron.kernels.skip import ACTIVATIONS, largest_logits, masked_up, screened_up
from lazyneuron.kernels.topk import topk
from lazyneuron.kernels.weights import Rows

D, F, K, T = 256, 1024, 32, 8
GRIDS = {"int8": 127, "int4": 7}
MAPS = [*itertools.product(ACTIVATIONS, (False, True), (False, True))]
every_dtype = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])


def on_grid(shape: tuple[int, int], levels: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers rounded to a power of two times integers up to `levels`, which each row's first entry attains."""
    q = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * levels / 3
    q = q.round().clamp(-levels, levels)
    q[:, 0] = levels
    return (q * 2.0 ** -round(torch.tensor(levels * shape[1] ** 0.5).log2().item())).to(dtype)


def rows_of(weight: Tensor, bias: Tensor | None = None) -> Rows:
    return Rows(weight, None if bias is None else bias.float(), screen_of(weight))


def maps(
    x: Tensor, gate: Tensor, up: Tensor, bias: Tensor | None, activation: str, is_gated: bool, k: int
) -> tuple[Tensor, Tensor]:
    """The Top-k maps of a model in x's dtype: by torch, and from what the screens leave."""
    act = ACTIVATIONS[activation]
    h = act(linear(x, gate, bias))
    expected = topk(h * linear(x, up) if is_gated else h, k)
    u, _ = screened_up(x, rows_of(gate, bias), activation, k, rows_of(up) if is_gated else None)
    h = act(u)
    return expected, topk(h * masked_up(x, rows_of(up), u, activation)[0] if is_gated else h, k)


def differences(levels: int, dtype: torch.dtype, seeds: int) -> tuple[int, int]:
    """Over all kinds of MLPs, the tokens whose Top-k map differs from torch's, and the tokens compared."""
    wrong = compared = 0
    for seed, (activation, has_bias, is_gated) in itertools.product(range(seeds), MAPS):
        gate, up = (on_grid((F, D), levels, 2 * seed + i, dtype) for i in range(2))
        bias = on_grid((1, F), levels, seed, dtype)[0] if has_bias else None
        for tokens in (1, T):
            x = on_grid((tokens, D), 7, 1000 + seed, dtype)
            expected, got = maps(x, gate, up, bias, activation, is_gated, K)
            wrong += int((expected != got).any(-1).sum())
            compared += tokens
    return wrong, compared


@every_dtype
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seeds", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_top_k_maps_on_a_grid_are_those_of_torch_to_the_bit(grid: str, seeds: int, dtype: torch.dtype) -> None:
    wrong, compared = differences(GRIDS[grid], dtype, seeds)
    assert wrong == 0
    assert compared == seeds * len(MAPS) * (1 + T)


@every_dtype
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seeds", [15, pytest.param(300, marks=pytest.mark.slow)])
def test_largest_logits_on_a_grid_are_those_of_torch_to_the_bit(grid: str, seeds: int, dtype: torch.dtype) -> None:
    """All ties of the k-th largest are there, so argmax, topk and sampling see what the dense head shows them."""
    for seed, k in itertools.product(range(seeds), (1, 5)):
        head, x = on_grid((4 * F, D), GRIDS[grid], seed, dtype), on_grid((4, D), 7, 1000 + seed, dtype)
        expected = linear(x, head)
        got, reads = largest_logits(x, rows_of(head), k)
        needed = expected >= expected.topk(k).values[:, -1:]
        assert torch.equal(got[needed], expected[needed])
        assert torch.equal(got.argmax(-1), expected.argmax(-1))
        assert int(reads[1]) < 0.05 * expected.numel()


@pytest.mark.parametrize("seeds", [1, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("activation", "has_bias", "is_gated"), MAPS)
def test_gaussian_weights_differ_only_where_the_order_of_a_sum_decides(
    activation: str, has_bias: bool, is_gated: bool, seeds: int
) -> None:
    """Where the kept sets differ at all, the entries in question are within one rounding of the least that is kept."""
    different = 0
    for seed in range(seeds):
        torch.manual_seed(seed)
        gate, up = ((torch.randn(F, D) / D**0.5).bfloat16() for _ in range(2))
        x, bias = torch.randn(T, D).bfloat16(), torch.randn(F).bfloat16() / 8 if has_bias else None
        expected, got = maps(x, gate, up, bias, activation, is_gated, K)
        for one, other in zip(expected, got, strict=True):
            least = one[one != 0].abs().min()
            unsure = torch.cat([a[(one != 0) != (other != 0)] for a in (one, other)])
            assert all(abs(v) <= least * (1 + 2.0**-5) for v in unsure[unsure != 0].abs())
            different += len(unsure) > 0
    assert different <= 0.02 * seeds * T
