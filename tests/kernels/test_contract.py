"""One contract over all operators: the kernel, called directly and through torch, does what its reference states.

Integers give sums that are exact in any order: answers must be equal, among many ties. Normal numbers allow twice plain
PyTorch's error against float64. In both, the same neurons are active.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lazyneuron.kernels import count as counting
from lazyneuron.kernels import skip, topk
from lazyneuron.kernels.count import count_map
from lazyneuron.kernels.operators import Operator
from lazyneuron.kernels.screen import screen_of
from lazyneuron.kernels.values import bin_values
from lazyneuron.kernels.weights import Rows

UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
SHAPES = [(1, 1, 1), (1, 37, 33), (3, 1, 7), (7, 97, 130), (2, 301, 1), (64, 40, 16)]


@dataclass(frozen=True)
class Problem:
    """Tensors of one shape: tokens, a map, weights with screens, biases, int8; `k` of the neurons are kept."""

    x: Tensor
    h: Tensor
    up: Rows
    other: Rows
    down: Tensor
    bias: Tensor
    int8: Rows
    k: int

    @property
    def int8_down(self) -> tuple[Tensor, ...]:
        """What follows the map where the down weight is int8."""
        assert self.int8.scales is not None
        return self.int8.weight_FD, self.bias, self.int8.scales


@dataclass(frozen=True)
class Case:
    """An operator and its arguments; of one that screens, the activation and `k`, and what it leaves out."""

    operator: Operator
    arguments: Callable[[Problem], tuple[Any, ...]]
    activation: str = ""
    has_k: bool = False
    left_out: float = 0.0

    @property
    def is_screening(self) -> bool:
        return self.operator in (skip.screened_up, skip.largest_logits)


CASES = {
    "topk": Case(topk.topk, lambda p: (p.h, p.k)),
    "count": Case(count_map, lambda p: (p.h[None], p.h[None, :, 0] != 1, True, True, True)),
    "count, only active": Case(count_map, lambda p: (p.h[:, None], p.h[:, :1] != 1, False, False, False)),
    "count, halves": Case(
        count_map, lambda p: (p.h[None], p.h[None, :, 0] != 1, True, True, True, p.h[None, :, 0] > 0)
    ),
    "count, pairs": Case(
        count_map,
        lambda p: (p.h[None], p.h[None, :, 0] != 1, False, False, True, None, p.x[None, :, 0] > 0),
    ),
    "values": Case(bin_values, lambda p: (p.h - 1, p.h[:, 0] != 1)),
    "sparse down": Case(skip.sparse_down, lambda p: (p.h, p.down, p.bias)),
    "sparse down of nothing": Case(skip.sparse_down, lambda p: (p.h * 0, p.down)),
    "sparse down, int8": Case(skip.sparse_down, lambda p: (p.h, *p.int8_down)),
    "dense up": Case(skip.dense_up, lambda p: (p.x, p.up)),
    "dense up, int8": Case(skip.dense_up, lambda p: (p.x, p.int8)),
    "dense down": Case(skip.dense_down, lambda p: (p.h, p.down, p.bias)),
    "dense down, int8": Case(skip.dense_down, lambda p: (p.h, *p.int8_down)),
    "masked up": Case(skip.masked_up, lambda p: (p.x, p.up, p.h)),
    "masked up, int8": Case(skip.masked_up, lambda p: (p.x, p.int8, p.h)),
    "masked up, silu": Case(skip.masked_up, lambda p: (p.x, p.up, -p.h, "silu")),
    "screened up": Case(skip.screened_up, lambda p: (p.x, p.up), "relu"),
    "screened up, top-k": Case(skip.screened_up, lambda p: (p.x, p.up, "relu", p.k), "relu", True),
    "screened gate, top-k": Case(skip.screened_up, lambda p: (p.x, p.up, "relu^2", p.k, p.other), "relu^2", True),
    "screened silu, top-k": Case(skip.screened_up, lambda p: (p.x, p.up, "silu", p.k), "silu", True),
    "largest logits": Case(skip.largest_logits, lambda p: (p.x, p.up, p.k), has_k=True, left_out=-math.inf),
}
SPARSE = (skip.sparse_down, skip.masked_up, skip.screened_up, skip.largest_logits)
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """No kernel may rely on what fresh memory happens to hold."""
    for name in ("empty", "empty_like"):
        made = getattr(torch, name)

        def poison(*args, made=made, **options):
            x = made(*args, **options)
            return x.fill_(math.nan if x.is_floating_point() else 77)

        monkeypatch.setattr(torch, name, poison)
    torch.manual_seed(0)


@pytest.fixture(params=[1, 2])
def num_threads(request, monkeypatch):
    """So many also where there is little to do, or fewer neurons than threads."""
    monkeypatch.setattr(skip, "_BYTES_PER_THREAD", 64)
    monkeypatch.setattr(counting, "_ENTRIES_PER_THREAD", 16)
    monkeypatch.setattr(topk, "_ENTRIES_PER_THREAD", 16)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def problem(T: int, F: int, D: int, dtype: torch.dtype, kind: str, k: int) -> Problem:
    def drawn(*shape: int) -> Tensor:
        return torch.randint(-2, 3, shape).float() if kind == "integers" else torch.randn(shape)

    def rows() -> Rows:
        weight = drawn(F, D).to(dtype)
        weight[F // 2 :: 7] = 0
        return Rows(weight, drawn(F) - (4 if kind == "integers" else 1), screen_of(weight))

    h = torch.relu(drawn(T, F) - 1).to(dtype)
    h[T // 2] = 0
    int8 = Rows(torch.randint(-127, 128, (F, D)).to(torch.int8), drawn(F), scales=2.0 ** torch.randint(-9, 1, (F,)))
    return Problem(drawn(T, D).to(dtype), h, rows(), rows(), drawn(F, D).to(dtype), drawn(D), int8, min(k, F))


def run(operator: Operator, arguments: tuple[Any, ...], way: str = "public") -> tuple[Tensor, ...]:
    if way == "through torch":
        named = getattr(torch.ops.lazyneuron, operator.__name__)
        out = named(*(a.tensors if isinstance(a, Rows) else a for a in arguments))
    else:
        out = (operator.reference if way == "reference" else operator)(*arguments)
    return out if isinstance(out, tuple) else (out,)


def exact(case: Case, p: Problem, dtype: torch.dtype) -> Tensor:
    """The first output by the reference, computed in `dtype`."""
    arguments = (a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in case.arguments(p))
    return run(case.operator, tuple(arguments), "reference")[0].double()


def check_values(case: Case, p: Problem, found: Tensor, is_exact: bool) -> None:
    """What is needed is there, within the error budget; what is not is left out, or right as well."""
    wanted, plain = exact(case, p, torch.float64), exact(case, p, torch.float32)
    allowed = UNIT[found.dtype] * wanted.abs() + 1e-40
    if not is_exact:
        error = (plain - wanted).nan_to_num(0, 0, 0).abs().amax() if plain.numel() else 0.0
        allowed = allowed + 2 * error + 1e-6 * wanted[wanted.isfinite()].abs().sum() / max(1, wanted.numel())
    is_right = ((found.double() - wanted).abs() <= allowed) | (found == wanted)
    if case.is_screening:
        dense = exact(CASES["dense up"], p, torch.float64)
        is_kept = wanted != case.left_out
        near = (found.double() - dense).abs() <= UNIT[found.dtype] * dense.abs() + 1e-4
        assert ((found == case.left_out) | near)[~is_kept].all()
        is_right |= ~is_kept
    assert is_right.all()


def check_active_set(case: Case, p: Problem, found: Tensor) -> None:
    """After the activation, and Top-k, exactly the neurons of the reference are left."""
    wanted = exact(case, p, torch.float64) != case.left_out
    if case.operator is skip.screened_up:
        h = skip.ACTIVATIONS[case.activation](found.double())
        if len(case.arguments(p)) == 5:
            h = h * skip.dense_up.reference(p.x.double(), p.other)
        assert torch.equal((topk.topk.reference(h, p.k) if case.has_k else h) != 0, wanted)
    elif not case.is_screening:
        assert torch.equal(found != 0, wanted)


@every_case
@every_dtype
@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize("k", [1, 5, 10**6], ids=["k = 1", "k = 5", "k = F"])
def test_the_kernel_is_the_reference(case, dtype, kind, k, num_threads):
    for shape in SHAPES:
        p = problem(*shape, dtype, kind, k)
        wanted = run(case.operator, case.arguments(p), "reference")
        for way in ("public", "through torch"):
            found = run(case.operator, case.arguments(p), way)
            for one, other in zip(found, wanted, strict=True):
                assert (one.shape, one.dtype) == (other.shape, other.dtype)
            if not found[0].is_floating_point() or case.operator is topk.topk:
                assert all(map(torch.equal, found, wanted))
                continue
            check_values(case, p, found[0], kind == "integers")
            if kind == "integers" or dtype == torch.float32:
                check_active_set(case, p, found[0])
            if len(found) == 2:  # reads
                assert torch.equal(found[1], wanted[1]) or (case.is_screening and (found[1] >= wanted[1]).all())


@every_case
def test_strided_tokens_and_no_tokens(case, num_threads):
    p = problem(6, 60, 24, torch.float32, "normal", 5)
    first, *rest = case.arguments(p)
    strided = torch.stack([first, first * 2], -1)[..., 0]
    assert not strided.is_contiguous()
    for one, other in zip(run(case.operator, (strided, *rest)), run(case.operator, (first, *rest)), strict=True):
        assert torch.equal(one, other)
    nothing = case.arguments(replace(p, x=p.x[:0], h=p.h[:0]))
    for one, other in zip(run(case.operator, nothing), run(case.operator, nothing, "reference"), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.operator in SPARSE])
@every_dtype
def test_what_is_not_read_may_hold_anything(name, dtype, num_threads):
    """Rows that no token needs may be inf or NaN: only their int8 copies are looked at."""
    case, p = CASES[name], problem(1, 130, 64, dtype, "normal", 5)
    before = run(case.operator, case.arguments(p))
    if case.operator is skip.sparse_down:
        unread = (case.arguments(p)[0] == 0)[0]
        p.down[unread] = math.nan
        p.int8_down[-1][unread] = math.nan
    else:
        unread = (before[0] == case.left_out)[0]
        p.up.weight_FD[unread] = math.nan
        p.up.weight_FD[unread & (torch.arange(130) % 2 == 0)] = math.inf
        p.int8_down[-1][unread] = math.nan
    assert unread.sum() > 10
    for one, other in zip(run(case.operator, case.arguments(p)), before, strict=True):
        assert torch.equal(one, other)


@every_case
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_broken_tokens_give_what_the_reference_gives(case, bad):
    p = problem(4, 97, 33, torch.float32, "normal", 5)
    p.x[1, 5], p.h[1, 5] = bad, bad
    found, (wanted, *_) = run(case.operator, case.arguments(p))[0], run(case.operator, case.arguments(p), "reference")
    if case.has_k:  # nothing is ruled out
        found, wanted = found[1], skip.dense_up.reference(p.x, p.up)[1]
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found.isposinf(), wanted.isposinf())


@every_case
def test_it_is_an_operator_to_torch(case):
    arguments = case.arguments(problem(3, 20, 16, torch.float32, "normal", 5))
    flat = tuple(a.tensors if isinstance(a, Rows) else a for a in arguments)
    torch.library.opcheck(getattr(torch.ops.lazyneuron, case.operator.__name__).default, flat)


@every_dtype
def test_bounds_of_a_screen_hold_the_exact_value(dtype, num_threads):
    for kind in ("integers", "normal"):
        for shape in SHAPES:
            p = problem(*shape, dtype, kind, 1)
            wanted = exact(CASES["dense up"], p, torch.float64)
            for way in ("public", "through torch"):
                low, high = run(skip.screen_bounds, (p.x, p.up), way)
                assert (low.double() <= wanted + 1e-12).all()
                assert (high.double() >= wanted - 1e-12).all()
    torch.library.opcheck(torch.ops.lazyneuron.screen_bounds.default, (p.x, p.up.tensors))


def mlp(p: Problem, gate: Rows | None, activation: str, k: int, dtype: torch.dtype) -> Tensor:
    """The MLP in plain PyTorch."""
    x = p.x.to(dtype)
    h = skip.ACTIVATIONS[activation](skip.dense_up.reference(x, gate or p.up))
    h = h * skip.dense_up.reference(x, p.up) if gate else h
    return skip.dense_down.reference(topk.topk.reference(h, k) if k else h, p.down, p.bias)


@every_dtype
@pytest.mark.parametrize("activation", ["relu", "relu^2"])
@pytest.mark.parametrize("way", ["plain", "gated", "top-k", "gated, top-k", "dense"])
def test_a_whole_mlp_is_as_close_to_float64_as_torchs_own(dtype, activation, way, num_threads):
    for shape in SHAPES:
        p = problem(*shape, dtype, "normal", 5)
        gate, k = p.other if "gated" in way else None, p.k if "top-k" in way else 0
        if way == "dense":
            y = skip.dense_mlp(p.x, p.up, p.down, p.bias, activation=activation)
        else:
            y = skip.sparse_mlp(p.x, p.up, p.down, p.bias, gate=gate, activation=activation, k=k)
        wanted, plain = (mlp(p, gate, activation, k, one) for one in (torch.float64, torch.float32))
        allowed = 2 * (plain - wanted).abs().max() + UNIT[dtype] * wanted.abs() + 1e-6 * (1 + wanted.abs().max())
        assert y.dtype == dtype
        assert ((y.double() - wanted).abs() <= allowed).all()
