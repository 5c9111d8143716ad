"""`lazy.relufy`: replace GELU and SiLU by ReLU, so that neurons can be exactly zero."""

import copy
import functools
import re
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.enforce.config import config_to_write
from lazyneuron.errors import UsageError
from lazyneuron.load.checkpoint import first_line, quiet
from lazyneuron.maps.owners import Layout, numberless
from lazyneuron.sites import RELU_LIKE, Inputs, Site, as_call, dry_run, find_sites, inputs_or_dummy, unwrap

_SMOOTH = re.compile("gelu|silu|swish", re.IGNORECASE)
_CONFIG_KEY = re.compile("act|feed_forward_proj")


def relufy(model: nn.Module, example_inputs: Inputs | None = None) -> list[str]:
    """Replace GELU and SiLU by ReLU in the MLPs of `model`, in place, and return the names of the replaced modules.

    The MLPs are found as by `enforce`; those that are already ReLU-like stay. The config of a Hugging Face model is
    copied and changed accordingly, so that saving and loading keep the ReLU; activations elsewhere that depend on the
    same config entry (the head of BERT's masked language model) are replaced too. Parameters stay: expect to fine-tune.

    Raises UsageError with the module's name, and changes nothing, if an activation is a function instead of a module,
    serves other parts as well, or has no config entry.
    """
    root, inputs = unwrap(model), inputs_or_dummy(model, example_inputs)
    sites = [site for site in find_sites(model, inputs) if site.activation not in RELU_LIKE]
    names = _activations(model, sites, inputs) if sites else set[str]()
    layout = Layout(model)
    config: Any = getattr(root, "config", None)
    changed: dict[tuple[str, ...], str] = {}
    if names and hasattr(config, "to_json_string"):
        changed, governed = _config_changes(root, names)
        names |= governed
    before = {name: layout.modules[name] for name in sorted(names)}
    for name, module in before.items():
        _put(layout, name, nn.ReLU().train(module.training))
    wanted = {site.name for site in sites}
    left = [site for site in find_sites(model, inputs) if site.name in wanted and site.activation != "relu"]
    if left:
        for name, module in before.items():
            _put(layout, name, module)
        raise UsageError(f"site {left[0].name!r} still computes {left[0].activation} with ReLU: change its code")
    if changed:
        _set(config_to_write(model), changed)
    return list(before)


def _is_smooth(module: nn.Module) -> bool:
    return bool(_SMOOTH.search(type(module).__name__)) and next(module.parameters(), None) is None


def _put(layout: Layout, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(layout.modules[parent], leaf, module)


def _activations(model: nn.Module, sites: list[Site], inputs: Inputs) -> set[str]:
    """The names of the modules that take the output of the sites' gate (or up) projections, found by a dry run."""
    layout = Layout(model)
    smooth = {name: module for name, module in layout.modules.items() if _is_smooth(module)}
    projected: list[tuple[Site, Tensor]] = []
    serves: dict[int, set[str | None]] = {}

    def at_up(site: Site) -> Any:
        return lambda module, args, output: projected.append((site, output))

    def at_activation(module: nn.Module, args: tuple[Any, ...]) -> None:
        storage = args[0].untyped_storage()._cdata
        found = {site.name for site, output in projected if output.untyped_storage()._cdata == storage}
        inside = {
            site.name
            for site in bare
            for owner in layout.owners(site.gate or site.up)[0]
            if any(child is module for child in owner.modules())
        }
        serves.setdefault(id(module), set()).update(found or inside or {None})

    bare, handles = [], []
    for site in sites:
        owners, is_bare = layout.owners(site.gate or site.up)
        bare += [site] if is_bare else []
        handles += [] if is_bare else [owner.register_forward_hook(at_up(site)) for owner in owners]
    handles += [m.register_forward_pre_hook(at_activation) for m in {id(m): m for m in smooth.values()}.values()]
    dry_run(model, *as_call(inputs), handles=handles)
    names = {name for name, module in smooth.items() if serves.get(id(module), {None}) != {None}}
    if mixed := sorted(name for name in names if None in serves[id(smooth[name])]):
        raise UsageError(f"{mixed[0]} is used outside the MLPs too: give the MLP a module of its own")
    alike = {numberless(name) for name in names}
    unreached = {name for name, module in smooth.items() if id(module) not in serves and numberless(name) in alike}
    done = {site for name in names for site in serves[id(smooth[name])]}
    twins = {numberless(site) for site in done if site is not None}
    for site in sites:
        if site.name not in done and numberless(site.name) not in twins:
            what = f"its activation ({site.activation}) is no module that can be replaced, perhaps a function"
            raise UsageError(f"site {site.name!r}: {what}; make it an nn.Module in the model's code")
    return names | unreached


def _config_changes(model: nn.Module, names: set[str]) -> tuple[dict[tuple[str, ...], str], set[str]]:
    """The config entries to set, by path, so that a model built from them has ReLU at `names`, and all names it has."""
    config: Any = model.config
    entries = {
        path: re.sub(r"^(gated-)?.*", r"\1relu", value)
        for path, value in _strings(config)
        if _CONFIG_KEY.search(path[-1]) and _SMOOTH.search(value)
    }
    layout, why = Layout(model), "its config has no entry for it"
    for chosen in [entries, *({path: value} for path, value in entries.items())]:
        changed = copy.deepcopy(config)
        _set(changed, chosen)
        try:
            with quiet(), torch.device("meta"):
                fresh = Layout(type(model)(type(config).from_dict(changed.to_dict())))
        except Exception as error:
            why = f"no model can be built from its config ({first_line(error)})"
            continue
        smooth = {name for name, module in layout.modules.items() if _is_smooth(module)}
        swapped = {name for name in smooth if name not in fresh.modules or not _is_smooth(fresh.modules[name])}
        if chosen and names <= swapped:
            return chosen, swapped
    raise UsageError(f"{min(names)}: saving would lose its ReLU, as {why}; replace it by hand after each loading")


def _strings(config: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[tuple[str, ...], str]] = []
    for name, value in vars(config).items():
        if isinstance(value, str):
            found.append(((*path, name), value))
        elif hasattr(value, "to_json_string"):
            found += _strings(value, (*path, name))
    return found


def _set(config: Any, entries: dict[tuple[str, ...], str]) -> None:
    for (*path, name), value in entries.items():
        setattr(functools.reduce(getattr, path, config), name, value)
