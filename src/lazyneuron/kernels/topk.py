"""Selections: operators on the last axis of a map that keep some entries and zero the others.

    topk                 the k largest by magnitude (arXiv 2210.06313, section 4), with a CPU kernel
    group_topk           the k largest of each block of neurons
    threshold            all above a fixed magnitude
    statistical_topk     about k, above a threshold from mean and deviation (arXiv 2506.06644, equation 5)

NaN counts as larger than infinity, so it is kept, never hidden. Gradients reach the entries that stayed nonzero.
"""

import torch
from torch import Tensor

from lazyneuron.kernels.operators import Operator, cpu_kernel

_ENTRIES_PER_THREAD = 2**15
# How far left a bit pattern goes to read about as the fp32 of its value: enough to guess thresholds by.
_SHIFTS = {torch.float32: 0, torch.bfloat16: 16, torch.float16: 13}


@Operator
def topk(h: Tensor, k: int) -> Tensor:
    """The `k` entries of largest magnitude along the last axis of `h` [..., F]; all others zero, same shape.

    Of equal ones the lowest index is kept, so at most k entries stay nonzero. On maps without negative entries (ReLU)
    magnitude is value. ValueError unless 0 < k <= F and `h` is floating point.
    """
    _check(h, k)
    kept = h.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    is_kept = torch.zeros_like(h, dtype=torch.bool).scatter_(-1, kept, True)
    return torch.where(is_kept, h, 0)


@topk.on_cpu
def _topk_on_cpu(h: Tensor, k: int) -> Tensor:
    if h.dtype not in _SHIFTS:
        return topk.reference(h, k)
    _check(h, k)
    h = h.detach().contiguous()
    out, F = torch.empty_like(h), h.shape[-1]
    T = h.numel() // F
    num_threads = max(1, min(torch.get_num_threads(), T, h.numel() // _ENTRIES_PER_THREAD))
    run = cpu_kernel("topk_cpu", "topk_rows").run
    run(num_threads, h.element_size(), T=T, F=F, k=k, shift=_SHIFTS[h.dtype], bits_TF=h, out_TF=out)
    return out


@Operator
def topk_straight_through(h: Tensor, k: int) -> Tensor:
    """`topk`, but the gradient reaches every entry unchanged."""
    return topk.reference(h, k)


topk_straight_through.on_cpu(_topk_on_cpu)
topk.differentiate(lambda kept, t: torch.where(kept != 0, t, 0))
topk_straight_through.differentiate(lambda kept, t: t.clone())
for _operator in (topk, topk_straight_through):
    _operator.vectorize(lambda info, in_dims, h, k, op=_operator: (op(h.movedim(in_dims[0], 0), k), 0))


def topk_values(h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `topk` keeps as (values, indices), both [..., k], in order of index; zeros fill up rows with fewer.

    Indices are int64 and differ within a row. Values carry the gradient.
    """
    kept = topk(h, k)
    indices = (kept == 0).to(torch.uint8).sort(dim=-1, stable=True).indices[..., :k]
    return kept.gather(-1, indices), indices


def group_topk(h: Tensor, k: int, num_groups: int) -> Tensor:
    """`topk` within each of `num_groups` equal blocks of neighbouring neurons: k per block, k * num_groups in all.

    ValueError where the blocks do not divide F, or k does not fit a block.
    """
    _check(h)
    if num_groups < 1 or h.shape[-1] % num_groups:
        raise ValueError(f"{num_groups} groups do not divide d_ff={h.shape[-1]}")
    return topk(h.unflatten(-1, (num_groups, -1)), k).flatten(-2)


def threshold(h: Tensor, tau: float) -> Tensor:
    """The entries of magnitude above `tau` (and NaN), all others zero."""
    _check(h)
    if not tau >= 0:
        raise ValueError(f"a threshold is 0 or more; got {tau}")
    return torch.where(h.abs() <= tau, 0, h)


def statistical_topk(u: Tensor, density: float) -> Tensor:
    """`max(u - theta, 0)` for pre-activations `u` [..., F], theta = mean + std * quantile(1 - density) of the normal.

    About `density` of the entries stay positive where each token's entries are normally distributed, found in O(F)
    without a sort. Mean and standard deviation (of the whole population) are taken over the last axis in fp32, and
    gradients flow through them. With density 1 nothing is cut off: ValueError unless 0 < density < 1.
    """
    _check(u)
    if not 0 < density < 1:
        raise ValueError(f"statistical top-k needs 0 < density < 1; got {density}")
    wide = u.float() if u.dtype in (torch.bfloat16, torch.float16) else u
    quantile = torch.special.ndtri(torch.tensor(1 - density, dtype=torch.float64)).item()
    std, mean = torch.std_mean(wide, dim=-1, correction=0, keepdim=True)
    return torch.relu(wide - (mean + std * quantile)).to(u.dtype)


def _check(h: Tensor, k: int | None = None) -> None:
    if not h.is_floating_point():
        raise ValueError(f"a selection is made on floating point maps; got {h.dtype}")
    if k is not None and not 0 < k <= h.shape[-1]:
        raise ValueError(f"top-k needs 0 < k <= d_ff; got k={k} with d_ff={h.shape[-1]}")
