"""The activations that a model's configs declare, to compare with what its MLPs are seen to do."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lazyneuron.sites.site import Site
from lazyneuron.sites.wrappers import clean_name, unwrap

_ENTRIES = ("mlp_hidden_act", "hidden_act", "hidden_activation", "activation_function", "dense_act_fn", "activation")
_STACKS = ("encoder", "decoder")


def declared_activations(model: nn.Module, sites: Sequence[Site]) -> dict[str, str]:
    """By name of the site, what the nearest config around it calls its activation ("relu2", "silu"), where one does.

    Configs are the `config` of the modules on the site's path, as Hugging Face models and others have them; that of a
    composite model may name the text model's activation in its `text_config`.
    """
    modules = {clean_name(name): module for name, module in unwrap(model).named_modules()}
    found = {}
    for site in sites:
        path = site.name.split(".")
        stacks = [stack for stack in _STACKS if any(part.startswith(stack) for part in path)]
        names = [*(f"{stack}_{entry}" for stack in stacks for entry in _ENTRIES), *_ENTRIES]
        for depth in range(len(path), -1, -1):
            config: Any = getattr(modules.get(".".join(path[:depth])), "config", None)
            values = [
                getattr(part, name, None) for part in (config, getattr(config, "text_config", None)) for name in names
            ]
            if activation := next((value for value in values if isinstance(value, str)), None):
                found[site.name] = activation
                break
    return found
