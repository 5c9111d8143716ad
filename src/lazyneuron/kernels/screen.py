"""What rules neurons out: an int8 copy of a weight's rows, with norms that bound all that rounding left out."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_CHUNK_ENTRIES = 2**22
_ROUNDING = 2.0**-50
_SUMMING = 1 + 1e-9


@dataclass(frozen=True)
class Screen:
    """`w_i` is about `scale_i` times the int8 row `q_FD[i]`; `scales_F3` has, in fp32 rounded up but for the first,

        scale_i,   ||w_i - scale_i q_i||,   ||scale_i q_i||.

    So for a token x that is `step` times integers but for a rest r,

        |w_i.x - scale_i step (q_i.x_int)| <= ||w_i - scale_i q_i|| ||x|| + ||scale_i q_i|| ||r||.
    """

    q_FD: Tensor
    scales_F3: Tensor
    is_certified: bool = True

    def narrowed(self, width: float) -> "Screen":
        """The same with `width` of its error bounds, which are then no longer certain."""
        factors = self.scales_F3.new_tensor([1, width, width])
        return replace(self, scales_F3=self.scales_F3 * factors, is_certified=False)

    @property
    def num_bytes(self) -> int:
        """Bytes that it adds to the model's."""
        return self.q_FD.nbytes + self.scales_F3.nbytes


def screen_of(weight_FD: Tensor) -> Screen:
    """The screen of a weight with one row a neuron, fp32 or bf16. Rows with inf or NaN are never ruled out."""
    parts = [_screened(part.detach()) for part in weight_FD.split(max(1, _CHUNK_ENTRIES // weight_FD.shape[1]))]
    return Screen(torch.cat([q for q, _ in parts]), torch.cat([scales for _, scales in parts]))


def _screened(weight_FD: Tensor) -> tuple[Tensor, Tensor]:
    w = weight_FD.double()
    scale = (w.abs().amax(-1) / 127).float()
    is_used = scale.isfinite() & (scale > 0)
    wide = torch.where(is_used, scale, 1).double()[:, None]
    q = torch.where(is_used[:, None], (w / wide).round().clamp(-127, 127), 0)
    norm = w.norm(dim=-1)
    left = (w - q * wide).norm(dim=-1) * _SUMMING + _ROUNDING * norm
    rounded = (q * wide).norm(dim=-1) * _SUMMING
    return q.to(torch.int8), torch.stack([torch.where(is_used, scale, 0), _up(left), _up(rounded)], -1)


def _up(value: Tensor) -> Tensor:
    """The least fp32 not below a float64."""
    near = value.float()
    return torch.where(near.double() < value, torch.nextafter(near, torch.tensor(torch.inf)), near)
