"""`lazy.verify`: check on live data that the selections in force keep their promise."""

import torch
from torch import Tensor, nn

from lazyneuron.enforce.enforce import hooks_in_force
from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.maps.attach import MapHooks
from lazyneuron.maps.tokens import Tokens
from lazyneuron.sites import Inputs, Site, as_call


class NotSparseError(LazyneuronError, AssertionError):
    """A token has more nonzeros at a site than the selection in force promises."""


def verify(model: nn.Module, batch: Inputs) -> dict[str, int]:
    """Run `batch`, check every token that enters a down projection, and return the number of tokens checked by site.

    `batch` is a mapping of keyword arguments, a tuple of positional arguments, or a tensor. It runs without gradients
    and in the model's current mode; padding is checked too. `TopK` and `GroupTopK` promise at most k nonzeros (per
    group), `Threshold` no magnitude of tau or less. `StatisticalTopK` promises nothing, so its sites are skipped.
    Raises NotSparseError (an AssertionError) with the site, the number of tokens that break the promise, and the worst;
    UsageError if no selection in force promises anything.
    """
    hooks = {name: hook for name, hook in hooks_in_force(model).items() if hook.selection.promise(hook.site.d_ff)}
    if not hooks:
        raise UsageError("nothing to verify: enforce(model, TopK(...)) first")
    checked = dict.fromkeys(hooks, 0)
    broken: dict[str, tuple[int, int]] = {}

    def on_map(site: Site, h: Tensor, tokens: Tokens) -> None:
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
            raise NotSparseError(f"site {name!r}: {promise} does not hold for {tokens}; the worst has {worst}")
    return checked
