"""Where a model keeps its MLPs, found by tracing one forward pass: no table of model families."""

import contextlib
import copy
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lazyneuron.sites.site import NoSitesError, Site
from lazyneuron.sites.trace import Tracer

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_tracing: ContextVar[bool] = ContextVar("tracing", default=False)


def find_sites(model: nn.Module, example_inputs: Mapping[str, Any] | tuple[Any, ...] | Tensor) -> list[Site]:
    """The MLPs that one forward pass of `model` runs, in order of execution.

    `example_inputs` are keyword arguments (mapping), positional arguments (tuple), or the only argument (tensor), on
    the model's device; they are copied. The pass runs in eval mode without gradients; modes, buffers, the random state
    and `.grad` are as before afterwards. MLPs that it does not reach are not found, but experts without a token are.
    Raises NoSitesError if there is none; an exception of the model's own forward passes through untouched.
    """
    if isinstance(example_inputs, Mapping):
        return find_sites_in_call(model, (), example_inputs)
    return find_sites_in_call(model, example_inputs if isinstance(example_inputs, tuple) else (example_inputs,), {})


def find_sites_in_call(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Site]:
    """`find_sites` for the call `model(*args, **kwargs)`, with the same contract."""
    model = unwrap(model)
    args, kwargs = tree_map(private_copy, args), {name: tree_map(private_copy, value) for name, value in kwargs.items()}
    tracer = Tracer({clean_name(name): parameter for name, parameter in model.named_parameters()})
    with undisturbed(model), tracer:
        model(*args, **kwargs)
    sites = tracer.sites()
    if not sites:
        raise NoSitesError(
            f"no MLP found in {type(model).__name__}: saw {_some(tracer.linears, 'linear weight')} and "
            f"{_some(tracer.nonlinearities, 'nonlinearity')}, but no linear fed by a nonlinearity of another; "
            "pass sites=[Site(...)] naming its weights as in named_parameters()"
        )
    return sites


def is_tracing() -> bool:
    """True inside the forward pass of `find_sites`, which is not the user's and must not be counted."""
    return _tracing.get()


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside the wrappers of torch.compile, DataParallel, DDP and FSDP."""
    while True:
        wrapper = next((name for name in _WRAPPERS if name in model._modules), None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif wrapper:
            model = model.get_submodule(wrapper)
        else:
            return model


def clean_name(name: str) -> str:
    """A parameter or module path without the components that wrappers around submodules insert."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def private_copy(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    try:
        return copy.deepcopy(leaf)
    except Exception as error:
        raise ValueError(
            f"an input of type {type(leaf).__name__} cannot be copied, so tracing could change it ({error}); "
            "call find_sites with plain tensors and pass its result as sites="
        ) from error


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Trace in eval mode without gradients, and leave no trace of it."""
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
            stack.enter_context(warnings.catch_warnings(action="ignore"))  # the user's own call gives them
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


def _some(names: Iterable[str], what: str) -> str:
    names = list(names)
    shown = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
    return f"{len(names)} x {what}{shown}"
