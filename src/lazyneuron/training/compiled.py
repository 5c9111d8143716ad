"""Forward and backward pass compiled into one call, where a C++ compiler is at hand."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lazyneuron.errors import LazyneuronError

Inputs = Mapping[str, Tensor]
LossOf = Callable[[Callable[..., Any], Inputs], tuple[Tensor, Tensor]]
"""Takes something to call in the model's place, and a batch; gives the loss to minimise and the loss to report."""

_OPTIONS: dict[str, Any] = {"compile_threads": 1}  # a pool of compiling processes costs more than it saves here
_TOLERANCE = 1e-2


class NotCompiledError(LazyneuronError):
    """The passes could not be compiled, or are not the eager ones; it says why in one line."""


def compile_passes(model: nn.Module, loss_of: LossOf, batch: Inputs) -> Callable[[Inputs], tuple[Tensor, Tensor]]:
    """A function of batches shaped like `batch` that sets each weight's `grad` and gives what `loss_of` gives.

    Unlike with `torch.compile`, hooks that are added later and `torch._dynamo.reset` change nothing in it: both passes
    are one graph, traced here with the hooks that are in force now. The code stays in PyTorch's cache on disk, so that
    only the first run of its kind waits for the compiler. The same code gives the same bits.

    Raises NotCompiledError without a working compiler, where a pass changes the model's buffers (batch norms), or where
    loss or gradients on `batch` are not those of the eager passes within rounding (dropout has other draws).
    """
    names, weights = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    values, keys = [weight.detach() for weight in weights], list(batch)

    def passes(*flat: Tensor) -> list[Tensor]:
        own = [value.detach().requires_grad_() for value in flat[: len(names)]]
        given = dict(zip(names, own, strict=True))
        inputs = dict(zip(keys, flat[len(names) :], strict=True))
        total, loss = loss_of(lambda **inputs: functional_call(model, given, (), inputs), inputs)
        return [total.detach(), loss.detach(), *torch.autograd.grad(total, own)]

    example = [*values, *(value.contiguous() for value in batch.values())]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    expected = passes(*example)
    if changed := [name for name, buffer in model.named_buffers() if not torch.equal(buffer, buffers[name])]:
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        raise NotCompiledError(f"a training pass changes the model's buffers ({changed[0]})")
    try:
        run = _compiled(passes, example)
        found = run(*example)
    except Exception as error:  # whatever a compiler throws
        first = next(iter(str(error).strip().splitlines()), "")
        raise NotCompiledError(f"{type(error).__name__}: {first}") from error
    if (error := _difference(found, expected)) > _TOLERANCE:
        raise NotCompiledError(f"compiled passes differ from the eager ones by {error:.2g}")

    def call(batch: Inputs) -> tuple[Tensor, Tensor]:
        total, loss, *gradients = run(*values, *(batch[key].contiguous() for key in keys))
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        return total, loss

    return call


def _compiled(passes: Callable[..., list[Tensor]], example: list[Tensor]) -> Callable[..., list[Tensor]]:
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = make_fx(passes)(*example)
        return torch._inductor.compile(graph, example, options=_OPTIONS)  # pyright: ignore[reportReturnType, reportArgumentType]


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Relative difference of losses and of all gradients together; infinite where something is not finite."""
    parts = [(a - b, b) for a, b in zip(found, expected, strict=True)]
    errors = [part[0].norm() / part[1].norm().clamp(min=1e-12) for part in parts[:2]]
    moved, size = (torch.stack([part[i].norm() for part in parts[2:]]).norm() for i in (0, 1))
    worst = float(torch.stack([*errors, moved / size.clamp(min=1e-12)]).max())
    return worst if worst < float("inf") else float("inf")
