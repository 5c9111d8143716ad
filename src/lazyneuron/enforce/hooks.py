"""Hooks that select neurons as a model runs: plain objects in the model's modules, so copied and pickled with it."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lazyneuron.enforce.bare import SelectInProducts
from lazyneuron.enforce.selection import Selection
from lazyneuron.sites import Site, is_tracing


class SiteHook(ABC):
    """One hook of a site in force. `remove` takes it out of the model, or of the copy, that it is in."""

    def __init__(self, site: Site, selection: Selection) -> None:
        self.site, self.selection = site, selection
        # Unpickled handles keep torch from giving the number of this hook to another.
        self.handles: list[RemovableHandle] = []

    @abstractmethod
    def attach(self, module: nn.Module) -> None:
        """Begin to act at that module."""

    def remove(self) -> None:
        """Cease to act."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def select(self, x: Tensor) -> Tensor:
        """What stays of a map as the model has it, with its neurons on the site's axis."""
        axis, d_ff = self.site.axis, self.site.d_ff
        if x.shape[axis] != d_ff:
            raise ValueError(f"site {self.site.name!r}: got {x.shape[axis]} neurons, the site has {d_ff}")
        if axis == -1:
            return self.selection.apply(x)
        return self.selection.apply(x.movedim(axis, -1)).movedim(-1, axis)


def _is_idle() -> bool:
    """True in the passes that find sites: they are not the user's."""
    return not torch.compiler.is_compiling() and is_tracing()


class AtDown(SiteHook):
    """Selects what enters the down projection, unless a `dropout` in training has had it selected before."""

    def __init__(self, site: Site, selection: Selection, dropout: nn.Module | None) -> None:
        super().__init__(site, selection)
        self.dropout = dropout

    def attach(self, module: nn.Module) -> None:
        # First in line: others, such as those that count, see what was selected.
        self.handles.append(module.register_forward_pre_hook(self, prepend=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if _is_idle() or (self.dropout is not None and self.dropout.training):
            return None
        return self.select(args[0]), *args[1:]


class AtDropout(SiteHook):
    """Selects, in training, what enters the dropout between the activation and the down projection."""

    def attach(self, module: nn.Module) -> None:
        self.handles.append(module.register_forward_pre_hook(self, prepend=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        x = args[0]
        is_other = x.dim() < -self.site.axis or x.shape[self.site.axis] != self.site.d_ff
        if _is_idle() or not module.training or is_other:  # such as the MLP's output, where one module drops both
            return None
        return self.select(x), *args[1:]


class AtUp(SiteHook):
    """Selects what leaves the up (or gate) projection, before the activation."""

    def attach(self, module: nn.Module) -> None:
        self.handles.append(module.register_forward_hook(self, prepend=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return None if _is_idle() else self.select(output)


class AtBare(SiteHook):
    """Selects in the products with a down weight that its module holds bare (3-D experts), while that module runs."""

    def __init__(self, site: Site, selection: Selection) -> None:
        super().__init__(site, selection)
        self.running: list[SelectInProducts] = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"running": []}

    def remove(self) -> None:
        super().remove()
        for mode in self.running:  # left behind by an interrupted call
            mode.is_on = False

    def attach(self, module: nn.Module) -> None:
        leave = _Leave(self)
        self.handles.append(module.register_forward_pre_hook(self, prepend=True))
        self.handles.append(module.register_forward_hook(leave, always_call=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if _is_idle():
            return
        self.running.append(SelectInProducts(module, self.site, self.selection))
        self.running[-1].__enter__()


class _Leave:
    def __init__(self, entered: AtBare) -> None:
        self.entered = entered

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not _is_idle() and self.entered.running:
            self.entered.running.pop().__exit__(None, None, None)


def site_hooks(module: nn.Module) -> list[SiteHook]:
    """The hooks of selections that are in a module itself."""
    found = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return [hook for hook in found if isinstance(hook, SiteHook)]
