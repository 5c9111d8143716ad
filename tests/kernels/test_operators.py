"""Operators under torch's transforms: derivatives in either direction are right, and missing ones raise an error."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from lazyneuron.enforce.selection import TopK
from lazyneuron.kernels import skip, topk
from lazyneuron.kernels.screen import screen_of
from lazyneuron.kernels.weights import Rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),  # forward_ad's own
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node"),  # linearize's own
]
func: Any = torch.func


class StraightThrough(torch.autograd.Function):
    """What the straight-through operator is, in plain PyTorch."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h: Tensor) -> Tensor:
        return masked(h)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return t.clone()


def masked(h: Tensor) -> Tensor:
    """Top-3 of each row without ties, in plain PyTorch that torch differentiates by itself."""
    size = h.detach().abs()
    return torch.where(size >= size.topk(3).values[..., -1:], h, 0)


def dual(f: Any, h: Tensor, t: Tensor, needs_grad: bool) -> Tensor:
    with forward_ad.dual_level():
        y = f(forward_ad.make_dual(h.clone().requires_grad_(needs_grad), t))
        return forward_ad.unpack_dual(y).tangent.detach()


def cubes(f: Any) -> Any:
    return lambda h: f(h).pow(3).sum()


WAYS = {
    "public": (lambda h: topk.topk(h, 3), masked),
    "op": (lambda h: torch.ops.lazyneuron.topk(h, 3), masked),
    "selection": (TopK(k=3).apply, masked),
    "straight through": (TopK(k=3, straight_through=True).apply, StraightThrough.apply),
}
TRANSFORMS = {
    "jvp": lambda f, h, t: func.jvp(f, (h,), (t,))[1],
    "vjp": lambda f, h, t: func.vjp(f, h)[1](t)[0],
    "linearize": lambda f, h, t: func.linearize(f, h)[1](t),
    "grad": lambda f, h, t: func.grad(cubes(f))(h),
    "jacrev": lambda f, h, t: func.jacrev(f)(h),
    "jacfwd": lambda f, h, t: func.jacfwd(f)(h),
    "hessian": lambda f, h, t: func.hessian(cubes(f))(h),
    "jacrev of grad": lambda f, h, t: func.jacrev(func.grad(cubes(f)))(h),
    "grad of jvp": lambda f, h, t: func.grad(lambda h: func.jvp(cubes(f), (h,), (t,))[1])(h),
    "vmap": lambda f, h, t: func.vmap(f, in_dims=1)(h.T.contiguous()),
    "vmap of grad": lambda f, h, t: func.vmap(func.grad(cubes(f)))(h),
    "jvp of vmap": lambda f, h, t: func.jvp(func.vmap(f), (h,), (t,))[1],
    "grad of vmap": lambda f, h, t: func.grad(cubes(func.vmap(f)))(h),
    "dual": lambda f, h, t: dual(f, h, t, False),
    "dual that needs a gradient": lambda f, h, t: dual(f, h, t, True),
    "compiled jvp": lambda f, h, t: torch.compile(lambda h, t: func.jvp(f, (h,), (t,))[1], backend="aot_eager")(h, t),
    "compiled grad": lambda f, h, t: torch.compile(func.grad(cubes(f)), backend="aot_eager")(h),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("is_wide", [False, True])
def test_transforms_differentiate_top_k(way, transform, is_wide):
    torch._dynamo.reset()
    torch.manual_seed(0)
    h, t = torch.randn(2, *(4, 40 if is_wide else 7))
    f, expected = WAYS[way]
    found = TRANSFORMS[transform](f, h, t)
    assert found.abs().sum() > 0
    assert torch.equal(found, TRANSFORMS[transform.removeprefix("compiled ")](expected, h, t))


@pytest.mark.parametrize("shape", [(3, 8), (2, 2, 5), (6,)])
def test_gradcheck_in_both_directions(shape):
    torch.manual_seed(0)
    h = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    both = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(lambda h: topk.topk(h, 2), (h,), **both)
    assert torch.autograd.gradgradcheck(lambda h: topk.topk(h, 2).pow(3), (h,), check_fwd_over_rev=True)


def test_infinite_entries_keep_their_value_under_transforms():
    h = torch.tensor([[torch.inf, 1.0, -torch.inf, 2.0, torch.nan]])
    for straight_through in (False, True):
        y, t = func.jvp(TopK(k=3, straight_through=straight_through).apply, (h,), (torch.ones_like(h),))
        assert torch.equal(y.nan_to_num(7), torch.tensor([[torch.inf, 0, -torch.inf, 0, 7]]).nan_to_num(7))
        assert t[0, [1, 3]].tolist() == 2 * [float(straight_through)]


def no_derivative() -> dict[str, Any]:
    torch.manual_seed(0)
    weight, mask = torch.randn(8, 8), torch.ones(3, 8)
    rows = Rows(weight, torch.randn(8), screen_of(weight))
    return {
        "sparse_down": lambda x, w=weight: skip.sparse_down(x, w)[0],
        "dense_down": lambda x, w=weight: skip.dense_down(x, w),
        "dense_up": lambda x: skip.dense_up(x, rows),
        "masked_up": lambda x: skip.masked_up(x, rows, mask)[0],
        "screened_up": lambda x: skip.screened_up(x, rows)[0],
        "screen_bounds": lambda x: skip.screen_bounds(x, rows)[0],
        "largest_logits": lambda x: skip.largest_logits(x, rows)[0],
    }


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        *itertools.product(no_derivative(), ["jvp", "grad", "dual", "dual that needs a gradient"]),
        *itertools.product(["sparse_down", "dense_down"], ["jvp of vmap"]),  # torch refuses vmap of lists of tensors
    ],
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch runs vmap as a loop
def test_a_missing_derivative_is_an_error(name, transform):
    f, x = no_derivative()[name], torch.randn(3, 8)
    x = x[:, None] if transform == "jvp of vmap" else x
    with pytest.raises(NotImplementedError, match=f"lazyneuron::{name} has no derivative: call it on detached tensors"):
        TRANSFORMS[transform](f, x, torch.ones_like(x))


@pytest.mark.parametrize("name", ["sparse_down", "dense_down"])
def test_weights_count_as_much_as_tokens(name):
    x, f = torch.randn(3, 8), no_derivative()[name]
    with pytest.raises(NotImplementedError, match=f"lazyneuron::{name} has no derivative"):
        dual(lambda w: f(x, w), torch.randn(8, 8), torch.ones(8, 8), False)


def test_operators_run_beside_what_is_differentiated():
    """As `watch` does in a model under `torch.func`: on detached tensors nothing is missing."""
    x, f = torch.randn(3, 8), no_derivative()["dense_down"]
    _, t = func.jvp(lambda x: x * 2 + 0 * f(x.detach()), (x,), (torch.ones_like(x),))
    assert torch.equal(t, torch.full_like(x, 2))
