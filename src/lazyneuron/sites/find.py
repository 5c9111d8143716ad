"""Find a model's MLPs by tracing one forward pass, without a table of model families."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lazyneuron.sites.dry_run import Inputs, as_call, dry_run
from lazyneuron.sites.mlps import mlps
from lazyneuron.sites.parallel import local, num_neurons, tensor_parallel_mesh
from lazyneuron.sites.select import SiteChoice, given_sites, matching
from lazyneuron.sites.site import NoSitesError, Site
from lazyneuron.sites.trace import Tracer
from lazyneuron.sites.wrappers import clean_name, unwrap


def find_sites(model: nn.Module, example_inputs: Inputs, sites: SiteChoice = "auto") -> list[Site]:
    """Find the MLPs that one forward pass of `model` runs, in order of execution.

    `example_inputs` are keyword arguments (mapping), positional arguments (tuple), or the only argument (tensor), on
    the model's device; they are copied. The pass runs in eval mode without gradients and leaves modes, buffers, random
    state and `.grad` as they were. MLPs that it does not reach are not found, but experts without a token are.

    `sites` may be a regular expression: sites are kept if it matches anywhere in their name (`re.search`). A list of
    `Site` is checked and returned without a pass (see `given_sites` for what it raises).
    Raises NoSitesError if there is no MLP. An exception of the model's own forward passes through, with a note about
    missing inputs.
    """
    return find_sites_in_call(model, *as_call(example_inputs), sites)


def find_sites_in_call(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], sites: SiteChoice = "auto"
) -> list[Site]:
    """`find_sites` for the call `model(*args, **kwargs)`, with the same contract."""
    given = given_sites(model, sites)
    if given is not None:
        return given
    assert sites is None or isinstance(sites, str)
    model = unwrap(model)
    parameters = {clean_name(name): parameter for name, parameter in model.named_parameters()}
    tracer = Tracer({name: local(parameter) for name, parameter in parameters.items()}, _gathered(model))
    begin = model.register_forward_pre_hook(
        lambda module, args, kwargs: tracer.rows.begin(args, kwargs), with_kwargs=True
    )
    dry_run(model, args, kwargs, handles=[begin], modes=[tracer])
    mesh = tensor_parallel_mesh(model)
    found = [replace(site, d_ff=num_neurons(mesh, parameters[site.down], site.d_ff)) for site in mlps(tracer)]
    if not found:
        raise NoSitesError(_why_none(model, tracer))
    return matching(found, sites)


def _gathered(model: nn.Module) -> Callable[[], Iterator[tuple[str, Tensor]]] | None:
    """A function that lists the parameters (under tensor parallelism, this rank's parts) that FSDP2 has gathered at
    the moment; None if it shards none.
    """
    if "torch.distributed.tensor" not in sys.modules:
        return None
    from torch.distributed.tensor import DTensor

    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return None
    return lambda: ((clean_name(name), local(parameter)) for name, parameter in model.named_parameters())


def _why_none(model: nn.Module, tracer: Tracer) -> str:
    """The message of NoSitesError: what the pass saw, why that is no MLP, and what to do."""
    matrices = [name for name, p in tracer.parameters.items() if p.dim() > 1]
    unreached = [name for name in matrices if name not in tracer.reached]
    message = (
        f"no MLP found in {type(model).__name__}: saw {_some(tracer.linears, 'linear weight')} and "
        f"{_some(tracer.nonlinearities, 'nonlinearity')}, but "
    )
    if tracer.scales:
        message += f"the linear after a nonlinearity only scales other activations ({', '.join(tracer.scales)}); "
    else:
        message += "none of these linears takes the activated output of another; "
    if unreached:
        message += f"these inputs did not reach {_some(unreached, 'weight')}: give inputs that run the MLPs, or "
    return message + "pass sites=[Site(...)] naming its weights as in named_parameters()"


def _some(names: Iterable[str], what: str) -> str:
    names = list(names)
    shown = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
    plural = f"{what.removesuffix('y')}ies" if what.endswith("y") else f"{what}s"
    return f"{len(names) or 'no'} {what if len(names) == 1 else plural}{shown}"
