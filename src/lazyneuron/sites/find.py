"""Where a model keeps its MLPs, found by tracing one forward pass: no table of model families."""

import contextlib
import copy
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lazyneuron.sites.mlps import mlps
from lazyneuron.sites.select import SiteChoice, given_sites, matching
from lazyneuron.sites.site import NoSitesError, Site
from lazyneuron.sites.trace import Tracer
from lazyneuron.sites.wrappers import clean_name, unwrap

_tracing: ContextVar[bool] = ContextVar("tracing", default=False)


def find_sites(
    model: nn.Module, example_inputs: Mapping[str, Any] | tuple[Any, ...] | Tensor, sites: SiteChoice = "auto"
) -> list[Site]:
    """The MLPs that one forward pass of `model` runs, in order of execution.

    `example_inputs` are keyword arguments (mapping), positional arguments (tuple), or the only argument (tensor), on
    the model's device; they are copied. The pass runs in eval mode without gradients; modes, buffers, the random state
    and `.grad` are as before afterwards. MLPs that it does not reach are not found, but experts without a token are.

    `sites` keeps those whose name a regular expression matches somewhere (`re.search`); a list of `Site` is checked
    and returned without a pass (see `given_sites` for what it raises).
    Raises NoSitesError if there is none; an exception of the model's own forward passes through, with a note that
    says which inputs it may lack.
    """
    if isinstance(example_inputs, Mapping):
        return find_sites_in_call(model, (), example_inputs, sites)
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    return find_sites_in_call(model, args, {}, sites)


def find_sites_in_call(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], sites: SiteChoice = "auto"
) -> list[Site]:
    """`find_sites` for the call `model(*args, **kwargs)`, with the same contract."""
    given = given_sites(model, sites)
    if given is not None:
        return given
    assert sites is None or isinstance(sites, str)
    model = unwrap(model)
    args, kwargs = tree_map(private_copy, args), {name: tree_map(private_copy, value) for name, value in kwargs.items()}
    tracer = Tracer({clean_name(name): parameter for name, parameter in model.named_parameters()}, _gathered(model))
    with undisturbed(model), tracer:
        try:
            model(*args, **kwargs)
        except Exception as error:
            error.add_note(_lacking(model, args, kwargs, error))
            raise
    found = mlps(tracer)
    if not found:
        raise NoSitesError(_nothing(model, tracer))
    return matching(found, sites)


def _gathered(model: nn.Module) -> Callable[[], Iterator[tuple[str, Tensor]]] | None:
    """How to ask for the parameters that FSDP2 has put together at the moment; None if it shards none."""
    if "torch.distributed.tensor" not in sys.modules:
        return None
    from torch.distributed.tensor import DTensor

    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return None
    return lambda: ((clean_name(n), p) for n, p in model.named_parameters() if not isinstance(p, DTensor))


def is_tracing() -> bool:
    """True inside the forward pass of `find_sites`, which is not the user's and must not be counted."""
    return _tracing.get()


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


def _nothing(model: nn.Module, tracer: Tracer) -> str:
    """Why no site was found, from what the pass saw, and what to do."""
    matrices = [name for name, p in tracer.parameters.items() if p.dim() > 1]
    unreached = [name for name in matrices if name not in tracer.reached]
    message = (
        f"no MLP found in {type(model).__name__}: saw {_some(tracer.linears, 'linear weight')} and "
        f"{_some(tracer.nonlinearities, 'nonlinearity')}, but "
    )
    if tracer.scales:
        message += f"what the linear after a nonlinearity gives only scales others ({', '.join(tracer.scales)}); "
    else:
        message += "none of these takes the activated output of another; "
    if unreached:
        message += f"these inputs did not reach {_some(unreached, 'weight')}: give inputs that run the MLPs, or "
    return message + "pass sites=[Site(...)] naming its weights as in named_parameters()"


def _lacking(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> str:
    """A note on a failed pass: the inputs it was given, and those it lacks as far as signature and message tell."""
    signature = inspect.signature(model.forward)
    given = signature.bind_partial(*args, **kwargs).arguments if _fits(signature, args, kwargs) else dict(kwargs)
    named = {name: p for name, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    others = [name for name in named if given.get(name) is None]
    lacks = [name for name in others if named[name].default is inspect.Parameter.empty]
    says = {name for name in named if re.search(rf"\b{name}\b", str(error))}
    note = f"find_sites ran {type(model).__name__} with {', '.join(given) or 'no input'}; "
    if not lacks and says.isdisjoint(given):
        lacks = [name for name in others if name in says]
    if lacks:
        return f"{note}it needs {' or '.join(lacks)} too: add it to the inputs"
    return f"{note}if it needs more, it also takes {', '.join(others)}" if others else f"{note}it takes no other"


def _fits(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    try:
        signature.bind_partial(*args, **kwargs)
    except TypeError:
        return False
    return True


def _some(names: Iterable[str], what: str) -> str:
    names = list(names)
    shown = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
    plural = f"{what.removesuffix('y')}ies" if what.endswith("y") else f"{what}s"
    return f"{len(names) or 'no'} {what if len(names) == 1 else plural}{shown}"
