"""How a kernel is started: projections as rows, arguments in order, and the scratch that it works in."""

import ctypes
import functools
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lazyneuron.errors import LazyneuronError
from lazyneuron.kernels.screen import Screen

NUM_COUNTS = 5
_BYTES_PER_THREAD = 2**17
_MOST_BYTES_KEPT = 2**26
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class StaleScreenError(LazyneuronError):
    """A screen is not that of the weights it came with: they were edited since."""


def check_weight(weight_FD: Tensor) -> None:
    """ValueError for a weight that no kernel reads."""
    if weight_FD.dtype not in _NAMES or not weight_FD.is_contiguous() or weight_FD.device.type != "cpu":
        where = f"{weight_FD.dtype}, {'' if weight_FD.is_contiguous() else 'not '}contiguous, on {weight_FD.device}"
        raise ValueError(f"weights are contiguous fp32 or bf16 on the CPU, one row a neuron; got {where}")


def check_bias(bias: Tensor | None, size: int) -> None:
    """ValueError for a bias that a kernel would misread."""
    if bias is not None and (bias.shape != (size,) or bias.dtype != torch.float32 or not bias.is_contiguous()):
        raise ValueError(f"a bias is {tuple(bias.shape)}, {bias.dtype}: expected contiguous fp32 of {size}")


@dataclass(frozen=True)
class Rows:
    """A projection with one row a neuron: weight [F, D], bias [F] in fp32 or None, and its screen if it has one.

    A down projection's bias is [D].
    ValueError for what a kernel would read past its end, or by another type: kernels see addresses only.
    """

    weight_FD: Tensor
    bias: Tensor | None = None
    screen: Screen | None = None
    is_down: bool = False

    def __post_init__(self) -> None:
        check_weight(self.weight_FD)
        F, D = self.weight_FD.shape
        check_bias(self.bias, D if self.is_down else F)
        screen = self.screen
        if screen is not None and (screen.q_FD.shape != (F, D) or screen.scales_F3.shape != (F, 3)):
            raise ValueError(f"a screen of {tuple(screen.q_FD.shape)} is not that of a weight of {(F, D)}")

    @cached_property
    def addresses(self) -> tuple[int, int, int, int]:
        """Of int8 rows, scales, weight and bias; 0 where there is none."""
        screen = self.screen
        tensors = screen and screen.q_FD, screen and screen.scales_F3, self.weight_FD, self.bias
        q, scales, weight, bias = (0 if tensor is None else tensor.data_ptr() for tensor in tensors)
        return q, scales, weight, bias

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "addresses"}


@dataclass
class Tally:
    """What calls have read: rows of up (or gate) recomputed, rows of down; and pairs of token and neuron."""

    num_calls: int = 0
    num_tokens: int = 0
    candidates: int = 0
    down_rows: int = 0
    active: int = 0
    candidate_pairs: int = 0

    def take(self, other: "Tally") -> None:
        """Add up what another has counted."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def add(self, num_tokens: int, counts: list[int]) -> None:
        candidates, down_rows, active, _, candidate_pairs = counts
        self.num_calls += 1
        self.num_tokens += num_tokens
        self.candidates += candidates
        self.down_rows += down_rows
        self.active += active
        self.candidate_pairs += candidate_pairs


class _Scratch(threading.local):
    """Memory for the kernels that this thread starts, kept from call to call unless it is much."""

    kept: Tensor | None = None

    def take(self, num_bytes: int) -> Tensor:
        if self.kept is not None and self.kept.nbytes >= num_bytes:
            return self.kept
        taken = torch.empty(num_bytes, dtype=torch.uint8, device="cpu")
        if num_bytes <= _MOST_BYTES_KEPT:
            self.kept = taken
        return taken


_scratch = _Scratch()


@functools.cache
def _kernel(name: str, dtype: torch.dtype) -> Any:
    from lazyneuron.kernels import skip_cpu as kernels

    return getattr(kernels, f"{name}_{_NAMES[dtype]}")


@functools.lru_cache(1024)
def _scratch_bytes(num_tokens: int, num_neurons: int, width: int, k: int, num_threads: int) -> int:
    from lazyneuron.kernels.buffers import places

    return places.py_func(num_tokens, num_neurons, width)[-1] + 4 * num_threads * num_tokens * max(width, k)


def num_threads_for(weight_FD: Tensor) -> int:
    """Threads that a weight is worth, at most torch's."""
    return max(1, min(torch.get_num_threads(), weight_FD.nbytes // _BYTES_PER_THREAD))


def launch(
    name: str,
    weight_FD: Tensor,
    num_tokens: int,
    *,
    kind: int = 1,
    k: int = 0,
    x_TD: Tensor | None = None,
    first: Rows | None = None,
    second: Rows | None = None,
    map_TF: Tensor | None = None,
    mask_TF: Tensor | None = None,
    down_FD: Tensor | None = None,
    down_bias: Tensor | None = None,
    y_TD: Tensor | None = None,
    tally: Tally | None = None,
) -> Tensor:
    """Run the kernel `name` for weights like `weight_FD`, and give its scratch (see `buffers`) back.

    Tensors are fp32 but for the weights, and contiguous. StaleScreenError where a pre-activation is outside its bounds.
    """
    num_neurons, width = weight_FD.shape
    num_threads = num_threads_for(weight_FD)
    counts = (ctypes.c_int64 * (NUM_COUNTS * num_threads))()
    scratch = _scratch.take(_scratch_bytes(num_tokens, num_neurons, width, k, num_threads))
    _kernel(name, weight_FD.dtype).run(
        num_threads,
        num_tokens,
        num_neurons,
        width,
        kind,
        k,
        scratch,
        0 if x_TD is None else x_TD,
        *(first.addresses if first else (0, 0, 0, 0)),
        *(second.addresses if second else (0, 0, 0, 0)),
        ctypes.addressof(counts),
        *(0 if tensor is None else tensor for tensor in (map_TF, mask_TF, down_FD, down_bias, y_TD)),
        int(first is None or first.screen is None or first.screen.is_certified),
    )
    if outside := sum(counts[3::NUM_COUNTS]):
        raise StaleScreenError(
            f"{outside} pre-activations are outside their bounds: the weights changed; screen them anew"
        )
    if tally is not None:
        tally.add(num_tokens, [sum(counts[i::NUM_COUNTS]) for i in range(NUM_COUNTS)])
    return scratch
