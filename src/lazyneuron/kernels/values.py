"""How large the entries of each neuron are: a histogram over powers of two, exact and the same in any order."""

import torch
from torch import Tensor

from lazyneuron.kernels.operators import Operator, cpu_kernel

NUM_BINS = 16
EDGES = (0.0, *(2.0**power for power in range(-6, 8)))
"""Bin 0 holds entries of 0 and less, bin i those from `EDGES[i - 1]` to `EDGES[i]`, the last those of 128 and more."""
_ENTRIES_PER_THREAD = 2**16


@Operator
def bin_values(h_TF: Tensor, is_real_T: Tensor) -> Tensor:
    """How many of each neuron's entries are in each bin of `EDGES`, int64 [F, 16]; padding and NaN are in none."""
    h = h_TF.float()
    power = torch.frexp(h).exponent - 1  # of the largest power of two that the entry reaches
    bins_TF = torch.where(h > 0, torch.where(h.isinf(), NUM_BINS, power + 8).clamp(1, NUM_BINS - 1), 0).long()
    is_counted_TF = is_real_T[:, None] & ~h.isnan()
    found_FB = torch.zeros(h.shape[1], NUM_BINS, dtype=torch.int64, device=h.device)
    return found_FB.scatter_add_(1, bins_TF.t(), is_counted_TF.t().long())


@bin_values.on_cpu
def _(h_TF: Tensor, is_real_T: Tensor) -> Tensor:
    if h_TF.dtype == torch.float64:
        return bin_values.reference(h_TF, is_real_T)
    T, F = h_TF.shape
    bins_FB = torch.zeros(F, NUM_BINS, dtype=torch.int64, device="cpu")
    num_threads = max(1, min(torch.get_num_threads(), T * F // _ENTRIES_PER_THREAD))
    given = {"h_TF": h_TF.detach().float().contiguous(), "is_real_T": is_real_T.contiguous(), "bins_FB": bins_FB}
    cpu_kernel("values_cpu", "bin_values").run(num_threads, T=T, F=F, B=NUM_BINS, **given)
    return bins_FB
