"""`lazy.enforce` and `lazy.release`: put selections into a model's MLPs in place, and remove them."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lazyneuron.enforce.config import config_to_write
from lazyneuron.enforce.selecting_hooks import AtBare, AtDown, AtDropout, AtUp, SiteHook, all_site_hooks
from lazyneuron.enforce.selection import Anneal, Selection, selection_from_dict
from lazyneuron.errors import UsageError
from lazyneuron.maps.attach import forget_compiled
from lazyneuron.maps.dropout import dropouts_before_down, dropouts_inside
from lazyneuron.maps.owners import Layout
from lazyneuron.sites import (
    Inputs,
    Site,
    SiteChoice,
    dummy_inputs,
    find_sites,
    given_sites,
    inputs_or_dummy,
    is_expert_parallel,
    tensor_parallel_mesh,
    unwrap,
)

CONFIG_KEY = "lazyneuron"
Chosen = list[tuple[Site, Selection, str | None]]
"""Sites, their selections, and the name of the dropout between activation and down projection."""


def enforce(
    model: nn.Module,
    selection: Selection | Mapping[str, Any],
    sites: SiteChoice = "auto",
    example_inputs: Inputs | None = None,
) -> None:
    """Make the MLPs of `model` keep only the selected neurons, from its next call on, in training and inference.

    `selection` is a selection for all sites, or a mapping from site names or regular expressions to selections, or what
    `enforced` returned. A site takes the selection under its name, or else under the first expression that matches
    anywhere in its name, or else it stays dense. Selections already in force are replaced.

    `sites` is as in `watch`, but the sites are found now, by one forward pass on `example_inputs` (keyword arguments as
    a mapping, positional arguments as a tuple, or a tensor). A Hugging Face model that needs only tokens or an image
    runs on dummy inputs without them; other models need them, unless `sites` is a list and there is no `nn.Dropout`
    inside the sites. MLPs that the inputs do not reach stay dense.

    Nothing is copied: parameters and `state_dict` keys stay. Copies and pickles of the model are enforced too. Compiled
    models are recompiled. In training mode the map is selected before the `nn.Dropout` in front of the down projection;
    where a functional dropout stands there, after it. The config of a Hugging Face model records the selections, so
    `save_pretrained` writes them; it is copied first, because other models may share it.

    Raises UsageError, ValueError or NoSitesError with the site's name before anything is changed.
    """
    root = unwrap(model)
    is_spec = isinstance(selection, Mapping) and any(isinstance(value, Mapping) for value in selection.values())
    layout = Layout(root)
    chosen = _read(root, selection) if is_spec else _choose(model, layout, selection, sites, example_inputs)
    if chosen and (tensor_parallel_mesh(root) is not None or is_expert_parallel(root)):
        what = "ranks hold parts of the model's neurons or experts, and a selection needs all neurons of a token"
        raise UsageError(f"site {chosen[0][0].name!r}: {what}; run the model without tensor and expert parallelism")
    placed = [(hook, module) for each in chosen for hook, module in _hooks(layout, *each)]
    release(model)
    for hook, module in placed:
        hook.attach(module)
    forget_compiled()
    _remember(model, config_to_write(model))


def release(model: nn.Module) -> None:
    """Undo `enforce`: outputs are the original ones to the bit. Harmless if nothing is in force."""
    hooks = all_site_hooks(model)
    for hook in hooks:
        hook.remove()
    if hooks:
        forget_compiled()
        _remember(model, config_to_write(model))


def enforced(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The selections in force by site name, as plain values for JSON and for `enforce`; empty if there are none.

    Each has "selection" (its kind and values), "site" (the fields of `Site` except the name) and, if there is a dropout
    before the down projection, its name as "dropout".
    """
    layout = Layout(model)
    found: dict[str, dict[str, Any]] = {}
    for site, hook in hooks_in_force(model).items():
        fields = {name: value for name, value in dataclasses.asdict(hook.site).items() if name not in ("name", "order")}
        found[site] = {"selection": hook.selection.to_dict(), "site": fields}
        if isinstance(hook, AtDown) and hook.dropout is not None:
            found[site]["dropout"] = layout.name_of[id(hook.dropout)]
    return found


def hooks_in_force(model: nn.Module) -> dict[str, SiteHook]:
    """For each site with a selection in force, the hook at its projection."""
    return {hook.site.name: hook for hook in all_site_hooks(model) if not isinstance(hook, AtDropout)}


def set_step(model: nn.Module, step: int) -> None:
    """Set every `Anneal` in force to `step`; UsageError if there is none.

    Call it between calls of the model. A compiled model is recompiled whenever a k changes.
    """
    annealed = [(hook, hook.selection) for hook in all_site_hooks(model) if isinstance(hook.selection, Anneal)]
    if not annealed:
        raise UsageError("no annealing is in force: enforce(model, Anneal(start=1.0, end=0.05, num_steps=1000)) first")
    is_changed = False
    for hook, selection in annealed:
        hook.selection = selection.at(step)
        is_changed |= hook.selection.now.k_of(hook.site.d_ff) != selection.now.k_of(hook.site.d_ff)
    if is_changed:
        forget_compiled()
    _remember(model, getattr(unwrap(model), "config", None))


def _choose(
    model: nn.Module, layout: Layout, selection: Any, sites: SiteChoice, example_inputs: Inputs | None
) -> Chosen:
    by_key = selection if isinstance(selection, Mapping) else {"": selection}
    if wrong := [value for value in by_key.values() if not isinstance(value, Selection)]:
        raise TypeError(f"enforce takes a selection such as TopK(density=0.05) or a mapping to them; got {wrong[0]!r}")
    found = given_sites(model, sites)
    if found is None:
        try:
            found = find_sites(model, inputs_or_dummy(model, example_inputs), sites)
        except Exception as error:
            if example_inputs is not None or isinstance(error, ValueError | UsageError):
                raise
            name = type(unwrap(model)).__name__
            raise UsageError(f"{name} does not run on dummy inputs: pass a batch as example_inputs=") from error
    kept = assigned(selection, found)
    for site, chosen in kept:
        chosen.check(site)
    after = [site for site, chosen in kept if not chosen.is_before_activation]
    dropouts: dict[str, str] = {}
    if droppers := dropouts_inside(layout, after):
        inputs = example_inputs if example_inputs is not None else dummy_inputs(model)
        if inputs is None:
            dropout, inside = next(iter(droppers.items()))
            remedy = "pass a batch as example_inputs= to find out whether it is before the down projection"
            raise UsageError(f"site {inside[0].name!r} has the dropout {dropout}: {remedy}")
        dropouts = dropouts_before_down(model, layout, after, inputs)
    return [(site, chosen, dropouts.get(site.name)) for site, chosen in kept]


def assigned(selection: Any, sites: Sequence[Site]) -> list[tuple[Site, Selection]]:
    """Each site that a selection, or a mapping to selections, applies to, with its selection."""
    if isinstance(selection, Selection):
        return [(site, selection) for site in sites]
    names = {site.name for site in sites}
    found: dict[str, Selection] = {}
    for key in sorted(selection, key=lambda key: key not in names):
        try:
            fits = [site.name for site in sites if site.name == key or (key not in names and re.search(key, site.name))]
        except re.error as error:
            raise ValueError(f"{key!r} is neither the name of a site nor a regular expression: {error}") from None
        if not fits:
            listed = ", ".join(repr(name) for name in names)
            raise UsageError(f"{key!r} matches none of the {len(names)} sites: {listed}")
        for name in fits:
            found.setdefault(name, selection[key])
    return [(site, found[site.name]) for site in sites if site.name in found]


def _read(root: nn.Module, written: Any) -> Chosen:
    try:
        found = [
            (Site(name=name, **entry["site"]), selection_from_dict(entry["selection"]), entry.get("dropout"))
            for name, entry in written.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the mapping is not one that enforced(model) returns: {error!r}") from error
    given_sites(root, [site for site, _, _ in found])
    for site, selection, _ in found:
        selection.check(site)
    return found


def _hooks(layout: Layout, site: Site, selection: Selection, dropout: str | None) -> list[tuple[SiteHook, nn.Module]]:
    if selection.is_before_activation:
        weight = site.gate or site.up
        owners, is_bare = layout.owners(weight)
        parameter = layout.parameters[weight]
        if is_bare or (parameter.is_floating_point() and parameter.numel() != site.d_model * site.d_ff):
            what = "belongs to no linear module" if is_bare else f"computes more than the {site.d_ff} neurons"
            remedy = "use TopK or Threshold there, which act after the activation"
            raise UsageError(f"site {site.name!r}: {weight} {what}, so its output cannot be selected: {remedy}")
        return [(AtUp(site, selection), owner) for owner in owners]
    owners, is_bare = layout.owners(site.down)
    if is_bare:
        return [(AtBare(site, selection), owner) for owner in owners]
    if dropout is not None and dropout not in layout.modules:
        raise UsageError(f"site {site.name!r}: the model has no dropout {dropout!r}")
    module = None if dropout is None else layout.modules[dropout]
    before: list[tuple[SiteHook, nn.Module]] = [] if module is None else [(AtDropout(site, selection), module)]
    return before + [(AtDown(site, selection, module), owner) for owner in owners]


def _remember(model: nn.Module, config: Any) -> None:
    """Write the selections in force to the config of a Hugging Face model."""
    if not hasattr(config, "to_json_string"):
        return
    if spec := enforced(model):
        setattr(config, CONFIG_KEY, spec)
    elif hasattr(config, CONFIG_KEY):
        delattr(config, CONFIG_KEY)
