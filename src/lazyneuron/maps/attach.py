"""Hooks that see every activation map of a model as it runs, with its padding told apart, and leave no trace."""

import inspect
import math
import sys
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lazyneuron.maps.bare_products import BareWeights
from lazyneuron.sites import (
    NoSitesError,
    Site,
    SiteChoice,
    clean_name,
    find_sites_in_call,
    given_sites,
    is_tracing,
    matching,
    unwrap,
)

OnMap = Callable[[Site, Tensor, Tensor | None], None]
"""Takes a site, its activation maps [B, S, F] (B sequences of S tokens), and which are real [B, S] (None: all)."""


class Hooks:
    """Calls `on_map` for each activation map while open.

    Unless given as a list, the sites are found at the model's first call and told to `on_sites`. Maps of a checkpoint's
    second forward pass, of the tracing pass itself, and of copies of the model are left out. With `is_first`, maps are
    seen before hooks that are there already change them.
    """

    def __init__(
        self, model: nn.Module, on_map: OnMap, on_sites: Callable[[list[Site]], None], is_first: bool = False
    ) -> None:
        self._model, self._on_map, self._on_sites, self._is_first = model, on_map, on_sites, is_first
        self._choice: SiteChoice = None
        self._waits_for_sites = False
        self._attached: list[Site] = []
        self._handles: list[RemovableHandle] = []
        self._bare: list[BareWeights] = []
        self._masks: dict[str, Any] = {}
        self._before_dropout: dict[str, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._warned: set[str] = set()
        self._has_two_masks = "decoder_attention_mask" in inspect.signature(unwrap(model).forward).parameters

    def open(self, sites: SiteChoice) -> None:
        """Begin to see; RuntimeError if open already."""
        if self._handles:
            raise RuntimeError("this probe is open already; nest another watch(model) instead")
        given = given_sites(self._model, sites)
        _forget_compiled()
        self._choice, self._waits_for_sites = sites, given is None
        try:
            self._on(self._model, self._on_call, self._on_return)
            get_encoder: Any = getattr(unwrap(self._model), "get_encoder", None)
            if self._has_two_masks and callable(get_encoder):
                self._on(get_encoder(), self._on_encoder, self._on_encoded)  # `generate` calls it by itself, first
            if given is not None:
                self._attach(given)
        except BaseException:
            self.close(is_error=True)
            raise

    def close(self, is_error: bool) -> None:
        """Remove every hook; warn of sites that should have been seen and were not, unless after an error."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        unseen = []
        for bare in reversed(self._bare):
            bare.__exit__(None, None, None)
            unseen += [name for name in bare.names if name not in bare.seen]
        self._bare.clear()
        self._attached.clear()
        self._masks, self._before_dropout = {}, {}
        _forget_compiled()
        if unseen and not is_error:
            warnings.warn(f"no product with the bare down weight was seen at {', '.join(unseen)}", stacklevel=3)

    def _on(self, module: Any, before: Callable[..., None], after: Callable[..., None]) -> None:
        # First in line: what finds the sites calls the model, and must not do so between the hooks of FSDP.
        self._handles += [
            module.register_forward_pre_hook(_eager(_only(module, before)), with_kwargs=True, prepend=True),
            module.register_forward_hook(_eager(_only(module, after)), always_call=True),
        ]

    def _on_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_tracing():
            return
        self._masks = _named(unwrap(module), args, kwargs)
        if self._waits_for_sites:
            self._found(find_sites_in_call(module, args, kwargs))
            self._waits_for_sites = False

    def _on_return(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not is_tracing():
            self._masks = {}

    def _on_encoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_tracing():
            return
        self._masks = self._masks | {"attention_mask": _named(module, args, kwargs).get("attention_mask")}
        if self._waits_for_sites:
            root = unwrap(self._model)
            prefix = next(clean_name(name) for name, m in root.named_modules() if m is module)
            try:
                self._found([_below(prefix, site) for site in find_sites_in_call(module, args, kwargs)], partly=True)
            except NoSitesError:
                return  # the model's own call may still find some

    def _on_encoded(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not is_tracing():
            self._masks.pop("attention_mask", None)

    def _found(self, sites: list[Site], partly: bool = False) -> None:
        known = {site.name for site in self._attached}
        new = [site for site in sites if site.name not in known]
        assert self._choice is None or isinstance(self._choice, str)
        chosen = matching([*self._attached, *new], self._choice)
        self._attach([site for site in chosen if site.name not in known])
        self._on_sites(list(self._attached))

    def _attach(self, sites: Sequence[Site]) -> None:
        model = unwrap(self._model)
        parameters = {clean_name(name): p for name, p in model.named_parameters(remove_duplicate=False)}
        modules = {clean_name(name): module for name, module in model.named_modules()}
        bare: list[tuple[Tensor, Site]] = []
        for site in sites:
            down = parameters[site.down]
            owners = [m for m in modules.values() if any(p is down for p in m._parameters.values())]
            path, parametrized, _ = site.down.partition(".parametrizations.")
            if parametrized:
                owners = [modules[path]]
            elif not all({"weight"} <= owner._parameters.keys() <= {"weight", "bias"} for owner in owners):
                bare.append((down, site))
                continue
            for owner in owners:
                hook = _eager(_only(owner, self._at_down(site)))
                self._handles.append(owner.register_forward_pre_hook(hook, prepend=self._is_first))
            for name, module in modules.items():
                if isinstance(module, nn.Dropout) and (not site.name or name.startswith(f"{site.name}.")):
                    hook = _eager(_only(module, self._at_dropout(site)))
                    self._handles.append(module.register_forward_hook(hook))
        self._attached += sites
        if bare:
            self._bare.append(BareWeights(bare, self._see, parameters))
            self._bare[-1].__enter__()

    def _at_down(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            h = args[0]
            dropped, before = self._before_dropout.pop(site.name, (lambda: None, h))
            is_cast = h.dtype != before.dtype and h.shape == before.shape  # T5 casts for its fp32 down projection
            h = before if dropped() is h or is_cast else h
            self._see(site, h.movedim(site.axis, -1))

        return hook

    def _at_dropout(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if module.training and isinstance(output, Tensor) and args and args[0] is not output:
                self._before_dropout[site.name] = weakref.ref(output), args[0].detach()

        return hook

    def _see(self, site: Site, h: Tensor) -> None:
        """Hand on an activation map, shape [..., F]."""
        recomputing = torch._C._current_graph_task_id() != -1  # a checkpoint's second forward runs inside backward
        if is_tracing() or recomputing:
            return
        if h.shape[-1] != site.d_ff:
            raise ValueError(f"site {site.name!r}: {site.down} got {h.shape[-1]} neurons, the site has {site.d_ff}")
        with torch.inference_mode(False), torch.no_grad():
            mask_T = self._mask(site, h.shape[:-1])
            self._hand_on(site, h.detach(), None if mask_T is None else mask_T.to(h.device))

    def _hand_on(self, site: Site, h: Tensor, mask_T: Tensor | None) -> None:
        """h as [B, S, F]: where a model flattened the two, a mask tells them, and without one each token is alone."""
        if h.dim() > 2:
            h_BSF = h.flatten(1, -2)
        else:
            mask: Any = self._masks.get("attention_mask")
            is_told = mask_T is not None and isinstance(mask, Tensor) and mask.numel() == len(h)
            h_BSF = h.reshape(*(mask.shape if is_told else (-1, 1)), h.shape[-1])
        self._on_map(site, h_BSF, None if mask_T is None else mask_T.reshape(h_BSF.shape[:2]))

    def _mask(self, site: Site, tokens: Sequence[int]) -> Tensor | None:
        """Which of the site's tokens are real, as bool of shape [T]; None if all are."""
        path = site.down.split(".")
        if "pixel_values" in self._masks and any(word in part for part in path for word in ("vision", "visual")):
            return None  # the mask is the text's
        in_decoder = any(part.startswith("decoder") for part in path)
        name = "decoder_attention_mask" if in_decoder and self._has_two_masks else "attention_mask"
        mask: Any = self._masks.get(name)
        if not isinstance(mask, Tensor):
            return None
        if mask.dim() == 2 and mask.numel():
            length = math.prod(tokens) // len(mask)
            if self._masks.get("past_key_values") is not None:  # the mask also covers the cached tokens
                mask = mask[:, -length:]
            is_flat = sum(size > 1 for size in tokens) <= 1
            if math.prod(tokens) == mask.numel() and (is_flat or tuple(tokens) == mask.shape):
                return (mask != 0).reshape(-1)
        if site.name not in self._warned:
            self._warned.add(site.name)
            warnings.warn(
                f"site {site.name!r}: {name} of shape {tuple(mask.shape)} does not fit its tokens {tuple(tokens)}; "
                "all of them are counted, padding included",
                stacklevel=2,
            )
        return None


def _named(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs


def _below(prefix: str, site: Site) -> Site:
    """A site found in a submodule, as the whole model names it."""
    up, down = f"{prefix}.{site.up}", f"{prefix}.{site.down}"
    name = ".".join(filter(None, (prefix, site.name)))
    return replace(site, name=name, up=up, down=down, gate=site.gate and f"{prefix}.{site.gate}")


def _only(owner: nn.Module, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a watched model carries its hooks along: they must not count for the original."""
    is_owner = weakref.ref(owner)

    def checked(module: nn.Module, *args: Any) -> Any:
        return hook(module, *args) if is_owner() is module or getattr(module, "_is_replica", False) else None

    return checked


def _eager(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Keep dynamo out of a hook; a process that never compiles does not load it."""
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def _forget_compiled() -> None:
    """Code compiled before the hooks came would ignore them silently, and code compiled with them would keep them."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
