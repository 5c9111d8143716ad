"""Weights as the kernels read them: one row a neuron, with the screen that rules neurons out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lazyneuron.errors import LazyneuronError
from lazyneuron.kernels.screen import Screen

_DTYPES = (torch.float32, torch.bfloat16)


class StaleScreenError(LazyneuronError):
    """The weights were edited after their screen was made."""


def check_weight(weight_FD: Tensor) -> None:
    """ValueError for a weight that no kernel reads."""
    if weight_FD.dtype not in _DTYPES or not weight_FD.is_contiguous() or weight_FD.device.type != "cpu":
        where = f"{weight_FD.dtype}, {'' if weight_FD.is_contiguous() else 'not '}contiguous, on {weight_FD.device}"
        raise ValueError(f"kernels read contiguous fp32 or bf16 on the CPU, one row a neuron; got {where}")


def check_bias(bias: Tensor | None, size: int) -> None:
    """ValueError for a bias that a kernel would misread."""
    if bias is not None and (bias.shape != (size,) or bias.dtype != torch.float32 or not bias.is_contiguous()):
        raise ValueError(f"a bias is {tuple(bias.shape)}, {bias.dtype}: expected contiguous fp32 of {size}")


@dataclass(frozen=True)
class Rows:
    """A projection with one row a neuron: weight [F, D], bias [F] (of a down projection [D]) in fp32, and its screen.

    ValueError for what a kernel would misread or read past its end: kernels see addresses only.
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
            raise ValueError(f"a screen of {tuple(screen.q_FD.shape)} does not fit a weight of {(F, D)}")

    @property
    def tensors(self) -> list[Tensor | None]:
        """What `of` reads: weight, bias, the screen's rows and scales; a fifth marks a screen that is not certified."""
        if self.screen is None:
            return [self.weight_FD, self.bias]
        scales_F3 = self.screen.scales_F3
        return [self.weight_FD, self.bias, self.screen.q_FD, scales_F3] + [scales_F3] * (not self.screen.is_certified)

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None]) -> Self:
        """Rows from their `tensors`."""
        weight_FD, bias, *screen = tensors
        assert weight_FD is not None
        if not screen:
            return cls(weight_FD, bias)
        q_FD, scales_F3 = screen[:2]
        assert q_FD is not None
        assert scales_F3 is not None
        return cls(weight_FD, bias, Screen(q_FD, scales_F3, is_certified=len(screen) == 2))


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
