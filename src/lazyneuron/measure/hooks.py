"""Hooks that see every activation map of a model as it runs, with its padding told apart, and leave no trace."""

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lazyneuron.measure.bare import BareWeights
from lazyneuron.measure.statistics import Maps
from lazyneuron.sites import Site, clean_name, find_sites_in_call, is_tracing, unwrap


class Hooks:
    """Calls `on_maps(site, maps)` for each activation map while open.

    Opened without sites, it finds them at the model's first call and tells `on_sites`. Maps of a checkpoint's second
    forward pass, and of the tracing pass itself, are left out.
    """

    def __init__(
        self, model: nn.Module, on_maps: Callable[[Site, Maps], None], on_sites: Callable[[list[Site]], None]
    ) -> None:
        self._model, self._on_maps, self._on_sites = model, on_maps, on_sites
        self._waits_for_sites = False
        self._handles: list[RemovableHandle] = []
        self._bare: BareWeights | None = None
        self._masks: dict[str, Any] = {}
        self._warned: set[str] = set()

    def open(self, sites: Sequence[Site] | None) -> None:
        """Begin to see; RuntimeError if open already."""
        if self._handles:
            raise RuntimeError("this probe is open already; nest another watch(model) instead")
        _forget_compiled()
        self._waits_for_sites = sites is None
        try:
            self._handles += [
                self._model.register_forward_pre_hook(_eager(self._on_call), with_kwargs=True),
                self._model.register_forward_hook(_eager(self._on_return), always_call=True),
            ]
            inner = unwrap(self._model)
            if _two_stacks(inner) and callable(get_encoder := getattr(inner, "get_encoder", None)):
                encoder: Any = get_encoder()  # `generate` calls it by itself, before the model
                self._handles += [
                    encoder.register_forward_pre_hook(_eager(self._on_encoder), with_kwargs=True),
                    encoder.register_forward_hook(_eager(self._on_encoded), always_call=True),
                ]
            if sites is not None:
                self._attach(sites)
        except BaseException:
            self.close(is_error=True)
            raise

    def close(self, is_error: bool) -> None:
        """Remove every hook; warn of sites that should have been seen and were not, unless after an error."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._bare is not None:
            self._bare.__exit__(None, None, None)
            unseen = [] if is_error else [name for name in self._bare.names if name not in self._bare.seen]
            self._bare = None
            if unseen:
                warnings.warn(f"no product with the bare down weight was seen at {', '.join(unseen)}", stacklevel=3)
        _forget_compiled()

    def _on_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_tracing():
            return
        names = inspect.signature(unwrap(module).forward).parameters
        self._masks = dict(zip(names, args, strict=False)) | kwargs
        if self._waits_for_sites:
            sites = find_sites_in_call(module, args, kwargs)
            self._attach(sites)
            self._waits_for_sites = False
            self._on_sites(sites)

    def _on_return(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not is_tracing():
            self._masks = {}

    def _on_encoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not is_tracing():
            given = dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs
            self._masks = self._masks | {"attention_mask": given.get("attention_mask")}

    def _on_encoded(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not is_tracing():
            self._masks.pop("attention_mask", None)

    def _attach(self, sites: Sequence[Site]) -> None:
        if len({site.name for site in sites}) < len(sites):
            raise ValueError(f"two sites share a name: {sorted(site.name for site in sites)}")
        model = unwrap(self._model)
        parameters = {clean_name(name): parameter for name, parameter in model.named_parameters()}
        modules = {clean_name(name): module for name, module in model.named_modules()}
        bare: list[tuple[Tensor, Site]] = []
        for site in sites:
            if site.down not in parameters:
                raise ValueError(f"site {site.name!r}: {type(model).__name__} has no parameter {site.down!r}")
            down = parameters[site.down]
            owners = [m for m in modules.values() if any(p is down for p in m._parameters.values())]
            path, parametrized, _ = site.down.partition(".parametrizations.")
            if parametrized:
                owners = [modules[path]]
            elif not all({"weight"} <= owner._parameters.keys() <= {"weight", "bias"} for owner in owners):
                bare.append((down, site))
                continue
            for owner in owners:
                self._handles.append(owner.register_forward_pre_hook(_eager(self._hook(site))))
        if bare:
            self._bare = BareWeights(bare, self._see)
            self._bare.__enter__()

    def _hook(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            is_conv = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            self._see(site, args[0].movedim(-1 - len(module.kernel_size), -1) if is_conv else args[0])

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
            self._on_maps(site, self._maps(h.detach(), None if mask_T is None else mask_T.to(h.device)))

    def _maps(self, h: Tensor, mask_T: Tensor | None) -> Maps:
        """h as [B, S, F]: where a model flattened the two, a mask tells them, and without one each token is alone."""
        if h.dim() > 2:
            h_BSF = h.reshape(len(h), -1, h.shape[-1])
        else:
            mask: Any = self._masks.get("attention_mask")
            is_told = mask_T is not None and isinstance(mask, Tensor) and mask.numel() == len(h)
            h_BSF = h.reshape(*(mask.shape if is_told else (-1, 1)), h.shape[-1])
        return Maps(h_BSF, None if mask_T is None else mask_T.reshape(h_BSF.shape[:2]))

    def _mask(self, site: Site, tokens: Sequence[int]) -> Tensor | None:
        """Which of the site's tokens are real, as bool of shape [T]; None if all are."""
        in_decoder = any(part.startswith("decoder") for part in site.down.split("."))
        name = "decoder_attention_mask" if in_decoder and _two_stacks(unwrap(self._model)) else "attention_mask"
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


def _two_stacks(model: nn.Module) -> bool:
    return "decoder_attention_mask" in inspect.signature(model.forward).parameters


def _eager(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Keep dynamo out of a hook; a process that never compiles does not load it."""
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def _forget_compiled() -> None:
    """Code compiled before the hooks came would ignore them silently, and code compiled with them would keep them."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
