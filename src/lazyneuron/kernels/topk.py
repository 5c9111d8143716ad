"""Which entries of a map stay: operators on the last axis, each stated in plain PyTorch, Top-k with a CPU kernel too.

    topk                 the k largest by magnitude (arXiv 2210.06313, section 4)
    group_topk           the k largest of each block of neurons
    threshold            all above a fixed magnitude
    statistical_topk     about k, above a threshold from mean and deviation (arXiv 2506.06644, equation 5)

NaN counts as larger than infinity, so it is kept, never hidden. Gradients reach the entries that stayed nonzero.
"""

from typing import Any

import torch
from torch import Tensor, nn

_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def topk(h: Tensor, k: int) -> Tensor:
    """The `k` entries of largest magnitude along the last axis of `h` [..., F]; all others zero, same shape.

    Of equal ones the lowest index is kept, so at most k entries stay nonzero. On maps without negative entries (ReLU)
    magnitude is value. ValueError unless 0 < k <= F and `h` is floating point.
    """
    _check(h)
    if not 0 < k <= h.shape[-1]:
        raise ValueError(f"top-k needs 0 < k <= d_ff; got k={k} with d_ff={h.shape[-1]}")
    if not h.requires_grad and _is_plain(h):
        from lazyneuron.kernels.topk_cpu import topk_rows

        return topk_rows(h, k)
    return torch.ops.lazyneuron.topk(h, k)


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


def topk_reference(h: Tensor, k: int) -> Tensor:
    """`topk` by a stable sort: what it means, on any device."""
    kept = h.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    is_kept = torch.zeros_like(h, dtype=torch.bool).scatter_(-1, kept, True)
    return torch.where(is_kept, h, 0)


def _topk_on_cpu(h: Tensor, k: int) -> Tensor:
    if h.dtype not in _KERNEL_DTYPES:
        return topk_reference(h, k)
    from lazyneuron.kernels.topk_cpu import topk_rows

    return topk_rows(h, k)


def _check(h: Tensor) -> None:
    if not h.is_floating_point():
        raise ValueError(f"a selection is made on floating point maps; got {h.dtype}")


def _is_plain(h: Tensor) -> bool:
    """Whether nothing but the kernel would see the call: the dispatcher's 10 us are as long as a token's work."""
    is_unseen = not (is_transformed(h) or torch._C._len_torch_function_stack())
    return is_unseen and h.device.type == "cpu" and h.dtype in _KERNEL_DTYPES


def is_transformed(h: Tensor) -> bool:
    """Whether a call on `h` is traced, transformed (vmap, jvp) or seen by a dispatch mode: it must go through torch."""
    transforms = torch._C._functorch.maybe_current_level()  # pyright: ignore[reportAttributeAccessIssue]
    is_traced = torch.compiler.is_compiling() or torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0
    return is_traced or transforms is not None or type(h) not in (Tensor, nn.Parameter)


def _setup(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (kept,) = ctx.saved_tensors
    return torch.where(kept != 0, grad, 0), None


# Not `custom_op`: its wrapper takes 20 us a call, this 6.
_library = torch.library.Library("lazyneuron", "FRAGMENT")
_library.define("topk(Tensor h, int k) -> Tensor")
_library.impl("topk", topk_reference, "CompositeExplicitAutograd")
_library.impl("topk", _topk_on_cpu, "CPU")
torch.library.register_fake("lazyneuron::topk", lambda h, k: torch.empty_like(h), lib=_library)
torch.library.register_autograd("lazyneuron::topk", _backward, setup_context=_setup, lib=_library)
