"""What an MLP computes for a few tokens, reading only the weights that its answer needs.

    sparse_down     the down projection: rows of active neurons only
    screen_bounds   bounds of pre-activations from an int8 copy of the weight
    screened_up     the up (or gate) projection: exact unless that copy rules the neuron out, else 0
    masked_up       the up projection where a mask is active, else 0
    sparse_mlp      screened up (or gate), up and sparse down in one pass
    largest_logits  the largest entries of x weight^T: exact unless an int8 copy rules the entry out, else -inf
    dense_up, dense_down, dense_mlp     all rows, on the same threads

Tokens are [T, D]; weights have one row a neuron, fp32 or bf16; sums are in fp32, results in the tokens' dtype. What
needs no screen also takes int8 weights, where each row counts times its scale. Each function is its meaning in plain
PyTorch; the CPU's kernel follows it. A kernel that screens may compute more than the reference, whose result it agrees
with after the activation and Top-k; it never drops what the exact answer needs. What is ranked is what a model in the
tokens' dtype ranks: in bf16 rounded at each step, so that entries which only rounding makes equal are all kept. (Where
a sum lies at the edge between two bf16 numbers, its order decides, here as in torch.)
`reads`, int64 [2], is how many weight rows were read, and how many pairs of a token and a neuron needed them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from lazyneuron.kernels.operators import Operator, cpu_kernel
from lazyneuron.kernels.topk import topk
from lazyneuron.kernels.weights import Rows, StaleScreenError, check_vector, check_weight

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu^2": lambda u: torch.relu(u).square(),
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}
KINDS = {name: kind for kind, name in enumerate(ACTIVATIONS, 1)}
"""The numbers by which kernels know them: RELU to SILU in `screening_cpu`."""
_RELU_LIKE = ("relu", "relu^2")
_BYTES_PER_THREAD = 2**17


@Operator
def sparse_down(
    h_TF: Tensor, down_FD: Tensor, bias: Tensor | None = None, scales: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y[t] = bias + the sum over active i of h[t, i] * scales[i] * down[i], [T, D], and the reads.

    Inactive neurons contribute nothing, whatever their weights hold (inf and NaN included).
    """
    h = _wide(h_TF)
    down = _scaled(down_FD, scales, h.dtype)
    y_TD = h.new_zeros(len(h), down.shape[1])
    for t in range(len(h)):
        y_TD[t] = h[t] @ torch.where((h[t] != 0)[:, None], down, 0)
    return _plus(y_TD, bias).to(h_TF.dtype), _reads(h_TF != 0)


@sparse_down.on_cpu
def _(h_TF: Tensor, down_FD: Tensor, bias: Tensor | None = None, scales: Tensor | None = None) -> tuple[Tensor, Tensor]:
    y_TD = _output_for(h_TF, down_FD, bias, scales)
    given = {"h_TF": _fp32(h_TF), "down_FD": down_FD, "bias_D": bias, "row_scales_F": scales}
    reads = _run("down", down_FD, len(h_TF), y_TD=y_TD, **given)
    return y_TD.to(h_TF.dtype), reads


@Operator
def screen_bounds(x_TD: Tensor, up: Rows) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of x up^T + bias, fp32 [T, F]. The reference's are the tightest; a screen's are wider."""
    u_TF = linear(x_TD.double(), up.weight_FD.double(), None if up.bias is None else up.bias.double()).float()
    return u_TF, u_TF.clone()


@screen_bounds.on_cpu
def _(x_TD: Tensor, up: Rows) -> tuple[Tensor, Tensor]:
    low_TF, high_TF = _map_for(x_TD, up), _map_for(x_TD, up)
    _run("bounds", up.weight_FD, len(x_TD), False, x_TD=_fp32(x_TD), **_screen_of(up), low_TF=low_TF, high_TF=high_TF)
    return low_TF, high_TF


@Operator
def screened_up(
    x_TD: Tensor, up: Rows, activation: str = "relu", k: int = 0, other: Rows | None = None
) -> tuple[Tensor, Tensor]:
    """u = x up^T + bias where it matters to what follows, else 0: [T, F], and the reads.

    Without `k` it matters where u > 0 or is NaN; with it, where the neuron is among the `k` of largest |act(u)|, or,
    in a gated MLP whose up projection is `other`, of largest |act(u) (x other^T + b)|.
    """
    u_TF = _product(x_TD, up).to(x_TD.dtype)
    is_needed_TF = ~(u_TF <= 0)
    if k:
        h_TF = ACTIVATIONS[activation](u_TF)
        is_needed_TF = topk.reference(h_TF if other is None else h_TF * _product(x_TD, other).to(h_TF.dtype), k) != 0
    return torch.where(is_needed_TF, u_TF, 0), _reads(is_needed_TF)


@screened_up.on_cpu
def _(x_TD: Tensor, up: Rows, activation: str = "relu", k: int = 0, other: Rows | None = None) -> tuple[Tensor, Tensor]:
    u_TF = _map_for(x_TD, up, other)
    given = {"x_TD": _fp32(x_TD), "w_FD": up.weight_FD, "u_TF": u_TF, **_screen_of(up)}
    if k and other is not None:
        given |= {f"other_{name}": value for name, value in _screen_of(other).items()}
    given |= {"kind": _kind(activation), "k": k, "is_product": k and other is not None}
    reads = _run("screened", up.weight_FD, len(x_TD), is_certified=_is_certified(up), **given)
    return u_TF.to(x_TD.dtype), reads


@Operator
def masked_up(x_TD: Tensor, up: Rows, mask_TF: Tensor, activation: str = "relu") -> tuple[Tensor, Tensor]:
    """u = x up^T + bias where the gate is not 0, else 0: [T, F], and the reads. The mask is what enters its activation.

    NaN in the mask counts as nonzero.
    """
    is_needed_TF = ~(mask_TF <= 0) if activation in _RELU_LIKE else mask_TF != 0
    return torch.where(is_needed_TF, _product(x_TD, up), 0).to(x_TD.dtype), _reads(is_needed_TF)


@masked_up.on_cpu
def _(x_TD: Tensor, up: Rows, mask_TF: Tensor, activation: str = "relu") -> tuple[Tensor, Tensor]:
    u_TF, kind = _map_for(x_TD, up), _kind(activation)
    _check_width("the mask", mask_TF, len(up.weight_FD))
    given = {"x_TD": _fp32(x_TD), "mask_TF": _fp32(mask_TF), **_weights_of(up)}
    reads = _run("masked", up.weight_FD, len(x_TD), kind=kind, u_TF=u_TF, **given)
    return u_TF.to(x_TD.dtype), reads


@Operator
def largest_logits(x_TD: Tensor, head: Rows, k: int = 1) -> tuple[Tensor, Tensor]:
    """x head^T + bias for each token's `k` largest entries and their equals, -inf elsewhere: [T, V], and the reads.

    A maximum inner product search: an entry is left out only if `k` others are certainly larger.
    """
    logits_TV = _product(x_TD, head).to(x_TD.dtype)
    is_needed_TV = ~(logits_TV < logits_TV.topk(k).values[:, -1:])
    return torch.where(is_needed_TV, logits_TV, -torch.inf), _reads(is_needed_TV)


@largest_logits.on_cpu
def _(x_TD: Tensor, head: Rows, k: int = 1) -> tuple[Tensor, Tensor]:
    if not 0 < k <= len(head.weight_FD):
        raise ValueError(f"k is between 1 and the {len(head.weight_FD)} rows; got {k}")
    logits_TV = _map_for(x_TD, head)
    given = {"x_TD": _fp32(x_TD), "w_FD": head.weight_FD, "u_TF": logits_TV, **_screen_of(head)}
    reads = _run("largest_products", head.weight_FD, len(x_TD), K=k, is_certified=_is_certified(head), **given)
    return logits_TV.to(x_TD.dtype), reads


@Operator
def dense_up(x_TD: Tensor, up: Rows) -> Tensor:
    """x up^T + bias: [T, F]."""
    return _product(x_TD, up).to(x_TD.dtype)


@dense_up.on_cpu
def _(x_TD: Tensor, up: Rows) -> Tensor:
    u_TF = _map_for(x_TD, up)
    _run("product", up.weight_FD, len(x_TD), False, x_TD=_fp32(x_TD), u_TF=u_TF, **_weights_of(up))
    return u_TF.to(x_TD.dtype)


@Operator
def dense_down(h_TF: Tensor, down_FD: Tensor, bias: Tensor | None = None, scales: Tensor | None = None) -> Tensor:
    """(h * scales) down + bias: [T, D]."""
    h = _wide(h_TF)
    return _plus(h @ _scaled(down_FD, scales, h.dtype), bias).to(h_TF.dtype)


@dense_down.on_cpu
def _(h_TF: Tensor, down_FD: Tensor, bias: Tensor | None = None, scales: Tensor | None = None) -> Tensor:
    y_TD = _output_for(h_TF, down_FD, bias, scales)
    given = {"h_TF": _fp32(h_TF), "down_FD": down_FD, "bias_D": bias, "row_scales_F": scales}
    _run("down_all", down_FD, len(h_TF), False, y_TD=y_TD, **given)
    return y_TD.to(h_TF.dtype)


def sparse_mlp(
    x_TD: Tensor,
    up: Rows,
    down_FD: Tensor,
    down_bias: Tensor | None = None,
    *,
    gate: Rows | None = None,
    activation: str = "relu",
    k: int = 0,
) -> Tensor:
    """act(x up^T + b) down + b, [T, D], in fp32 between the operators, from the rows that it needs.

    With `gate` it is (act(x gate^T + b) * (x up^T + b)) down + b. With `k` only each token's k largest entries of the
    map count. Without it, `activation` is "relu" or "relu^2".
    """
    if not k and activation not in _RELU_LIKE:
        raise ValueError(f"{activation!r} leaves hardly a neuron at 0: give k, or one of {', '.join(_RELU_LIKE)}")
    x = _wide(x_TD)
    u_TF, _ = screened_up(x, gate or up, activation, k, up if gate and k else None)
    h_TF = ACTIVATIONS[activation](u_TF)
    h_TF = h_TF * masked_up(x, up, u_TF, activation)[0] if gate else h_TF
    y_TD, _ = sparse_down(topk(h_TF, k) if k else h_TF, down_FD, down_bias)
    return y_TD.to(x_TD.dtype)


def dense_mlp(
    x_TD: Tensor, up: Rows, down_FD: Tensor, down_bias: Tensor | None = None, *, activation: str = "relu"
) -> Tensor:
    """The same without gate and k, from all rows: what sparsity is to be compared with on the same threads."""
    h_TF = ACTIVATIONS[activation](dense_up(_wide(x_TD), up))
    return dense_down(h_TF, down_FD, down_bias).to(x_TD.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _plus(y_TD: Tensor, bias: Tensor | None) -> Tensor:
    return y_TD if bias is None else y_TD + bias.to(y_TD.dtype)


def _product(x_TD: Tensor, rows: Rows) -> Tensor:
    x = _wide(x_TD)
    return _plus(x @ _scaled(rows.weight_FD, rows.scales, x.dtype).t(), rows.bias)


def _scaled(weight_FD: Tensor, scales: Tensor | None, dtype: torch.dtype) -> Tensor:
    return weight_FD.to(dtype) if scales is None else weight_FD.to(dtype) * scales.to(dtype)[:, None]


def _reads(is_needed_TF: Tensor) -> Tensor:
    return torch.stack([is_needed_TF.any(0).sum(), is_needed_TF.sum()])


def _run(name: str, weight_FD: Tensor, num_tokens: int, is_counted: bool = True, **arguments: Any) -> Tensor:
    """Run the kernel `name` on the threads that a weight of that size is worth; its reads if it counts them.

    StaleScreenError where a pre-activation is outside its bounds.
    """
    (F, D), num_threads = weight_FD.shape, max(1, min(torch.get_num_threads(), weight_FD.nbytes // _BYTES_PER_THREAD))
    reads = torch.empty(2, dtype=torch.int64, device="cpu")
    if is_counted:
        arguments["reads_2"] = reads
    run = cpu_kernel("skip_cpu", name).run
    run(num_threads, weight_FD.element_size(), T=num_tokens, F=F, D=D, **arguments)
    if is_counted and (rows := reads.tolist()[0]) < 0:
        raise StaleScreenError(
            f"{-rows} pre-activations are outside their bounds: the weights changed; screen them again"
        )
    return reads


def _weights_of(rows: Rows) -> dict[str, Any]:
    return {"w_FD": rows.weight_FD, "bias_F": rows.bias, "row_scales_F": rows.scales}


def _screen_of(rows: Rows) -> dict[str, Any]:
    if rows.screen is None:
        raise ValueError("this projection needs a screen: Rows(weight, bias, screen_of(weight))")
    return {"q_FD": rows.screen.q_FD, "scales_F3": rows.screen.scales_F3, "bias_F": rows.bias}


def _is_certified(rows: Rows) -> int:
    return int(rows.screen is None or rows.screen.is_certified)


def _kind(activation: str) -> int:
    if activation not in KINDS:
        raise ValueError(f"activation {activation!r} is none of {', '.join(KINDS)}")
    return KINDS[activation]


def _check_width(name: str, x: Tensor, width: int) -> None:
    if x.dim() != 2 or x.shape[1] != width or not x.is_floating_point():
        raise ValueError(f"{name} of shape {tuple(x.shape)}, {x.dtype}: expected floating point [tokens, {width}]")


def _map_for(x_TD: Tensor, rows: Rows, other: Rows | None = None) -> Tensor:
    """An empty fp32 map for tokens and projections that fit each other; ValueError if they do not."""
    weight_FD = rows.weight_FD
    _check_width("tokens", x_TD, weight_FD.shape[1])
    if other is not None and (other.weight_FD.shape != weight_FD.shape or other.weight_FD.dtype != weight_FD.dtype):
        one, two = (f"{tuple(w.shape)}, {w.dtype}" for w in (other.weight_FD, weight_FD))
        raise ValueError(f"a weight is {one} beside one of {two}")
    return torch.empty(len(x_TD), len(weight_FD), device="cpu")


def _output_for(h_TF: Tensor, down_FD: Tensor, bias: Tensor | None, scales: Tensor | None) -> Tensor:
    """An empty fp32 output for a map and a down projection that fit each other; ValueError if they do not."""
    check_weight(down_FD, scales)
    check_vector("a bias", bias, down_FD.shape[1])
    _check_width("the map", h_TF, len(down_FD))
    return torch.empty(len(h_TF), down_FD.shape[1], device="cpu")


def _fp32(x: Tensor) -> Tensor:
    return x.detach().float().contiguous()
