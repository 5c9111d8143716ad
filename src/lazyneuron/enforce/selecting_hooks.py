"""Hooks that select neurons as a model runs: plain objects in its modules, so copied and pickled with the model."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lazyneuron.enforce.selection import Selection
from lazyneuron.maps.bare_products import BareProducts, Product
from lazyneuron.maps.nested import map_tokens
from lazyneuron.sites import Site, clean_name, is_tracing, unwrap


class SiteHook(ABC):
    """A selection in force at a site. `remove` takes it out of the model, or of the copy, that it is in."""

    def __init__(self, site: Site, selection: Selection) -> None:
        self.site, self.selection = site, selection
        # Unpickled handles keep torch from giving the number of this hook to another.
        self.handles: list[RemovableHandle] = []

    @abstractmethod
    def attach(self, module: nn.Module) -> None:
        """Select in that module from now on, before other hooks of it, so that those that count see what is kept."""

    def remove(self) -> None:
        """Stop selecting."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def select(self, x: Tensor) -> Tensor:
        """The selected map, its neurons on the same axis as in `x`."""
        axis, d_ff = self.site.axis, self.site.d_ff
        if x.size(axis) != d_ff:
            raise ValueError(f"site {self.site.name!r}: got {x.size(axis)} neurons, the site has {d_ff}")
        if axis == -1:
            return map_tokens(self.selection.apply, x)
        return self.selection.apply(x.movedim(axis, -1)).movedim(-1, axis)


def _is_idle() -> bool:
    """True in dry runs, which are not the user's calls."""
    return not torch.compiler.is_compiling() and is_tracing()


class AtDown(SiteHook):
    """Selects the input of the down projection, unless it was selected before a `dropout` in training mode."""

    def __init__(self, site: Site, selection: Selection, dropout: nn.Module | None) -> None:
        super().__init__(site, selection)
        self.dropout = dropout

    def attach(self, module: nn.Module) -> None:
        self.handles.append(module.register_forward_pre_hook(self, prepend=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if _is_idle() or (self.dropout is not None and self.dropout.training):
            return None
        return self.select(args[0]), *args[1:]


class AtDropout(SiteHook):
    """Selects, in training mode, the input of the dropout between the activation and the down projection."""

    def attach(self, module: nn.Module) -> None:
        self.handles.append(module.register_forward_pre_hook(self, prepend=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        x = args[0]
        is_other = x.dim() < -self.site.axis or x.size(self.site.axis) != self.site.d_ff
        if _is_idle() or not module.training or is_other:  # such as the MLP's output, where one module drops both
            return None
        return self.select(x), *args[1:]


class AtUp(SiteHook):
    """Selects the output of the up (or gate) projection, before the activation."""

    def attach(self, module: nn.Module) -> None:
        self.handles.append(module.register_forward_hook(self, prepend=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return None if _is_idle() else self.select(output)


class AtBare(SiteHook):
    """Selects in the products with a bare down weight, while the module that holds it runs."""

    def __init__(self, site: Site, selection: Selection) -> None:
        super().__init__(site, selection)
        self.running: list[SelectingProducts] = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"running": []}

    def remove(self) -> None:
        super().remove()
        for mode in self.running:  # left behind by an interrupted call
            mode.is_on = False

    def attach(self, module: nn.Module) -> None:
        self.handles.append(module.register_forward_pre_hook(self, prepend=True))
        self.handles.append(module.register_forward_hook(self.leave, always_call=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if _is_idle():
            return
        self.running.append(SelectingProducts(module, self.site, self.selection))
        self.running[-1].__enter__()

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """The module has run, or failed."""
        if not _is_idle() and self.running:
            self.running.pop().__exit__(None, None, None)


class SelectingProducts(BareProducts):
    """Puts the selected map in the place of the map, in each product with a site's down weight that `owner` holds.

    An einsum that sums over neurons and experts at once is selected over both where the site's d_ff counts both. While
    `is_on` is False nothing is changed.
    """

    def __init__(self, owner: nn.Module, site: Site, selection: Selection) -> None:
        self._owner, self._site, self._selection = owner, site, selection
        self._leaf = clean_name(site.down).rpartition(".")[2]
        self.is_on = True
        super().__init__([])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.is_on:
            return func(*args, **(kwargs or {}))
        weight = self._owner._parameters[self._leaf]  # now: FSDP swaps it as it gathers
        assert weight is not None
        self._weights = [(weight, self._site, True)]
        return super().__torch_function__(func, types, args, kwargs)

    def _see(self, site: Site, is_down: bool, product: Product) -> Tensor:
        moved = product.moved()
        last = [*range(-len(product.axes), 0)]
        selected = self._selection.apply(moved.flatten(-len(last)))
        return selected.reshape(moved.shape).movedim(last, product.axes)


def site_hooks(module: nn.Module) -> list[SiteHook]:
    """The selecting hooks of a module itself."""
    found = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return [hook for hook in found if isinstance(hook, SiteHook)]


def all_site_hooks(model: nn.Module) -> list[SiteHook]:
    """The selecting hooks of all modules of a model."""
    return [hook for module in unwrap(model).modules() for hook in site_hooks(module)]
