"""A product with a bare down weight takes the selected map, however it is written; other products are left alone."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazyneuron.enforce.enforce import enforce, hooks_in_force, release
from lazyneuron.enforce.selection import TopK
from lazyneuron.enforce.verify import verify
from lazyneuron.kernels.topk import topk
from lazyneuron.sites import Site

T, D, N, E, K = 5, 8, 16, 3, 2
Product = Callable[[Tensor, Tensor], Tensor]


def ids() -> Tensor:
    return torch.tensor([0, 2, 2, 1, 0])


class Owner(nn.Module):
    """Holds the weight bare, and multiplies by it as `product` says."""

    def __init__(self, product: Product, *shape: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.up = nn.Parameter(torch.randn(N, D, generator=generator))
        self.down = nn.Parameter(torch.randn(*shape, generator=generator))
        self.product = product

    def forward(self, h: Tensor) -> Tensor:
        return self.product(h, self.down)


# shape of the weight, shape of the map, where its neurons are, product
PRODUCTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, Product]] = {
    "linear": ((D, N), (2, T, N), -1, F.linear),
    "linear by keywords": ((D, N), (2, T, N), -1, lambda h, w: F.linear(input=h, weight=w)),
    "matmul": ((N, D), (2, T, N), -1, lambda h, w: h @ w),
    "from the left": ((D, N), (N, T), 0, lambda h, w: w @ h),
    "mv": ((D, N), (N,), -1, lambda h, w: torch.mv(w, h)),
    "addmm": ((N, D), (T, N), -1, lambda h, w: torch.addmm(torch.zeros(D), h, w)),
    "einsum": ((N, D), (2, T, N), -1, lambda h, w: torch.einsum("btf,fd->btd", h, w)),
    "einsum, neurons first": ((D, N), (N, T), 0, lambda h, w: torch.einsum("df,ft", w, h)),
    "a copy in another type": ((D, N), (T, N), -1, lambda h, w: F.linear(h.double(), w.double())),
    "conv2d": ((D, N, 1, 1), (2, N, T, 1), 1, F.conv2d),
    "one by one": ((E, N, D), (T, N), -1, lambda h, w: torch.stack([h[t] @ w[e] for t, e in enumerate(ids())])),
    "gathered": ((E, N, D), (T, N), -1, lambda h, w: torch.bmm(h[:, None], w[ids()])[:, 0]),
    "gathered and turned": ((E, N, D), (T, N), -1, lambda h, w: (w[ids()].mT @ h[..., None])[..., 0]),
    "batched": ((E, N, D), (E, T, N), -1, torch.bmm),
    "einsum over experts": ((E, N, D), (E, T, N), -1, lambda h, w: torch.einsum("etf,efd->td", h, w)),
}


@pytest.mark.parametrize(("weight", "shape", "axis", "product"), PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_takes_the_selected_map(weight, shape, axis, product):
    """Values and gradients are those of the same product with a map selected by hand."""
    model = Owner(product, *weight)
    h = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    expected = product(topk(h.movedim(axis, -1), K).movedim(-1, axis), model.down)
    enforce(model, TopK(k=K), [Site("", "up", None, "down", D, N, "relu")])
    h.requires_grad_()
    assert torch.equal(model(h), expected)
    model(h).sum().backward()
    assert h.grad is not None
    assert (h.grad != 0).sum(axis).unique().tolist() == [K]
    assert sum(verify(model, h.detach()).values()) == h.numel() // N
    release(model)
    assert torch.equal(model(h), product(h, model.down))


def test_all_experts_at_once_are_selected_over_all():
    """Where the site counts the neurons of all experts as its own, k is of all of them."""
    model = Owner(lambda h, w: torch.einsum("tef,efd->td", h, w), E, N, D)
    h = torch.randn(T, E, N)
    expected = model.product(topk(h.flatten(1), K).view_as(h), model.down)
    enforce(model, TopK(k=K), [Site("", "up", None, "down", D, E * N, "relu")])
    assert torch.equal(model(h), expected)


def test_other_products_are_left_alone():
    """The up weight, another width, and what runs outside the module."""
    model = Owner(lambda h, w: F.linear(F.linear(h, w.T), w) + F.linear(h, w[:, :D].T)[..., :D], D, N)
    x = torch.randn(T, D)
    expected = F.linear(topk(F.linear(x, model.down.T), K), model.down) + F.linear(x, model.down[:, :D].T)
    enforce(model, TopK(k=K), [Site("", "up", None, "down", D, N, "relu")])
    assert torch.equal(model(x), expected)
    h = torch.randn(T, N)
    assert torch.equal(F.linear(h, model.down), h @ model.down.T)


def test_a_failed_forward_leaves_no_mode_behind():
    model = Owner(lambda h, w: h @ w, N, D)
    enforce(model, TopK(k=K), [Site("", "up", None, "down", D, N, "relu")])
    with pytest.raises(RuntimeError):
        model(torch.randn(T, N + 1))
    assert torch.overrides._get_current_function_mode_stack() == []
    assert verify(model, torch.randn(T, N)) == {"": T}


def test_an_interrupted_forward_selects_nothing_after_release():
    """Ctrl-C passes by torch's hooks: what is left behind must not act once it is released."""

    def interrupted(h: Tensor, w: Tensor) -> Tensor:
        raise KeyboardInterrupt

    model = Owner(interrupted, N, D)
    h = torch.randn(T, N)
    sparse, dense = topk(h, K) @ model.down, h @ model.down
    enforce(model, TopK(k=K), [Site("", "up", None, "down", D, N, "relu")])
    try:
        with pytest.raises(KeyboardInterrupt):
            model(h)
        model.product = torch.matmul
        twin = copy.deepcopy(model)
        assert torch.equal(model(h), sparse)
        (hook,) = hooks_in_force(model).values()
        assert pickle.loads(pickle.dumps(hook)).running == []
        release(model)
        assert torch.equal(model(h), dense)
        assert torch.equal(twin(h), sparse)
    finally:
        for mode in torch.overrides._get_current_function_mode_stack():
            mode.__exit__(None, None, None)
