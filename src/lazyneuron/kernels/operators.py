"""Operators: a meaning in plain PyTorch, which runs anywhere, and a kernel for calls on the CPU."""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from lazyneuron.kernels.weights import Rows

P = ParamSpec("P")
R = TypeVar("R")
_SCHEMA = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    Rows: "Tensor?[]",
    Rows | None: "Tensor?[]?",
    tuple[Tensor, Tensor]: "(Tensor, Tensor)",
}


class Operator(Generic[P, R]):
    """The operator `lazyneuron::<name>` that the decorated function, its plain-PyTorch reference, states.

    The reference is the default implementation of a `torch.library.custom_op`, and gives the shapes of its outputs
    while torch traces; `on_cpu` decorates the kernel for the CPU. A call that torch neither traces, transforms nor
    differentiates goes to the kernel at once: the dispatcher takes 20 us, as long as a token's work.
    """

    def __init__(self, reference: Callable[P, R]) -> None:
        functools.update_wrapper(self, reference)
        self.reference = reference
        name = f"lazyneuron::{reference.__name__}"
        schema = _schema(reference)
        self._registered = torch.library.custom_op(name, _on_tensors(reference), mutates_args=(), schema=schema)
        self._registered.register_fake(_on_tensors(reference))
        self._kernel = reference
        self._op: Any = self._registered._opoverload

    def on_cpu(self, kernel: Callable[P, R]) -> Callable[P, R]:
        """Register the kernel."""
        self._kernel = kernel
        self._registered.register_kernel("cpu")(_on_tensors(kernel))
        return kernel

    def differentiate(self, backward: Callable[..., Any], save: Callable[..., None]) -> None:
        """Register gradients, as `torch.library.register_autograd` takes them."""
        self._registered.register_autograd(backward, setup_context=save)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        x: Any = args[0]
        is_seen = is_transformed(x) or torch._C._len_torch_function_stack() > 0
        if is_seen or x.device.type != "cpu" or (x.requires_grad and torch.is_grad_enabled()):
            return self._op(*map(_tensors, args), **{name: _tensors(value) for name, value in kwargs.items()})
        return self._kernel(*args, **kwargs)


@functools.cache
def cpu_kernel(module: str, name: str) -> Any:
    """A kernel, from a module that imports Numba: not before it is needed."""
    return getattr(importlib.import_module(f"lazyneuron.kernels.{module}"), name)


def is_transformed(x: Tensor) -> bool:
    """Whether a call on `x` is traced, transformed (vmap, jvp) or seen by a dispatch mode: it must go through torch."""
    if torch.compiler.is_compiling() or torch._C._is_tracing() or type(x) not in (Tensor, nn.Parameter):
        return True
    transforms = torch._C._functorch.maybe_current_level()  # pyright: ignore[reportAttributeAccessIssue]
    return transforms is not None or torch._C._len_torch_dispatch_stack() > 0


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
