"""The op against loops over tokens; the kernel and the reference give the same integers whatever they are fed."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lazyneuron.kernels.count import PER_TOKEN, _count_rows, _count_rows_on_cpu, by_chunks, count, count_map

KERNELS = {"reference": _count_rows, "kernel": _count_rows_on_cpu}
MAPS = {
    "relu": lambda x: torch.relu(x - 1),
    "gelu": torch.nn.functional.gelu,
    "ties": torch.round,
    "denormal": lambda x: x * 1e-40,
    "huge": lambda x: x * 1e38,
    "one neuron": lambda x: x * (torch.arange(x.shape[-1]) == 1),
    "zero": torch.zeros_like,
    "nan and inf": lambda x: x.masked_fill(x > 2, math.nan).masked_fill(x < -2, -math.inf),
}


def holding(row: np.ndarray, share: float) -> int:
    energy = np.sort(row.astype(np.float64) ** 2)[::-1]
    found, total = 0.0, energy.sum()
    for number, part in enumerate(energy, 1):
        found += part
        if total and found >= share * total * (1 - 1e-12):
            return number
    return 0


def per_token(h: Tensor, kernel: str = "kernel") -> dict[str, list[int]]:
    """The counts of rows [T, F] as one sequence."""
    h = h[None]
    is_real = torch.ones(h.shape[:2], dtype=torch.bool)
    _, tokens = by_chunks(KERNELS[kernel], h.numel(), h, is_real, True, True, True)
    return dict(zip(PER_TOKEN, tokens[:, 0].tolist(), strict=True))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["relu", "gelu", "ties", "one neuron", "zero"])
def test_counts_are_those_of_a_loop(kernel, kind):
    h = MAPS[kind](torch.randn(60, 37, generator=torch.Generator().manual_seed(0)))
    h = h * torch.linspace(0, 3, 60)[:, None]
    found, rows = per_token(h, kernel), h.numpy()
    assert found["active"] == [int((row != 0).sum()) for row in rows]
    assert found["nan"] == [0] * 60
    largest = [np.float32(0.01) * abs(row).max() for row in rows]
    assert found["relative"] == [int(((abs(r) >= at) & (r != 0)).sum()) for r, at in zip(rows, largest, strict=True)]
    assert found["positive"] == [int((row > 0).sum()) for row in rows]
    assert found["energy_90"] == [holding(row, 0.9) for row in rows]
    assert found["energy_99"] == [holding(row, 0.99) for row in rows]
    pairs = [int(((a != 0) & (b != 0)).sum()) for a, b in itertools.pairwise(rows)]
    assert found["shared"] == [0, *pairs]


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 17, 100), (1, 40, 3072), (0, 4, 8), (2, 0, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernel_and_reference_agree_and_chunks_do_not_matter(kind, shape, dtype):
    torch.manual_seed(1)
    h, is_real = MAPS[kind](torch.randn(shape)).to(dtype), torch.rand(shape[:2]) > 0.3
    wants = (True, True, True)
    whole = by_chunks(_count_rows, 2**30, h, is_real, *wants)
    for at_a_time in (2**30, 7 * shape[-1], 1):
        firing, tokens = by_chunks(_count_rows_on_cpu, at_a_time, h, is_real, *wants)
        assert torch.equal(firing, whole[0])
        assert torch.equal(tokens, whole[1])
    firing, tokens = by_chunks(_count_rows, 3 * shape[-1], h, is_real, *wants)
    assert torch.equal(firing, whole[0])
    assert torch.equal(tokens, whole[1])
    second = torch.rand(shape[:2]) > 0.5
    firing, tokens = by_chunks(_count_rows, 2**30, h, is_real, *wants, second)
    assert torch.equal(firing[1], by_chunks(_count_rows, 2**30, h, is_real & second, *wants)[0][0])
    assert torch.equal(firing.sum(0, keepdim=True), whole[0])
    assert torch.equal(tokens, whole[1])
    for wanted in itertools.product([False, True], repeat=3):
        halves, tokens = by_chunks(_count_rows_on_cpu, 7 * shape[-1], h, is_real, *wanted, second)
        assert torch.equal(halves, firing)
        firing_1F, tokens = count_map(h, is_real, *wanted)
        kept = torch.tensor([True, True, wanted[0], wanted[0], wanted[1], wanted[1], wanted[2]])
        assert torch.equal(firing_1F, whole[0])
        assert torch.equal(tokens, whole[1] * kept[:, None, None])


@pytest.mark.parametrize("at_a_time", [2**30, 37, 1])
@pytest.mark.parametrize("kernel", KERNELS)
def test_only_the_given_pairs_are_compared(kernel, at_a_time):
    """And only those of two real tokens of one row, whatever is given."""
    torch.manual_seed(2)
    h, is_real, is_pair = torch.randn(3, 20, 37) > 1, torch.rand(3, 20) > 0.2, torch.rand(3, 20) > 0.4
    is_pair[:, 0] = True
    tokens = by_chunks(KERNELS[kernel], at_a_time, h.float(), is_real, False, False, True, None, is_pair)[1]
    shared = dict(zip(PER_TOKEN, tokens, strict=True))["shared"].tolist()
    for b, s in itertools.product(range(3), range(20)):
        is_compared = s > 0 and bool(is_pair[b, s] and is_real[b, s] and is_real[b, s - 1])
        assert shared[b][s] == is_compared * int((h[b, s] & h[b, s - 1]).sum())


class Allocated(TorchDispatchMode):
    """Sums the bytes of every new tensor that operators give back."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        old = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, Tensor)}
        new = {x.untyped_storage() for x in tree_leaves(out) if isinstance(x, Tensor)}
        self.num_bytes += sum(storage.nbytes() for storage in new if storage._cdata not in old)
        return out


def test_counting_takes_less_memory_than_the_bits_of_the_map():
    """All that it allocates, of torch's and of NumPy's, for all statistics, in float32."""
    h = torch.relu(torch.randn(8, 197, 3072))
    is_real = torch.ones(8, 197, dtype=torch.bool)
    with Allocated():  # compiled and loaded by now
        by_chunks(_count_rows_on_cpu, h.numel(), h, is_real, True, True, True)
    tracemalloc.start()
    with Allocated() as torchs:
        by_chunks(_count_rows_on_cpu, h.numel(), h, is_real, True, True, True)
    _, numpys = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < torchs.num_bytes
    assert torchs.num_bytes + numpys < h.numel() / 8


@settings(deadline=None)
@given(st.integers(0, 40), st.sampled_from([1e-30, 1.0, 1e30]))
def test_equal_entries_are_taken_one_by_one_at_any_scale(active, scale):
    row = torch.zeros(1, 40)
    row[0, :active] = scale
    found = per_token(row)
    assert found["energy_90"] == [math.ceil(round(0.9 * active, 9))]
    assert found["relative"] == [active]


def test_broken_entries():
    """NaN enters no count but its own; one infinite entry holds all of the energy."""
    h = torch.tensor([[1.0, math.nan, 2.0], [math.inf, 5.0, -math.inf], [math.nan] * 3])
    for kernel in KERNELS:
        found = per_token(h, kernel)
        assert found["active"] == [2, 3, 0]
        assert found["nan"] == [1, 0, 3]
        assert found["relative"] == [2, 2, 0]
        assert found["positive"] == [2, 2, 0]
        assert found["energy_90"] == [2, 1, 0]


def test_double_precision_is_not_rounded():
    h = torch.tensor([[[1e-60, 0.0, 1e-300]]], dtype=torch.float64)
    assert count(h, None, relative=True, energy=True, shared=False).tokens["active"].item() == 2


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"floating point numbers; got torch\.int64"):
        count(torch.ones(1, 2, 3, dtype=torch.int64), None, relative=False, energy=False, shared=False)
    with pytest.raises(ValueError, match=r"bool of shape \(1, 2\); got torch\.bool \(2, 1\)"):
        count(torch.ones(1, 2, 3), torch.ones(2, 1) > 0, relative=False, energy=False, shared=False)
