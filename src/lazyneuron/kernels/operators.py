"""Operators: a meaning in plain PyTorch, which runs anywhere, and a kernel for calls on the CPU."""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch._library.autograd import make_autograd_impl
from torch.autograd import forward_ad

from lazyneuron.kernels.weights import Rows

P = ParamSpec("P")
R = TypeVar("R")
_LIBRARY = torch.library.Library("lazyneuron", "FRAGMENT")
_SCHEMA = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    Rows: "Tensor?[]",
    Rows | None: "Tensor?[]?",
    tuple[Tensor, Tensor]: "(Tensor, Tensor)",
}


class Operator(Generic[P, R]):
    """The operator `lazyneuron::<name>` that the decorated function, its plain-PyTorch reference, states.

    The reference is the default implementation, and gives the shapes of its outputs while torch traces; `on_cpu`
    decorates the kernel for the CPU. Without `differentiate` it has no derivative: asking for one raises RuntimeError
    or NotImplementedError. A call that torch neither traces, transforms nor differentiates goes to the kernel at once:
    the dispatcher takes 20 us, as long as a token's work.
    """

    def __init__(self, reference: Callable[P, R]) -> None:
        functools.update_wrapper(self, reference)
        self.reference = self._kernel = reference
        self._name = reference.__name__
        self._derivative: Callable[[Tensor, Tensor], Tensor] | None = None
        self._backward_fn: Callable[..., Any] | None = None
        self._setup_context_fn: Callable[..., Any] | None = None
        # Not a `torch.library.custom_op`: that drops the tangents of forward-mode differentiation (torch 2.13).
        _LIBRARY.define(self._name + _schema(reference), tags=torch.Tag.pt2_compliant_tag)
        self._op: Any = getattr(torch.ops.lazyneuron, self._name).default
        self._reverse = make_autograd_impl(self._op, self)
        _LIBRARY.impl(self._name, _disable_dynamo(_on_tensors(reference)), "CompositeExplicitAutograd")
        _LIBRARY.impl(self._name, self._autograd, "Autograd", with_keyset=True)
        torch.library.register_fake(f"lazyneuron::{self._name}", _on_tensors(reference), lib=_LIBRARY)

    def on_cpu(self, kernel: Callable[P, R]) -> Callable[P, R]:
        """Register the kernel."""
        self._kernel = kernel
        _LIBRARY.impl(self._name, _disable_dynamo(_on_tensors(kernel)), "CPU")
        return kernel

    def differentiate(self, derivative: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Register the derivative of an operator from its first argument to one tensor, in either direction.

        `derivative(y, t)` is the Jacobian, a diagonal one, at the output `y` times `t`.
        """

        def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            ctx.save_for_backward(output)

        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            (y,) = ctx.saved_tensors
            return derivative(y, grad), *[None] * (len(self._op._schema.arguments) - 1)

        self._derivative, self._setup_context_fn, self._backward_fn = derivative, save, backward

    def vectorize(self, rule: Callable[..., Any]) -> None:
        """Register what `torch.vmap` does, as `torch.library.register_vmap` takes it."""
        torch.library.register_vmap(self._op, rule, lib=_LIBRARY)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        x: Any = args[0]
        is_seen = is_transformed(x) or torch._C._len_torch_function_stack() > 0
        if is_seen or x.device.type != "cpu" or (x.requires_grad and torch.is_grad_enabled()):
            return self._op(*map(_tensors, args), **{name: _tensors(value) for name, value in kwargs.items()})
        return self._kernel(*args, **kwargs)

    def _autograd(self, keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
        """What the dispatcher calls at each level of differentiation."""
        is_transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
        if not (is_transformed and any(map(_is_differentiated, args))):
            return self._reverse(keyset, *args)
        if self._derivative is None:
            raise NotImplementedError(f"lazyneuron::{self._name} has no derivative: call it on detached tensors")
        h, *others = args
        y = self._op(h.detach(), *others)
        return y + self._derivative(y, (h - h.detach()).nan_to_num())


@functools.cache
def cpu_kernel(module: str, name: str) -> Any:
    """A kernel, from a module that imports Numba: not before it is needed."""
    return getattr(importlib.import_module(f"lazyneuron.kernels.{module}"), name)


def is_transformed(x: Tensor) -> bool:
    """Whether a call on `x` is traced, transformed (vmap, jvp) or seen by a dispatch mode: it must go through torch.

    So must every call while `torch.autograd.forward_ad` differentiates.
    """
    if torch.compiler.is_compiling() or torch._C._is_tracing() or type(x) not in (Tensor, nn.Parameter):
        return True
    transforms = torch._C._functorch.maybe_current_level()  # pyright: ignore[reportAttributeAccessIssue]
    return transforms is not None or torch._C._len_torch_dispatch_stack() > 0 or forward_ad._current_level >= 0


def _is_differentiated(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_differentiated, value))
    if not isinstance(value, Tensor):
        return False
    # Compiled code does not set torch's current level, of which there is but one, 0.
    has_tangent = forward_ad.unpack_dual(value, level=0).tangent is not None
    return has_tangent or (value.requires_grad and torch.is_grad_enabled())


def _schema(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    parts = []
    for name, parameter in signature.parameters.items():
        kind = _SCHEMA.get(parameter.annotation) or parameter.annotation.__name__
        default = f'"{parameter.default}"' if isinstance(parameter.default, str) else parameter.default
        parts.append(f"{kind} {name}" + ("" if default is parameter.empty else f"={default}"))
    return f"({', '.join(parts)}) -> {_SCHEMA[signature.return_annotation]}"


def _tensors(value: Any) -> Any:
    return value.tensors if isinstance(value, Rows) else value


def _on_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with lists of tensors in the place of `Rows`, as torch's operators have them."""
    is_rows = [p.annotation in (Rows, Rows | None) for p in inspect.signature(function).parameters.values()]

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return function(*(Rows.of(a) if rows and a is not None else a for a, rows in zip(args, is_rows, strict=False)))

    return run
