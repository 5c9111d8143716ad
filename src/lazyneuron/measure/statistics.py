"""Streaming statistics of activation maps: integer counts that add up over batches, calls and ranks.

Counts of a token do not depend on other tokens (except the neighbours of `overlap`), so it does not matter how the data
are split into batches, calls with a cache, and ranks; only `halves` follows the order in which a probe sees sequences.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from lazyneuron.kernels.count import Counts
from lazyneuron.maps.tokens import Tokens

MAX_POSITIONS = 4096


@dataclass(frozen=True)
class Seen:
    """The maps of a site in one call, their tokens, and what was counted; its neurons active `across` calls."""

    counts: Counts
    tokens: Tokens
    num_sequences: Tensor | None = None
    across: Tensor | None = None


@dataclass(frozen=True)
class Statistic:
    """Its name, what `count` must compute for it ("relative", "energy", "shared", "halves" or ""), the shape of its
    int64 counts given d_ff, and how to add a call's counts, with places of their tokens if it `has_places`."""

    name: str
    needs: str
    shape: Callable[[int], tuple[int, ...]]
    add: Callable[[Tensor, Seen], object]
    has_places: bool = False


def _histogram(name: str, needs: str = "") -> Statistic:
    """Number of tokens for each value, from 0 to d_ff, of a count per token."""

    def add(histogram: Tensor, seen: Seen) -> None:
        values = seen.counts.tokens[name].flatten()
        histogram.scatter_add_(0, values, seen.counts.is_real_BS.flatten().long())

    return Statistic(name, needs, lambda d_ff: (d_ff + 1,), add)


def _by_position(both_P2: Tensor, seen: Seen) -> None:
    """Active neurons and tokens at each position in the sequence, [positions, 2]; the last row holds all beyond."""
    active_BS, is_real_BS = seen.counts.tokens["active"], seen.counts.is_real_BS
    if (place_BS := seen.tokens.position_BS) is None:
        both_S2 = torch.stack([active_BS.sum(0), is_real_BS.sum(0)], -1)
        both_P2[: len(both_S2)] += both_S2[:MAX_POSITIONS]
        both_P2[-1] += both_S2[MAX_POSITIONS:].sum(0)
        return
    both_BS2 = torch.stack([active_BS, is_real_BS.long()], -1) * (place_BS >= 0)[..., None]
    both_P2.index_add_(0, place_BS.flatten().clamp(0, MAX_POSITIONS - 1), both_BS2.flatten(0, 1))


def _overlap(both_and_either: Tensor, seen: Seen) -> None:
    """Neurons active at both of two neighbouring real tokens, and at either, summed over all such pairs: [2]."""
    active, both = seen.counts.tokens["active"], seen.counts.tokens["shared"].sum()
    of_pairs = ((active[:, 1:] + active[:, :-1]) * seen.counts.is_pair_BS[:, 1:]).sum()
    both_and_either += torch.stack([both, of_pairs - both])
    if seen.across is not None:
        both_and_either += seen.across


def _halves(second_and_sequences: Tensor, seen: Seen) -> None:
    """How often each neuron was active in the second half of the data, and sequences in both halves: [F + 1]."""
    second_and_sequences[:-1] += seen.counts.firing_HF[1]
    if seen.num_sequences is not None:
        second_and_sequences[-1] += seen.num_sequences


STATISTICS = {
    statistic.name: statistic
    for statistic in (
        _histogram("active"),
        _histogram("relative", "relative"),
        _histogram("positive", "relative"),
        _histogram("energy_90", "energy"),
        _histogram("energy_99", "energy"),
        Statistic("position", "", lambda d_ff: (MAX_POSITIONS, 2), _by_position, True),
        Statistic("overlap", "shared", lambda d_ff: (2,), _overlap, True),
        Statistic("halves", "halves", lambda d_ff: (d_ff + 1,), _halves, True),
    )
}
HISTOGRAMS = ("active", "relative", "positive", "energy_90", "energy_99")


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


def hot_neurons(firing_F: Tensor, share: float) -> Tensor:
    """The fewest neurons that make up `share` of all firing, most active first; ties go to the lower index."""
    if not 0 < share <= 1:
        raise ValueError(f"a share of all activity lies above 0 and up to 1; got {share}")
    counts_F, neurons_F = firing_F.sort(descending=True, stable=True)
    wanted = math.ceil(Fraction(str(share)) * int(counts_F.sum()))  # exact, where 0.9 * total is not
    before_F = counts_F.cumsum(0) - counts_F
    return neurons_F[before_F < wanted]
