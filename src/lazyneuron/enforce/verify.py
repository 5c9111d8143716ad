"""Hold the promise of the selections in force against live data."""

import torch
from torch import Tensor, nn

from lazyneuron.enforce.enforce import hooks_in_force
from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.maps.attach import MapHooks
from lazyneuron.sites import Inputs, Site, as_call


class NotSparseError(LazyneuronError, AssertionError):
    """A token at a site has more nonzeros than the selection in force there promises."""


def verify(model: nn.Module, batch: Inputs) -> dict[str, int]:
    """Run `batch` and check every token that enters a down projection; the number of tokens checked at each site.

    `batch` is a mapping of keyword arguments, a tuple of positional ones, or a tensor. It runs without gradients in the
    mode that the model is in. Padding is checked too. What `TopK` and `GroupTopK` promise is at most k nonzeros (in
    each group), `Threshold` that none is at or below tau; `StatisticalTopK` promises nothing, and its sites are left
    out. Raises NotSparseError (an AssertionError) with the site, how many tokens break the promise, and the worst;
    UsageError if nothing in force promises anything.
    """
    hooks = {name: hook for name, hook in hooks_in_force(model).items() if hook.selection.promise(hook.site.d_ff)}
    if not hooks:
        raise UsageError("nothing to verify: enforce(model, TopK(...)) first")
    checked = dict.fromkeys(hooks, 0)
    broken: dict[str, tuple[int, int]] = {}

    def on_map(site: Site, h: Tensor, is_real: Tensor | None) -> None:
        if not h.numel():
            return
        counts, limit = hooks[site.name].selection.num_broken(h.reshape(-1, h.shape[-1]))
        number, worst = broken.get(site.name, (0, 0))
        checked[site.name] += len(counts)
        broken[site.name] = number + int((counts > limit).sum()), max(worst, int(counts.max()))

    args, kwargs = as_call(batch)
    with torch.no_grad(), MapHooks(model, [hook.site for hook in hooks.values()], on_map, warns=False):
        model(*args, **kwargs)
    for name, (number, worst) in broken.items():
        if number:
            promise = hooks[name].selection.promise(hooks[name].site.d_ff)
            tokens = f"{number} of {checked[name]} tokens"
            raise NotSparseError(f"site {name!r}: {promise} is not so for {tokens}, the worst has {worst}")
    return checked
