"""Show every activation map of a model as it runs, with its real tokens, and leave no trace."""

import contextlib
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lazyneuron.errors import UsageError
from lazyneuron.maps.bare_products import BareMaps
from lazyneuron.maps.dropout import dropouts_inside
from lazyneuron.maps.mask_readers import MaskReader, mask_reader
from lazyneuron.maps.owners import Layout
from lazyneuron.maps.padding import Padding
from lazyneuron.maps.routed import Numbers, RoutedTokens, at_experts
from lazyneuron.maps.sequences import Sequences
from lazyneuron.maps.tokens import Tokens
from lazyneuron.sites import (
    NoSitesError,
    Site,
    SiteChoice,
    all_neurons,
    clean_name,
    find_sites_in_call,
    given_sites,
    is_expert_parallel,
    is_tracing,
    matching,
    tensor_parallel_mesh,
    unwrap,
)

OnMap = Callable[[Site, Tensor, Tokens], None]
"""Takes a site, its activation maps [B, S, F] (B sequences of S tokens), and what these tokens are."""


class MapHooks:
    """While open, calls `on_map` with each activation map.

    Sites that are not given as a list are found in the model's first call. Left out are dry runs, the second forward
    pass of gradient checkpointing, and copies of the model; with `needs_grad` also calls without gradients. With
    `is_first`, maps are seen before existing hooks change them; with `has_places` their tokens know their positions and
    neighbours. Closing warns of bare down weights that no product was seen with, unless `warns` is False.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: SiteChoice,
        on_map: OnMap,
        *,
        is_first: bool = False,
        needs_grad: bool = False,
        has_places: bool = False,
        warns: bool = True,
    ) -> None:
        self.sites = None if sites is None or isinstance(sites, str) else [*sites]
        self._model, self._choice, self._on_map = model, sites, on_map
        self._is_first, self._needs_grad, self._warns = is_first, needs_grad, warns
        self._has_grad: list[bool] = []  # of the model's calls in progress
        self._must_find = False
        self._mesh: Any = None
        self._attached: list[Site] = []
        self._handles: list[RemovableHandle] = []
        self._bare: list[BareMaps] = []
        self._before_dropout: dict[str, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._padding = Padding(model)
        self._routed = RoutedTokens()
        self._laid: dict[tuple[str, int], tuple[Numbers, tuple[Tensor, Tokens]]] = {}  # tokens at experts, in this call
        self._sequences = Sequences(model, has_places)

    @property
    def is_copy(self) -> bool:
        """Whether another rank sees the same tokens: all ranks but the first of those that share a model's neurons."""
        return self._mesh is not None and self._mesh.get_local_rank() > 0

    def known_sites(self) -> list[Site]:
        """The sites; RuntimeError before they are known."""
        if self.sites is None:
            raise RuntimeError(
                "no site is known yet: the model's own forward was not called inside the `with`; call it, pass the "
                "part that is called as the model, or pass sites=[Site(...)]"
            )
        return self.sites

    def open(self) -> None:
        """Add the hooks; RuntimeError if they are there already."""
        if self._handles:
            raise RuntimeError("this is open already: nest another watch(model) or capture(model) instead")
        given = given_sites(self._model, self._choice if self.sites is None else self.sites)
        forget_compiled()
        self._must_find = given is None
        try:
            self._around(self._model, self._on_call, self._on_return)
            get_encoder: Any = getattr(unwrap(self._model), "get_encoder", None)
            if self._padding.has_two_masks and callable(get_encoder):
                encoder: Any = get_encoder()  # `generate` calls it by itself, first
                hook = _guarded(encoder, self._on_encoder)
                self._handles.append(encoder.register_forward_pre_hook(hook, with_kwargs=True, prepend=True))
            if given is not None:
                self._attach(given)
        except BaseException:
            self.close(is_error=True)
            raise

    def close(self, is_error: bool = False) -> None:
        """Remove every hook; harmless if there are none."""
        for handle in self._handles:
            handle.remove()
        unseen = []
        for bare in reversed(self._bare):
            bare.__exit__(None, None, None)
            unseen += [name for name in bare.names if name not in bare.seen]
        for kept in (self._handles, self._bare, self._attached, self._before_dropout, self._has_grad):
            kept.clear()
        self._padding.end()
        self._sequences.close()
        self._routed.forget()
        self._laid.clear()
        forget_compiled()
        if unseen and self._warns and not is_error:
            warnings.warn(f"no product with the bare down weight was seen at {', '.join(unseen)}", stacklevel=3)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close(is_error=error is not None)

    def _around(self, module: Any, before: Callable[..., None], after: Callable[..., None]) -> None:
        # First in line: finding the sites calls the model, which must not happen between the hooks of FSDP.
        self._handles += [
            module.register_forward_pre_hook(_guarded(module, before), with_kwargs=True, prepend=True),
            module.register_forward_hook(_guarded(module, after), always_call=True),
        ]

    def _on_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._padding.begin(args, kwargs)
        self._sequences.begin(args, kwargs)
        self._routed.forget()
        self._laid.clear()
        self._has_grad.append(torch.is_grad_enabled())
        if self._must_find:
            self._found(find_sites_in_call(module, args, kwargs))
            self._must_find = False

    def _on_return(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._padding.end()
        self._sequences.end(output)
        del self._has_grad[-1:]

    def _on_encoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._must_find:
            named = unwrap(self._model).named_modules()
            prefix = next(clean_name(name) for name, child in named if child is module)
            with contextlib.suppress(NoSitesError):  # the model's own call may still find some
                self._found([_below(prefix, site) for site in find_sites_in_call(module, args, kwargs)])
            self._padding.read(mask_reader(prefix, module), args, kwargs)

    def _found(self, sites: list[Site]) -> None:
        known = {site.name for site in self._attached}
        new = [site for site in sites if site.name not in known]
        assert self._choice is None or isinstance(self._choice, str)
        chosen = matching([*self._attached, *new], self._choice)
        self._attach([site for site in chosen if site.name not in known])
        self.sites = [*self._attached]

    def _attach(self, sites: Sequence[Site]) -> None:
        layout = Layout(self._model)
        self._mesh = tensor_parallel_mesh(self._model)
        bare: list[tuple[Tensor, Site]] = []
        hooked: list[Site] = []
        for site in sites:
            owners, is_bare = layout.owners(site.down)
            if is_bare:
                if self._mesh is not None or is_expert_parallel(self._model):
                    what = f"{site.down} belongs to no linear module, and ranks hold parts of the model's neurons"
                    remedy = "leave it out of sites=, or run the model without tensor and expert parallelism"
                    raise UsageError(f"site {site.name!r}: {what} or experts; {remedy}")
                bare.append((layout.parameters[site.down], site))
                continue
            hooked.append(site)
            for owner in owners:
                hook = _guarded(owner, self._at_down(site))
                self._handles.append(owner.register_forward_pre_hook(hook, prepend=self._is_first))
        for name, inside in dropouts_inside(layout, hooked).items():
            for site in inside:
                hook = _guarded(layout.modules[name], self._at_dropout(site))
                self._handles.append(layout.modules[name].register_forward_hook(hook))
        for reader, module in self._padding.around(layout, sites).items():
            hook = _guarded(module, self._at_masks(reader))
            self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        self._attached += sites
        if bare:
            for module in {id(m): m for down, _ in bare if down.dim() == 3 for m in layout.around(down)}.values():
                hook = _guarded(module, lambda _, args, kwargs: self._routed.begin(args, kwargs))
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            self._bare.append(BareMaps(bare, self._see, layout.parameters, self._routed))
            self._bare[-1].__enter__()

    def _at_masks(self, reader: MaskReader) -> Callable[..., None]:
        return lambda module, args, kwargs: self._padding.read(reader, args, kwargs)

    def _at_down(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            h = args[0]
            dropped, before = self._before_dropout.pop(site.name, (lambda: None, h))
            is_cast = h.dtype != before.dtype and h.shape == before.shape  # T5 casts for its fp32 down projection
            h = before if dropped() is h or is_cast else h
            self._see(site, h if site.axis == -1 else h.movedim(site.axis, -1))

        return hook

    def _at_dropout(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if module.training and isinstance(output, Tensor) and args and args[0] is not output:
                self._before_dropout[site.name] = weakref.ref(output), args[0].detach()

        return hook

    def _see(self, site: Site, h: Tensor, numbers: Numbers | None = None) -> None:
        """Pass on an activation map [..., F]; at experts [T, F], with the numbers of their tokens if they are known."""
        if torch._C._current_graph_task_id() != -1:  # a checkpoint's second forward pass runs inside backward
            return
        # Of the whole call: reentrant checkpointing switches gradients off inside it.
        if self._needs_grad and not (self._has_grad or [torch.is_grad_enabled()])[-1]:
            return
        with torch.inference_mode(False), torch.no_grad():
            h = all_neurons(self._mesh, h.detach(), site.d_ff)
            if h.size(-1) != site.d_ff:
                raise ValueError(f"site {site.name!r}: {site.down} got {h.size(-1)} neurons, the site has {site.d_ff}")
            if numbers is None:
                is_gathered = site.order == "gathered"
                self._on_map(site, *(self._padding.split_gathered if is_gathered else self._split)(site, h))
                return
            key = site.name, id(numbers.grid_BS1)
            if key not in self._laid:  # once for all experts; with the numbers, so that others do not take their id
                self._laid[key] = numbers, self._split(site, numbers.grid_BS1)
            self._on_map(site, h[:, None], at_experts(numbers.of, *self._laid[key][1]))

    def _split(self, site: Site, h: Tensor) -> tuple[Tensor, Tokens]:
        return self._sequences.place(site, *self._padding.split(site, h))


def _below(prefix: str, site: Site) -> Site:
    """A site found in a submodule, under its name in the whole model."""
    up, down = f"{prefix}.{site.up}", f"{prefix}.{site.down}"
    name = ".".join(filter(None, (prefix, site.name)))
    return replace(site, name=name, up=up, down=down, gate=site.gate and f"{prefix}.{site.gate}")


def _guarded(owner: nn.Module, hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook for `owner` alone and outside dry runs: copies of a watched model carry its hooks along."""
    is_owner = weakref.ref(owner)

    def guarded(module: nn.Module, *args: Any) -> None:
        if not is_tracing() and (is_owner() is module or getattr(module, "_is_replica", False)):
            hook(module, *args)

    return eager(guarded)


def eager(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, kept out of compiled code; a process that never compiles does not load dynamo."""
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def forget_compiled() -> None:
    """Discard compiled code: it would silently ignore hooks added since, and keep those removed since."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
