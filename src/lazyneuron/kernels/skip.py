"""What an MLP computes for a few tokens, reading only the weights that its answer needs. Tokens come as [T, D].

    sparse_down    the down projection: rows of the transposed weight for active neurons only
    screen_bounds  what that int8 copy bounds pre-activations by
    screened_up    the up (or gate) projection: exact where an int8 copy cannot rule the neuron out, else 0
    masked_up      the up projection where a mask is active, else 0
    sparse_mlp     screen, recompute and accumulate at once
    largest_logits the largest entries of x weight^T: exact where an int8 copy cannot rule the entry out, else -inf
    dense_up, dense_down, dense_mlp    all rows, on the same threads

Each is stated in plain PyTorch beside it (`..._reference`). Weights are fp32 or bf16 with one row a neuron, sums fp32.
A dropped neuron's pre-activation is at most 0 in exact arithmetic; with k, k others are certainly at least as large.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lazyneuron.kernels.launch import Rows, Tally, check_bias, check_weight, launch

KINDS = {"relu": 1, "relu^2": 2, "gelu": 3, "silu": 4}
_RELUS = {"relu": 1, "relu^2": 2}
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu^2": lambda u: torch.relu(u).square(),
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}


def sparse_down(h_TF: Tensor, down_FD: Tensor, bias: Tensor | None = None, tally: Tally | None = None) -> Tensor:
    """y[t] = bias + the sum over active i of h[t, i] * down[i], shape [T, D], in h's dtype, summed in fp32.

    Inactive neurons contribute nothing, whatever their weights hold (inf and NaN included).
    """
    return _down("down", h_TF, down_FD, bias, tally)


def screened_up(
    x_TD: Tensor, up: Rows, activation: str = "relu", k: int = 0, other: Rows | None = None, tally: Tally | None = None
) -> Tensor:
    """u = x up^T + bias where it may matter to what follows, else 0: [T, F], in x's dtype, summed in fp32.

    Without `k` it matters where u > 0; with it, where the neuron may be among the `k` of largest |act(u)|, or, of a
    gated MLP whose up projection is `other` (only its screen and bias are read), of largest |act(u) (x other^T + b)|.
    """
    kind = _kind(activation, KINDS)
    _check_screens(up, other if k else None)
    u_TF = _map_for(x_TD, up, other)
    launch(
        "up",
        up.weight_FD,
        len(x_TD),
        kind=kind,
        k=k,
        x_TD=_fp32(x_TD),
        first=up,
        second=other,
        map_TF=u_TF,
        tally=tally,
    )
    return u_TF.to(x_TD.dtype)


def screen_bounds(x_TD: Tensor, up: Rows) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of x up^T + bias, fp32 [T, F], as `screened_up` has them."""
    from lazyneuron.kernels.buffers import places

    _check_screens(up)
    u_TF, (T, (F, D)) = _map_for(x_TD, up), (len(x_TD), up.weight_FD.shape)
    scratch = launch("up", up.weight_FD, T, x_TD=_fp32(x_TD), first=up, map_TF=u_TF)
    low, high = (
        scratch[at : at + u_TF.nbytes].view(torch.float32).reshape(T, F) for at in places.py_func(T, F, D)[4:6]
    )
    return low.clone(), high.clone()


def masked_up(x_TD: Tensor, up: Rows, mask_TF: Tensor, activation: str = "relu", tally: Tally | None = None) -> Tensor:
    """u = x up^T + bias where the mask (what entered the gate's activation) gives other than 0, else 0."""
    kind, u_TF = _kind(activation, KINDS), _map_for(x_TD, up)
    _check_width("the mask", mask_TF, len(up.weight_FD))
    given = {"x_TD": _fp32(x_TD), "first": up, "map_TF": u_TF, "mask_TF": _fp32(mask_TF)}
    launch("masked", up.weight_FD, len(x_TD), kind=kind, **given, tally=tally)
    return u_TF.to(x_TD.dtype)


def sparse_mlp(
    x_TD: Tensor,
    up: Rows,
    down_FD: Tensor,
    down_bias: Tensor | None = None,
    *,
    gate: Rows | None = None,
    activation: str = "relu",
    k: int = 0,
    tally: Tally | None = None,
) -> Tensor:
    """act(x up^T + b) down + b for "relu" and "relu^2": [T, D], in x's dtype, summed in fp32.

    With `gate` it is (act(x gate^T + b) * (x up^T + b)) down + b. With `k` (not gated) only each token's k largest
    entries of the map count. Only the first projection (the gate, if there is one) needs a screen.
    """
    if k and gate is not None:
        raise ValueError("with a gate, k is for screened_up: the map is not known before up is")
    kind, first, second = _kind(activation, _RELUS), gate or up, up if gate else None
    _check_screens(first)
    h_TF, y_TD = _map_for(x_TD, first, second), _output(first.weight_FD, down_FD, down_bias, len(x_TD))
    given = {"x_TD": _fp32(x_TD), "first": first, "second": second, "map_TF": h_TF}
    given |= {"down_FD": down_FD, "down_bias": down_bias, "y_TD": y_TD}
    launch("up", first.weight_FD, len(x_TD), kind=kind, k=k, **given, tally=tally)
    return y_TD.to(x_TD.dtype)


def largest_logits(x_TD: Tensor, head: Rows, k: int = 1, tally: Tally | None = None) -> Tensor:
    """x head^T + bias for each token's `k` largest entries, and what may be as large; -inf elsewhere: [T, V].

    A maximum inner product search: an entry is left out only if `k` others are certainly larger.
    """
    if not 0 < k <= len(head.weight_FD):
        raise ValueError(f"k is between 1 and the {len(head.weight_FD)} rows; got {k}")
    _check_screens(head)
    logits_TV = _map_for(x_TD, head)
    launch("largest", head.weight_FD, len(x_TD), k=k, x_TD=_fp32(x_TD), first=head, map_TF=logits_TV, tally=tally)
    return logits_TV.to(x_TD.dtype)


def dense_up(x_TD: Tensor, up: Rows) -> Tensor:
    """x up^T + bias: [T, F], in x's dtype, summed in fp32."""
    u_TF = _map_for(x_TD, up)
    launch("product", up.weight_FD, len(x_TD), x_TD=_fp32(x_TD), first=up, map_TF=u_TF)
    return u_TF.to(x_TD.dtype)


def dense_down(h_TF: Tensor, down_FD: Tensor, bias: Tensor | None = None) -> Tensor:
    """h down + bias: [T, D], in h's dtype, summed in fp32."""
    return _down("down_all", h_TF, down_FD, bias)


def dense_mlp(
    x_TD: Tensor, up: Rows, down_FD: Tensor, down_bias: Tensor | None = None, *, activation: str = "relu"
) -> Tensor:
    """`sparse_mlp` without gate and k that reads all rows: what sparsity is to be compared with on the same threads."""
    kind, h_TF = _kind(activation, _RELUS), _map_for(x_TD, up)
    y_TD = _output(up.weight_FD, down_FD, down_bias, len(x_TD))
    given = {"map_TF": h_TF, "down_FD": down_FD, "down_bias": down_bias, "y_TD": y_TD}
    launch("dense", up.weight_FD, len(x_TD), kind=kind, x_TD=_fp32(x_TD), first=up, **given)
    return y_TD.to(x_TD.dtype)


def sparse_down_reference(h_TF: Tensor, down_FD: Tensor, bias: Tensor | None = None) -> Tensor:
    """`sparse_down`, one token at a time."""
    wide = torch.promote_types(h_TF.dtype, torch.float32)
    rows = [h[h != 0].to(wide) @ down_FD[h != 0].to(wide) for h in h_TF]
    y_TD = torch.stack(rows) if rows else h_TF.new_zeros(0, down_FD.shape[1], dtype=wide)
    return (y_TD if bias is None else y_TD + bias.to(wide)).to(h_TF.dtype)


def sparse_mlp_reference(
    x_TD: Tensor,
    up: Rows,
    down_FD: Tensor,
    down_bias: Tensor | None = None,
    *,
    gate: Rows | None = None,
    activation: str = "relu",
    k: int = 0,
) -> Tensor:
    """`sparse_mlp`, densely."""
    from lazyneuron.kernels.topk import topk_reference

    x = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))
    h = ACTIVATIONS[activation](_product(x, gate or up))
    h = h * _product(x, up) if gate else h
    h = topk_reference(h, k) if k else h
    return sparse_down_reference(h, down_FD.to(x.dtype), down_bias).to(x_TD.dtype)


def _product(x_TD: Tensor, rows: Rows) -> Tensor:
    bias = None if rows.bias is None else rows.bias.to(x_TD.dtype)
    return torch.nn.functional.linear(x_TD, rows.weight_FD.to(x_TD.dtype), bias)


def _kind(activation: str, known: Mapping[str, int]) -> int:
    if activation not in known:
        raise ValueError(f"activation {activation!r} is none of {', '.join(known)}")
    return known[activation]


def _check_width(name: str, x: Tensor, width: int) -> None:
    if x.dim() != 2 or x.shape[1] != width or not x.is_floating_point():
        raise ValueError(f"{name} of shape {tuple(x.shape)}, {x.dtype}: expected floating point [tokens, {width}]")


def _check_screens(first: Rows, other: Rows | None = None) -> None:
    if first.screen is None:
        raise ValueError("the first projection needs a screen: screen_of(weight)")
    if other is not None and other.screen is None:
        raise ValueError("with k, the other projection needs a screen too: screen_of(weight)")


def _check_alike(weight_FD: Tensor, other_FD: Tensor) -> None:
    if other_FD.shape != weight_FD.shape or other_FD.dtype != weight_FD.dtype:
        mine, others = (f"{tuple(w.shape)}, {w.dtype}" for w in (weight_FD, other_FD))
        raise ValueError(f"a weight is {others} beside one of {mine}")


def _map_for(x_TD: Tensor, first: Rows, second: Rows | None = None) -> Tensor:
    """An empty map for the tokens and projections, which are checked."""
    num_neurons, width = first.weight_FD.shape
    _check_width("tokens", x_TD, width)
    if second is not None:
        _check_alike(first.weight_FD, second.weight_FD)
    return torch.empty(len(x_TD), num_neurons, device="cpu")


def _output(weight_FD: Tensor, down_FD: Tensor, bias: Tensor | None, num_tokens: int) -> Tensor:
    """An empty output for a down projection, which is checked."""
    check_weight(down_FD)
    _check_alike(weight_FD, down_FD)
    check_bias(bias, down_FD.shape[1])
    return torch.empty(num_tokens, down_FD.shape[1], device="cpu")


def _down(name: str, h_TF: Tensor, down_FD: Tensor, bias: Tensor | None, tally: Tally | None = None) -> Tensor:
    y_TD = _output(down_FD, down_FD, bias, len(h_TF))
    _check_width("the map", h_TF, len(down_FD))
    given = {"map_TF": _fp32(h_TF), "down_FD": down_FD, "down_bias": bias, "y_TD": y_TD}
    launch(name, down_FD, len(h_TF), **given, tally=tally)
    return y_TD.to(h_TF.dtype)


def _fp32(x: Tensor) -> Tensor:
    return x.detach().float().contiguous()
