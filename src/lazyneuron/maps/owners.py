"""Where in a model a site's selection acts: the modules that hold its weight, and the dropout before them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from lazyneuron.errors import UsageError
from lazyneuron.sites import Site, clean_name, unwrap
from lazyneuron.sites.find import private_copy, undisturbed

Inputs = Mapping[str, Any] | tuple[Any, ...] | Tensor


class Layout:
    """The modules and parameters of a model by clean name (of a wrapper and what it wraps, the latter)."""

    def __init__(self, model: nn.Module) -> None:
        root = unwrap(model)
        self.modules = {clean_name(name): module for name, module in root.named_modules(remove_duplicate=False)}
        self.parameters = {clean_name(name): p for name, p in root.named_parameters(remove_duplicate=False)}
        self.name_of: dict[int, str] = {}
        self._holders: dict[int, list[str]] = {}
        for name, module in self.modules.items():
            if self.name_of.setdefault(id(module), name) == name:
                for weight in module._parameters.values():
                    self._holders.setdefault(id(weight), []).append(name)

    def holders(self, parameter: str) -> tuple[list[nn.Module], bool]:
        """The modules that multiply by a weight, and whether they hold it bare, so that it is no input of a module.

        Tied weights have several. Of an adapted linear (a `base_layer`) it is the adapter, whose input and output are
        the whole projection's.
        """
        path, parametrized, _ = parameter.partition(".parametrizations.")
        if parametrized:
            return [self.modules[path]], False
        names = self._holders[id(self.parameters[parameter])]
        owners = [self.modules[name] for name in names]
        if not all({"weight"} <= owner._parameters.keys() <= {"weight", "bias"} for owner in owners):
            return owners, True
        return [self.modules[re.sub(r"(\.base_layer)+$", "", name)] for name in names], False


def may_drop(layout: Layout, sites: list[Site]) -> dict[str, list[Site]]:
    """The `nn.Dropout` modules inside the sites' modules, by name."""
    found: dict[str, list[Site]] = {}
    for name, module in layout.modules.items():
        if isinstance(module, nn.Dropout):
            inside = [site for site in sites if not site.name or name.startswith(f"{site.name}.")]
            found |= {name: inside} if inside else {}
    return found


def dropouts_before_down(model: nn.Module, layout: Layout, sites: list[Site], inputs: Inputs) -> dict[str, str]:
    """For each site whose map passes an `nn.Dropout` before its down projection, that module's name (the first such).

    One forward pass on a copy of `inputs` tells, undisturbed as `find_sites` is; sites that it does not reach are taken
    to be as those whose names differ in a number alone. UsageError where the module drops other things of that width.
    """
    candidates = may_drop(layout, sites)
    calls: list[tuple[str, Tensor, int]] = []
    matched: dict[str, dict[str, int]] = {}

    def at_dropout(name: str) -> Any:
        return lambda module, args, output: calls.append((name, output, output._version))

    def at_down(site: Site) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            inside = [(n, x) for n, x, v in calls if site in candidates[n] and x._version == v and _is_same(x, args[0])]
            for name, x in inside[:1]:
                if x.dim() < -site.axis or x.shape[site.axis] != site.d_ff:
                    raise UsageError(f"site {site.name!r}: the map has another shape at {name} than at {site.down}")
                matched.setdefault(name, {}).setdefault(site.name, 0)
                matched[name][site.name] += 1

        return hook

    handles = [layout.modules[name].register_forward_hook(at_dropout(name)) for name in candidates]
    for site in sites:
        owners, is_bare = layout.holders(site.down)
        handles += [] if is_bare else [o.register_forward_pre_hook(at_down(site), prepend=True) for o in owners]
    run_hooked(model, inputs, handles)
    d_ff, axis = {site.name: site.d_ff for site in sites}, {site.name: site.axis for site in sites}
    for name, users in matched.items():
        first = next(iter(users))
        wide = [x for n, x, _ in calls if n == name and x.dim() >= -axis[first] and x.shape[axis[first]] == d_ff[first]]
        if len(users) > 1 or len(wide) > users[first]:
            raise UsageError(
                f"site {first!r}: {name} drops more than this map, so what enters it cannot be selected; give the map "
                "an nn.Dropout of its own"
            )
    found = {site: name for name, users in matched.items() for site in users}
    alike = {numberless(site): numberless(name) for site, name in found.items()}
    for site in sites:
        for name in candidates:
            if (
                site.name not in found
                and site in candidates[name]
                and alike.get(numberless(site.name)) == numberless(name)
            ):
                found[site.name] = name
    return found


def run_hooked(model: nn.Module, inputs: Inputs, handles: Iterable[RemovableHandle]) -> None:
    """One forward pass on a copy of `inputs`, undisturbed as `find_sites` is; the hooks are removed after it."""
    args, kwargs = tree_map(private_copy, as_call(inputs))
    try:
        with undisturbed(unwrap(model)):
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()


def as_call(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the call that `inputs` stand for, as in `find_sites`."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def dummy_inputs(model: nn.Module) -> dict[str, Tensor] | None:
    """A few tokens or a blank image for a Hugging Face model that takes either alone; None for others."""
    model = unwrap(model)
    config: Any = getattr(model, "config", None)
    main = getattr(model, "main_input_name", None)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if main == "pixel_values":
        size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, int) else size
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        return {"pixel_values": torch.zeros(1, channels, height, width, dtype=dtype, device=device)}
    ids: Any = getattr(model, "dummy_inputs", None)
    if main != "input_ids" or not isinstance(ids, Mapping):
        return None
    found = {name: x.to(device) for name, x in ids.items() if isinstance(x, Tensor)}
    if getattr(config, "is_encoder_decoder", False):
        found.setdefault("decoder_input_ids", found["input_ids"])
    return found


def _is_same(x: Tensor, h: Tensor) -> bool:
    """Whether `h` is `x`, a reshape of it, or a cast."""
    if x is h or (x.numel() == h.numel() and x.device == h.device and x.data_ptr() == h.data_ptr()):
        return True
    return x.shape == h.shape and x.dtype != h.dtype and torch.equal(x.to(h.dtype), h)


def numberless(name: str) -> str:
    return re.sub(r"\d+", "*", name)
