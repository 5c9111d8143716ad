"""How many neurons of each token are active, and how often each neuron is: one exact pass over an activation map."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lazyneuron.kernels.operators import Operator, cpu_kernel

RELATIVE_THRESHOLD = 0.01
_ENTRIES_AT_A_TIME, _ENTRIES_PER_THREAD = 2**22, 2**16
PER_TOKEN = ("active", "nan", "relative", "positive", "energy_90", "energy_99", "shared")


@dataclass(frozen=True)
class Counts:
    """What one call's activation maps hold: B sequences of S tokens with F neurons, padding counted nowhere.

    `firing_HF` is how often each neuron was active: H is 1, or 2 where the halves of the data are counted apart.
    `tokens` has an int64 [B, S] for each name of `PER_TOKEN`, zero for those that were not asked for. `is_pair_BS` is
    True at tokens that "shared" compares with the one before them.
    """

    firing_HF: Tensor
    tokens: dict[str, Tensor]
    is_real_BS: Tensor
    is_pair_BS: Tensor


def count(
    h_BSF: Tensor,
    is_real_BS: Tensor | None = None,
    is_pair_BS: Tensor | None = None,
    is_second_BS: Tensor | None = None,
    *,
    relative: bool,
    energy: bool,
    shared: bool,
) -> Counts:
    """Count the maps of one call; `is_real_BS` is False at padding (None: all tokens are real).

    `is_pair_BS` is True at tokens that directly follow the one before them in their row (None: wherever both are real),
    `is_second_BS` at those of the second half of the data (None: it is not counted apart).
    """
    is_real_BS = h_BSF.new_ones(h_BSF.shape[:2], dtype=torch.bool) if is_real_BS is None else is_real_BS
    is_pair_BS = _pairs(is_real_BS, is_pair_BS) if shared else is_real_BS
    firing_HF, tokens_CBS = count_map(h_BSF, is_real_BS, relative, energy, shared, is_second_BS, is_pair_BS)
    return Counts(firing_HF, dict(zip(PER_TOKEN, tokens_CBS.unbind(), strict=True)), is_real_BS, is_pair_BS)


def _pairs(is_real_BS: Tensor, is_pair_BS: Tensor | None) -> Tensor:
    """The given pairs whose tokens are both real and of one row."""
    is_pair = is_real_BS & pad(is_real_BS[:, :-1], (1, 0))
    return is_pair if is_pair_BS is None else is_pair & is_pair_BS


@Operator
def count_map(
    h_BSF: Tensor,
    is_real_BS: Tensor,
    relative: bool,
    energy: bool,
    shared: bool,
    is_second_BS: Tensor | None = None,
    is_pair_BS: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """How often each neuron is active, int64 [1, F], and per token the counts of `PER_TOKEN`, int64 [7, B, S].

    Given `is_second_BS`, the tokens where it is False and those where it is True are counted apart: int64 [2, F].
    active: strictly nonzero entries. nan: NaN entries, which enter no other count. relative: entries of at least 1 % of
    the token's largest magnitude; with it, positive: entries above zero. energy_90, energy_99: the fewest entries that
    hold that share of the token's energy (sum of squares, in float64), 0 for a token of zeros. shared: neurons active
    at this token and at the one before it in its row, 0 at the first, beside padding and where `is_pair_BS` is False.
    At padding all are 0, as are those not asked for.
    """
    wanted = (relative, energy, shared, is_second_BS, is_pair_BS)
    return by_chunks(_count_rows, _ENTRIES_AT_A_TIME, h_BSF, is_real_BS, *wanted)


@count_map.on_cpu
def _(
    h_BSF: Tensor,
    is_real_BS: Tensor,
    relative: bool,
    energy: bool,
    shared: bool,
    is_second_BS: Tensor | None = None,
    is_pair_BS: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    wanted = (relative, energy, shared, is_second_BS, is_pair_BS)
    if h_BSF.dtype == torch.float64:
        return count_map.reference(h_BSF, is_real_BS, *wanted)
    is_read_in_place = h_BSF.dtype == torch.float32 and h_BSF.is_contiguous()
    at_a_time = h_BSF.numel() if is_read_in_place else _ENTRIES_AT_A_TIME
    return by_chunks(_count_rows_on_cpu, at_a_time, h_BSF, is_real_BS, *wanted)


def by_chunks(
    count_rows: Callable[..., tuple[Tensor, Tensor]],
    entries_at_a_time: int,
    h_BSF: Tensor,
    is_real_BS: Tensor,
    relative: bool,
    energy: bool,
    shared: bool,
    is_second_BS: Tensor | None = None,
    is_pair_BS: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run `count_rows` over some tokens at a time, so that what it needs besides the map stays small.

    `count_rows(h_RF, is_real_T, is_pair_T, is_second_T, lead, relative, energy, shared)` counts the last T rows of
    R = lead + T, in full precision; a lead of 1 shows it the token before, and `is_pair_T` says which tokens are
    compared with it.
    """
    if not h_BSF.is_floating_point():
        raise ValueError(f"an activation map holds floating point numbers; got {h_BSF.dtype}")
    if is_real_BS.dtype != torch.bool or is_real_BS.shape != h_BSF.shape[:-1]:
        seen = f"{is_real_BS.dtype} {tuple(is_real_BS.shape)}"
        raise ValueError(f"is_real_BS must be bool of shape {tuple(h_BSF.shape[:-1])}; got {seen}")
    h_TF, is_real_T = h_BSF.flatten(0, 1), is_real_BS.flatten()
    is_pair_T = (_pairs(is_real_BS, is_pair_BS) if shared else is_real_BS).flatten()
    is_second_T = None if is_second_BS is None else is_second_BS.flatten()
    step = max(1, entries_at_a_time // max(1, h_TF.shape[1]))
    num_halves = 1 if is_second_T is None else 2
    firing_HF = torch.zeros(num_halves, h_TF.shape[1], dtype=torch.int64, device=h_TF.device)
    tokens = []
    for start in range(0, len(h_TF), step):
        lead, part = int(start > 0), slice(start, start + step)
        h_RF = h_TF[start - lead : start + step]
        h_RF = h_RF if h_RF.dtype == torch.float64 else h_RF.float()
        second = None if is_second_T is None else is_second_T[part]
        firing, found = count_rows(h_RF, is_real_T[part], is_pair_T[part], second, lead, relative, energy, shared)
        firing_HF += firing
        tokens.append(found)
    tokens_CT = torch.cat(tokens, 1) if tokens else firing_HF.new_zeros(len(PER_TOKEN), 0)
    return firing_HF, tokens_CT.view(len(PER_TOKEN), *is_real_BS.shape)


def _count_rows(
    h_RF: Tensor,
    is_real_T: Tensor,
    is_pair_T: Tensor,
    is_second_T: Tensor | None,
    lead: int,
    relative: bool,
    energy: bool,
    shared: bool,
) -> tuple[Tensor, Tensor]:
    """The reference: plain PyTorch, on any device and without waiting for it."""
    is_nan_RF = h_RF.isnan()
    size_RF = h_RF.abs().masked_fill_(is_nan_RF, 0)
    active_RF = size_RF > 0
    size_TF, active_TF = size_RF[lead:], active_RF[lead:] & is_real_T[:, None]
    counts = {"active": active_TF.sum(1), "nan": is_nan_RF[lead:].sum(1)}
    if relative:
        threshold_T1 = RELATIVE_THRESHOLD * size_TF.amax(1, keepdim=True)
        counts["relative"] = (active_TF & (size_TF >= threshold_T1)).sum(1)
        counts["positive"] = (h_RF[lead:] > 0).sum(1)
    if energy:
        held_TF = size_TF.double().square_().sort(1, descending=True).values.cumsum_(1)
        for name, share in (("energy_90", 0.90), ("energy_99", 0.99)):
            total_T1 = held_TF[:, -1:]
            counts[name] = ((held_TF < share * total_T1).sum(1) + 1) * (total_T1[:, 0] > 0)
    if shared:
        before_RF = active_RF if lead else pad(active_RF, (0, 0, 1, 0))
        counts["shared"] = (active_TF & before_RF[: len(is_real_T)]).sum(1) * is_pair_T
    nothing_T, firing_HF = torch.zeros_like(counts["active"]), active_TF.sum(0, keepdim=True)
    if is_second_T is not None:
        second_1F = (active_TF & is_second_T[:, None]).sum(0, keepdim=True)
        firing_HF = torch.cat([firing_HF - second_1F, second_1F])
    return firing_HF, torch.stack([counts.get(name, nothing_T) * is_real_T for name in PER_TOKEN])


def _count_rows_on_cpu(
    h_RF: Tensor,
    is_real_T: Tensor,
    is_pair_T: Tensor,
    is_second_T: Tensor | None,
    lead: int,
    relative: bool,
    energy: bool,
    shared: bool,
) -> tuple[Tensor, Tensor]:
    """The same by the kernel, for fp32 rows."""
    T, (R, F) = len(is_real_T), h_RF.shape
    num_threads = max(1, min(torch.get_num_threads(), T * F // _ENTRIES_PER_THREAD))
    H, is_second_T = (1, is_real_T) if is_second_T is None else (2, is_second_T)
    firing_PHF = torch.zeros(num_threads, H, F, dtype=torch.int32, device="cpu")
    tokens_7T = torch.zeros(len(PER_TOKEN), T, dtype=torch.int64, device="cpu")
    given = {"h_RF": h_RF.detach().contiguous(), "firing_PHF": firing_PHF, "tokens_7T": tokens_7T}
    given |= {"is_real_T": is_real_T.contiguous(), "is_pair_T": is_pair_T.contiguous(), "lead": lead}
    given |= {"is_second_T": is_second_T.contiguous(), "H": H}
    given |= {"relative": relative and round(1 / RELATIVE_THRESHOLD), "energy": energy, "shared": shared}
    cpu_kernel("count_cpu", "count_rows").run(num_threads, R=R, T=T, F=F, **given)
    return firing_PHF.sum(0), tokens_7T
