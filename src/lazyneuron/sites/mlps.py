"""Decide which linears of a traced pass are down projections of MLPs."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator

from lazyneuron.sites.site import Site
from lazyneuron.sites.trace import NORMS, Tag, Tracer

_ACTIVATION_NAMES = {
    ("threshold",): "relu",
    ("clamp_min",): "relu",
    ("relu", "pow"): "relu^2",
    ("pow", "tanh"): "gelu",
    ("tanh", "mul"): "gelu",
    ("erf",): "gelu",
    ("glu",): "sigmoid",
    ("hardtanh",): "relu6",
}


def mlps(tracer: Tracer) -> list[Site]:
    """The MLPs among the linears that `tracer` saw, in order of execution, including experts without a token."""
    linears = tracer.linears
    found = {
        down: _site(tracer, down, linear.map_tag)
        for down, linear in linears.items()
        if linear.map_tag and not linear.is_stream
    }
    is_whole = {d: linears[s.up].d_out == s.d_ff * (1 + (s.up == s.gate)) for d, s in found.items()}

    def is_near_miss(down: str, site: Site) -> bool:
        """Convolutional networks have linear heads on 1x1 convolutions, and rows of these, each with an activation."""
        is_next = site.axis < -2 and (not is_whole[down] or down in tracer.activated)
        return is_next or linears[site.up].axis != site.axis

    found = {down: site for down, site in found.items() if not is_near_miss(down, site)}
    # The layers of a deep head feed each other; an MLP in a residual block does not.
    ups = {up for site in found.values() for up in (site.up, site.gate)}
    sites = {down: site for down, site in found.items() if down not in tracer.factors}
    sites = _prefer(sites, {d for d, s in sites.items() if d not in ups and s.up not in found})
    # A weight may take part of up's output (up fused with attention), but not if another takes all of it (gMLP).
    taken = {up for down, site in sites.items() if is_whole[down] for up in (site.up, site.gate)}
    sites = {down: site for down, site in sites.items() if is_whole[down] or site.up not in taken}
    block = {down: re.sub(r"\d+", "*", down) for down in sites}
    count = Counter(block.values())
    back = Counter(block[down] for down, site in sites.items() if linears[down].d_out == site.d_model)

    def returns(down: str, site: Site) -> bool:
        # Among blocks that return to their stream, some may widen it (MViT); a few others fit by chance.
        is_same = 2 * back[block[down]] > count[block[down]]
        is_same = is_same and (linears[down].d_out == site.d_model or site.axis > -3)
        is_many = count[block[down]] > 1 or linears[down].calls > 1 or tracer.parameters[down].dim() == 3
        return is_same and (is_many or site.is_gated or site.d_ff > site.d_model or down in tracer.summands)

    # Without such a block any will do, except in convolutional networks, which are full of near misses.
    returned = {down for down, site in sites.items() if returns(down, site)}
    has_images = any(linear.axis < -2 for linear in linears.values())
    sites = _prefer({down: site for down, site in sites.items() if down in returned or not has_images}, returned)
    sites = {down: site for known in sites.values() for down, site in _siblings(tracer, known)}
    names = Counter(site.name for site in sites.values())
    return [
        site if names[site.name] == 1 else dataclasses.replace(site, name=down.rpartition(".")[0])
        for down, site in sites.items()
    ]


def _siblings(tracer: Tracer, site: Site) -> Iterator[tuple[str, Site]]:
    """The site and those that differ only by a number and that the pass did not reach: experts without a token."""
    yield site.down, site
    stem = site.name.rstrip("0123456789")
    if stem == site.name:
        return
    inside = [name and name.removeprefix(site.name) for name in (site.up, site.gate, site.down)]
    for down, parameter in tracer.parameters.items():
        twin = down.removesuffix(str(inside[2]))
        if down in tracer.linears or twin == down or twin.rstrip("0123456789") != stem:
            continue
        if parameter.shape == tracer.parameters[site.down].shape:
            up, gate, _ = (part and twin + part for part in inside)
            yield down, dataclasses.replace(site, name=twin, up=str(up), gate=gate, down=down)


def _site(tracer: Tracer, down: str, tag: Tag) -> Site:
    linears = tracer.linears

    d_ff = linears[down].d_in

    def largest(names: frozenset[str]) -> str:
        order = [name for name in linears if name in names]
        wide = [name for name in order if linears[name].d_out >= d_ff]
        return max(wide or order, key=lambda name: linears[name].d_in * linears[name].d_out)

    gate = None
    if tag.gated:
        gate = largest(tag.activated)
        up = largest((tag.producers - tag.activated) or (tag.producers - {gate}))
        if linears[up].d_out < d_ff:  # it mixes the tokens of one branch (gMLP)
            up = gate
    else:
        up = largest(tag.producers)
        if tag.fused and linears[up].d_out == 2 * d_ff:
            gate = up
    norms = tuple(step for step in tag.nonlinearities if step in NORMS)
    steps = tuple(step for step in tag.nonlinearities if step not in NORMS)
    activation = "+".join((_ACTIVATION_NAMES.get(steps) or "+".join(steps), *norms))
    modules = [name.split(".")[:-1] for name in (up, gate or up, down)]
    shared = 0
    while all(len(path) > shared and path[shared] == modules[0][shared] for path in modules):
        shared += 1
    sizes = linears[up].d_in, d_ff
    return Site(
        ".".join(modules[0][:shared]), up, gate, down, *sizes, activation, linears[down].axis, linears[down].order
    )


def _prefer(sites: dict[str, Site], chosen: set[str]) -> dict[str, Site]:
    return {down: site for down, site in sites.items() if down in chosen} if chosen else sites
