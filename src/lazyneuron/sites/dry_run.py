"""Run a model on example inputs and leave it as it was: modes, buffers, random state and gradients."""

import contextlib
import copy
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lazyneuron.errors import UsageError
from lazyneuron.sites.wrappers import unwrap

Inputs = Mapping[str, Any] | tuple[Any, ...] | Tensor
"""The inputs of one call: keyword arguments (mapping), positional arguments (tuple), or the only argument (tensor)."""

_tracing: ContextVar[bool] = ContextVar("tracing", default=False)


def is_tracing() -> bool:
    """True inside a dry run, such as that of `find_sites`: it is not the user's call and must not be counted."""
    return _tracing.get()


def as_call(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the call with these inputs."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def dry_run(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    handles: Iterable[AbstractContextManager[Any]] = (),
    modes: Iterable[AbstractContextManager[Any]] = (),
) -> Any:
    """The output of one forward pass on a copy of the inputs, in eval mode and without gradients.

    `handles` of hooks are removed afterwards; `modes` see the pass. ValueError for inputs that cannot be copied.
    """
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        stack.enter_context(_undisturbed(unwrap(model)))
        args, kwargs = tree_map(_private_copy, (args, dict(kwargs)))  # outside inference mode, as the pass
        for mode in modes:
            stack.enter_context(mode)
        try:
            return model(*args, **kwargs)
        except Exception as error:
            error.add_note(_missing_inputs(unwrap(model), args, kwargs, error))
            raise


def dummy_inputs(model: nn.Module) -> dict[str, Tensor] | None:
    """A few tokens or a blank image for a Hugging Face model that needs nothing else; None for other models."""
    model = unwrap(model)
    config: Any = getattr(model, "config", None)
    main = getattr(model, "main_input_name", None)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if main == "pixel_values":
        size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
        if size is None:
            return None
        shape = (1, channels, *((size, size) if isinstance(size, int) else size))
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        return {"pixel_values": torch.zeros(shape, dtype=dtype, device=device)}
    ids: Any = getattr(model, "dummy_inputs", None)
    if main != "input_ids" or not isinstance(ids, Mapping):
        return None
    found = {name: x.to(device) for name, x in ids.items() if isinstance(x, Tensor)}
    if getattr(config, "is_encoder_decoder", False):
        found.setdefault("decoder_input_ids", found["input_ids"])
    return found


def inputs_or_dummy(model: nn.Module, example_inputs: Inputs | None) -> Inputs:
    """The example inputs, or else `dummy_inputs`; UsageError if there are neither."""
    inputs = example_inputs if example_inputs is not None else dummy_inputs(model)
    if inputs is None:
        raise UsageError(f"{type(unwrap(model)).__name__} has no dummy inputs: pass a batch as example_inputs=")
    return inputs


def _missing_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> str:
    """A note on a failed pass: its inputs, and those that are missing, judging by signature and error message."""
    signature = inspect.signature(model.forward)
    try:
        given = signature.bind_partial(*args, **kwargs).arguments
    except TypeError:
        given = dict(kwargs)
    named = {name: p for name, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    others = [name for name in named if given.get(name) is None]
    missing = [name for name in others if named[name].default is inspect.Parameter.empty]
    mentioned = {name for name in named if re.search(rf"\b{name}\b", str(error))}
    note = f"{type(model).__name__} was run with {', '.join(given) or 'no input'}; "
    if not missing and mentioned.isdisjoint(given):
        missing = [name for name in others if name in mentioned]
    if missing:
        return f"{note}it needs {' or '.join(missing)} too: add it to the inputs"
    return f"{note}if it needs more, it also takes {', '.join(others)}" if others else f"{note}it takes no other"


def _private_copy(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        # nn.MultiheadAttention takes strided nested tensors on its fast path alone, which would hide its linears.
        is_nested = leaf.is_nested and leaf.layout is torch.strided
        return leaf.detach().to_padded_tensor(0.0) if is_nested else leaf.detach().clone()
    try:
        return copy.deepcopy(leaf)
    except Exception as error:
        raise ValueError(
            f"an input of type {type(leaf).__name__} cannot be copied, so tracing could change it ({error}); "
            "call find_sites with plain tensors and pass its result as sites="
        ) from error


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    # Flags are set one by one: `model.eval()` may be overridden (LoRA merges its weights there).
    was_training = {module: module.training for module in model.modules()}
    buffers = [(b, b.clone(), None if b.is_inference() else b._version) for b in model.buffers()]
    cuda = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    token = _tracing.set(True)
    # nn.TransformerEncoderLayer's fused path hides its linears.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # Autocast must not cache weights cast without gradients for the training step to come (torch 2.13 guards itself).
    autocast_cache = torch.is_autocast_cache_enabled()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(sorted(cuda)))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            stack.enter_context(warnings.catch_warnings(action="ignore"))  # the user's own call will warn
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            torch.backends.mha.set_fastpath_enabled(False)
            torch.set_autocast_cache_enabled(False)
            for module in was_training:
                module.training = False
            yield
    finally:
        _tracing.reset(token)
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.set_autocast_cache_enabled(autocast_cache)
        for module, training in was_training.items():
            module.training = training
        with torch.no_grad():
            for buffer, before, version in buffers:
                if version is None or buffer._version != version:
                    buffer.copy_(before)
