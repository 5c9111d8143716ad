"""Weights as the kernels read them: one row a neuron, with the screen that rules neurons out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lazyneuron.errors import LazyneuronError
from lazyneuron.kernels.screen import Screen

_DTYPES = (torch.float32, torch.bfloat16)
_PARTS, _CALLS_BETWEEN, _CHUNK_ROWS = 64, 16, 1024


class StaleScreenError(LazyneuronError):
    """The weights were edited after their screen was made."""


def check_weight(weight_FD: Tensor, scales: Tensor | None = None) -> None:
    """ValueError for a weight that no kernel reads: int8 has a scale for each row, other weights have none."""
    is_read = weight_FD.dtype in _DTYPES if scales is None else weight_FD.dtype == torch.int8
    if not is_read or not weight_FD.is_contiguous() or weight_FD.device.type != "cpu":
        where = f"{weight_FD.dtype}, {'' if weight_FD.is_contiguous() else 'not '}contiguous, on {weight_FD.device}"
        raise ValueError(
            "kernels read contiguous fp32 or bf16 on the CPU, one row a neuron, or int8 with a scale for each row; "
            f"got {where}, {'no scales' if scales is None else 'and scales'}"
        )
    check_vector("a scale", scales, len(weight_FD))


def check_vector(name: str, vector: Tensor | None, size: int) -> None:
    """ValueError for a bias, or the scales of rows, that a kernel would misread."""
    if vector is not None and (vector.shape != (size,) or vector.dtype != torch.float32 or not vector.is_contiguous()):
        raise ValueError(f"{name} is {tuple(vector.shape)}, {vector.dtype}: expected contiguous fp32 of {size}")


@dataclass(frozen=True)
class Rows:
    """A projection with one row a neuron: weight [F, D], bias [F] (of a down projection [D]) in fp32, and its screen.

    An int8 weight has `scales` [F] in fp32: each row counts times its own. ValueError for what a kernel would misread
    or read past its end: kernels see addresses only.
    """

    weight_FD: Tensor
    bias: Tensor | None = None
    screen: Screen | None = None
    is_down: bool = False
    scales: Tensor | None = None

    def __post_init__(self) -> None:
        check_weight(self.weight_FD, self.scales)
        F, D = self.weight_FD.shape
        check_vector("a bias", self.bias, D if self.is_down else F)
        screen = self.screen
        if screen is not None and self.scales is not None:
            raise ValueError("an int8 weight has no screen: it is read in full")
        if screen is not None and (screen.q_FD.shape != (F, D) or screen.scales_F3.shape != (F, 3)):
            raise ValueError(f"a screen of {tuple(screen.q_FD.shape)} does not fit a weight of {(F, D)}")

    @property
    def tensors(self) -> list[Tensor | None]:
        """What `of` reads: weight and bias, then the rows' scales, or the screen's rows and scales.

        A fifth marks a screen that is not certified.
        """
        if self.screen is None:
            return [self.weight_FD, self.bias] + [self.scales] * (self.scales is not None)
        scales_F3 = self.screen.scales_F3
        return [self.weight_FD, self.bias, self.screen.q_FD, scales_F3] + [scales_F3] * (not self.screen.is_certified)

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None]) -> Self:
        """Rows from their `tensors`."""
        weight_FD, bias, *screen = tensors
        assert weight_FD is not None
        if len(screen) < 2:
            return cls(weight_FD, bias, scales=screen[0] if screen else None)
        q_FD, scales_F3 = screen[:2]
        assert q_FD is not None
        assert scales_F3 is not None
        return cls(weight_FD, bias, Screen(q_FD, scales_F3, is_certified=len(screen) == 2))


class Fingerprint:
    """Notices edits of a weight [F, D] that torch does not count, as those through `.data`, without reading all of it.

    Each call compares 64 entries from all over the weight, so that an edit of all of it is seen at once. One call in 16
    compares a sum of each row of a 64th of the rows, every entry times an odd number: any other edit is seen within
    1,024 calls.
    """

    def __init__(self, weight_FD: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        (F, D), bits_FD = weight_FD.shape, _bits(weight_FD)
        self._places = torch.linspace(0, F - 1, _PARTS).long() * D + torch.randint(D, (_PARTS,), generator=generator)
        self._entries = bits_FD.take(self._places)
        self._factors = 2 * torch.randint(2**14, (D,), generator=generator, dtype=bits_FD.dtype) + 1
        self._sums = torch.cat([(part * self._factors).sum(-1) for part in bits_FD.split(_CHUNK_ROWS)])
        self._num_calls = 0

    def calls_since_edit(self, weight_FD: Tensor) -> int | None:
        """After how many calls at most an edit is seen by this one, 0 if at once; None if none is seen."""
        bits_FD = _bits(weight_FD)
        self._num_calls += 1
        if not torch.equal(bits_FD.take(self._places), self._entries):
            return 0
        rounds, rest = divmod(self._num_calls, _CALLS_BETWEEN)
        part = slice(rounds % _PARTS, None, _PARTS)
        if rest or torch.equal((bits_FD[part] * self._factors).sum(-1), self._sums[part]):
            return None
        return min(self._num_calls, _CALLS_BETWEEN * _PARTS)


def _bits(weight_FD: Tensor) -> Tensor:
    return weight_FD.view(torch.int32 if weight_FD.dtype == torch.float32 else torch.int16)


@dataclass
class Tally:
    """Sums over calls: weight rows read, each once a call, and pairs of a token and a neuron that it needed."""

    num_calls: int = 0
    num_tokens: int = 0
    rows: int = 0
    pairs: int = 0

    def add(self, num_tokens: int, reads: Tensor) -> int:
        """Count a call, with the `reads` that an operator of `lazyneuron.kernels.skip` gives; its pairs."""
        rows, pairs = reads.tolist()
        self.num_calls += 1
        self.num_tokens += num_tokens
        self.rows += rows
        self.pairs += pairs
        return pairs
