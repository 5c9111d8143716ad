"""The `sites=` argument: all sites, those whose name matches, or a list."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from torch import nn

from lazyneuron.sites.site import NoSitesError, Site
from lazyneuron.sites.wrappers import clean_name, unwrap

SiteChoice: TypeAlias = str | Sequence[Site] | None
"""All sites ("auto" or None), a regular expression that matches anywhere in their names, or a list of `Site`."""


def given_sites(model: nn.Module, sites: SiteChoice) -> list[Site] | None:
    """The listed sites, checked against `model`; None if a forward pass must find them.

    TypeError for anything but a choice of sites. ValueError for an invalid expression, an empty list, two sites with
    the same name, parameters that `model` does not have, and a down weight that does not fit `d_ff`.
    """
    if sites is None or isinstance(sites, str):
        _expression(sites)
        return None
    chosen: list[Site] = [*sites] if isinstance(sites, Iterable) else [sites]
    if wrong := [site for site in chosen if not isinstance(site, Site)]:
        raise TypeError(f"sites= takes 'auto', a regular expression, or a list of Site; got {wrong[0]!r}")
    if not chosen:
        raise ValueError("sites=[] leaves nothing to do: pass 'auto', a regular expression, or at least one Site")
    parameters = {clean_name(name): p for name, p in unwrap(model).named_parameters()}
    kind, seen = type(unwrap(model)).__name__, set[str]()
    for site in chosen:
        if site.name in seen:
            raise ValueError(f"two sites are named {site.name!r}: give them different names")
        seen.add(site.name)
        for name in filter(None, (site.up, site.gate, site.down)):
            if name not in parameters:
                near = difflib.get_close_matches(name, parameters, 1)
                remedy = f"did you mean {near[0]!r}?" if near else "use a name from its named_parameters()"
                raise ValueError(f"site {site.name!r}: {kind} has no parameter {name!r}; {remedy}")
        down = parameters[site.down]
        # Integer weights are quantised and may be packed; more axes are experts or grouped convolutions (SqueezeBERT).
        has_d_ff = (
            down.numel() % site.d_ff == 0 if down.dim() > 2 else any(size % site.d_ff == 0 for size in down.shape)
        )
        if down.is_floating_point() and not has_d_ff:
            shape = tuple(down.shape)
            raise ValueError(f"site {site.name!r}: {kind} has {site.down} of shape {shape}, not d_ff={site.d_ff}")
    return chosen


def matching(found: Sequence[Site], sites: str | None) -> list[Site]:
    """The found sites that "auto", None or an expression selects; NoSitesError with their names if there is none."""
    expression = _expression(sites)
    kept = [site for site in found if expression is None or expression.search(site.name)]
    if found and not kept:
        names = ", ".join(repr(site.name) for site in found)
        raise NoSitesError(f"sites={sites!r} matches none of the {len(found)} MLPs found: {names}")
    return kept


def _expression(sites: str | None) -> re.Pattern[str] | None:
    if sites is None or sites == "auto":
        return None
    try:
        return re.compile(sites)
    except re.error as error:
        raise ValueError(f"sites={sites!r} is not a valid regular expression: {error}") from None
