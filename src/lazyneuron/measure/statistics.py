"""Streaming statistics of activation maps: each keeps integer counts that add up over batches, calls and ranks.

What is counted for one token does not depend on the others (`overlap` looks at neighbours in the same sequence), so the
data may be cut into batches and ranks at will.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_POSITIONS = 4096
RELATIVE_THRESHOLD = 0.01


@dataclass(frozen=True)
class Maps:
    """One call's activation maps at a site: B sequences of S tokens, and which of these are real (all, if None)."""

    h_BSF: Tensor
    is_real_BS: Tensor | None

    @property
    def tokens_TF(self) -> Tensor:
        """The real tokens."""
        h_TF = self.h_BSF.flatten(0, -2)
        return h_TF if self.is_real_BS is None else h_TF[self.is_real_BS.flatten()]


@dataclass(frozen=True)
class Statistic:
    """A name, the shape of its int64 counts for a width d_ff, and what one call adds to them."""

    name: str
    shape: Callable[[int], tuple[int, ...]]
    count: Callable[[Maps], Tensor]


def num_active(h_TF: Tensor) -> Tensor:
    """Strictly nonzero entries of each token, int64 [T]; NaN is nonzero."""
    return (h_TF != 0).sum(-1)


def num_above(h_TF: Tensor, threshold: float = RELATIVE_THRESHOLD) -> Tensor:
    """Entries of each token larger in magnitude than `threshold` times its largest, int64 [T].

    This is the density to look at where zeros are rare (GELU, SiLU). In a token with an inf or NaN only those count.
    """
    return (_relative(h_TF) > threshold).sum(-1)


def num_holding(h_TF: Tensor, share: float) -> Tensor:
    """The fewest entries that hold `share` of each token's energy (sum of squares), int64 [T]; 0 for a zero token."""
    energy = _relative(h_TF).square().sort(-1, descending=True).values.cumsum(-1, dtype=torch.float64)
    total = energy[:, -1:]
    return ((energy < share * total).sum(-1) + 1) * (total[:, 0] > 0)


def _relative(h_TF: Tensor) -> Tensor:
    """|h| over the token's largest, in fp32 and free of overflow; 1 where h is inf or NaN and then 0 elsewhere."""
    h_TF = h_TF.float()
    is_broken = ~h_TF.isfinite()
    largest = h_TF.abs().amax(-1, keepdim=True)
    relative = h_TF.abs() / largest.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(is_broken.any(-1, keepdim=True), is_broken.float(), relative)


def _histogram(name: str, of_tokens: Callable[[Tensor], Tensor]) -> Statistic:
    """Number of tokens for each value from 0 to d_ff of a count made per token."""

    def count(maps: Maps) -> Tensor:
        return torch.bincount(of_tokens(maps.tokens_TF), minlength=maps.h_BSF.shape[-1] + 1)

    return Statistic(name, lambda d_ff: (d_ff + 1,), count)


def _by_position(maps: Maps) -> Tensor:
    """Active neurons and tokens at each position of its sequence, [positions, 2]; the last row pools what is beyond."""
    active_BS = num_active(maps.h_BSF)
    is_real_BS = torch.ones_like(active_BS) if maps.is_real_BS is None else maps.is_real_BS.long()
    both_S2 = torch.stack([(active_BS * is_real_BS).sum(0), is_real_BS.sum(0)], -1)
    found = both_S2.new_zeros(MAX_POSITIONS, 2)
    place = torch.arange(len(both_S2), device=found.device).clamp_max(MAX_POSITIONS - 1)
    return found.index_add_(0, place, both_S2)


def _overlap(maps: Maps) -> Tensor:
    """Neurons active in both of two neighbouring real tokens, and in either, summed over all such pairs: [2]."""
    active = maps.h_BSF != 0
    both, either = active[:, 1:] & active[:, :-1], active[:, 1:] | active[:, :-1]
    if maps.is_real_BS is not None:
        is_pair = (maps.is_real_BS[:, 1:] & maps.is_real_BS[:, :-1])[..., None]
        both, either = both & is_pair, either & is_pair
    return torch.stack([both.sum(), either.sum()])


STATISTICS = {
    statistic.name: statistic
    for statistic in (
        _histogram("active", num_active),
        _histogram("relative", num_above),
        _histogram("energy_90", lambda h_TF: num_holding(h_TF, 0.90)),
        _histogram("energy_99", lambda h_TF: num_holding(h_TF, 0.99)),
        Statistic("position", lambda d_ff: (MAX_POSITIONS, 2), _by_position),
        Statistic("overlap", lambda d_ff: (2,), _overlap),
    )
}
HISTOGRAMS = ("active", "relative", "energy_90", "energy_99")


def quantile(histogram: Tensor, q: float) -> int:
    """The smallest count that at least a fraction `q` of the tokens do not exceed; exact, from histogram [F + 1]."""
    if not 0 <= q <= 1:
        raise ValueError(f"a quantile lies between 0 and 1; got {q}")
    if not (total := int(histogram.sum())):
        raise ValueError("no token was counted: there is no quantile")
    rank = max(1, -int(-q * total // 1))
    return int((histogram.cumsum(0) < rank).sum())


def mean(histogram: Tensor) -> float:
    """Mean count per token, from the histogram [F + 1]; nan where no token was counted."""
    total = int(histogram.sum())
    values = torch.arange(len(histogram), device=histogram.device)
    return int((histogram * values).sum()) / total if total else float("nan")
