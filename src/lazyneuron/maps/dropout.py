"""The `nn.Dropout` modules between an activation map and its down projection."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.errors import UsageError
from lazyneuron.maps.owners import Layout, numberless
from lazyneuron.sites import Inputs, Site, as_call, dry_run


def dropouts_inside(layout: Layout, sites: Sequence[Site]) -> dict[str, list[Site]]:
    """The `nn.Dropout` modules inside the MLPs by name, each with the sites that may use it."""
    found: dict[str, list[Site]] = {}
    for name, module in layout.modules.items():
        inside = [site for site in sites if not site.name or name.startswith(f"{site.name}.")]
        if inside and isinstance(module, nn.Dropout):
            found[name] = inside
    return found


def dropouts_before_down(model: nn.Module, layout: Layout, sites: list[Site], inputs: Inputs) -> dict[str, str]:
    """By site, the name of the first `nn.Dropout` that its map passes through before the down projection, if any.

    They are found in a dry run on `inputs`; a site that it does not reach is treated like the same part of other
    layers. UsageError where such a module also drops other tensors of the same width.
    """
    candidates = dropouts_inside(layout, sites)
    calls: list[tuple[str, Tensor, int]] = []
    matched: dict[str, Counter[str]] = {}

    def at_dropout(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        calls.append((name, output, output._version))

    def at_down(site: Site, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        for name, x, version in calls:
            if site in candidates[name] and x._version == version and _is_same(x, args[0]):
                if x.dim() < -site.axis or x.shape[site.axis] != site.d_ff:
                    raise UsageError(f"site {site.name!r}: the map has another shape at {name} than at {site.down}")
                matched.setdefault(name, Counter())[site.name] += 1
                return

    handles = [layout.modules[name].register_forward_hook(partial(at_dropout, name)) for name in candidates]
    for site in sites:
        owners, is_bare = layout.owners(site.down)
        for owner in [] if is_bare else owners:
            handles.append(owner.register_forward_pre_hook(partial(at_down, site), prepend=True))
    dry_run(model, *as_call(inputs), handles=handles)
    by_name = {site.name: site for site in sites}
    for name, users in matched.items():
        site = by_name[next(iter(users))]
        wide = [x for n, x, _ in calls if n == name and x.dim() >= -site.axis and x.shape[site.axis] == site.d_ff]
        if len(users) > 1 or len(wide) > users[site.name]:
            raise UsageError(
                f"site {site.name!r}: {name} drops more than this map, so its input cannot be selected; give the map "
                "an nn.Dropout of its own"
            )
    found = {site: name for name, users in matched.items() for site in users}
    alike = {numberless(site): numberless(name) for site, name in found.items()}
    for name, inside in candidates.items():
        for site in inside:
            if alike.get(numberless(site.name)) == numberless(name):
                found.setdefault(site.name, name)
    return found


def _is_same(x: Tensor, h: Tensor) -> bool:
    """Whether `h` is `x`, a reshape of it, or a cast."""
    if x is h or (x.numel() == h.numel() and x.device == h.device and x.data_ptr() == h.data_ptr()):
        return True
    return x.shape == h.shape and x.dtype != h.dtype and torch.equal(x.to(h.dtype), h)
