"""Count which neurons fire while a model runs, exactly and without changing the model."""

import inspect
import math
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from lazyneuron.sites import Site, clean_name, find_sites_in_call, is_tracing, unwrap

_PRODUCTS = {"linear", "matmul", "__matmul__", "mm", "bmm", "grouped_mm", "_grouped_mm", "grouped_mm_fallback"}
_RELU_LIKE = {"relu", "relu^2", "relu6"}


def watch(model: nn.Module, sites: Sequence[Site] | None = None) -> "Probe":
    """Count the nonzeros of every activation map while the returned context is open.

    Without `sites`, the first call of `model` inside finds them, by one more forward pass on a copy of its inputs
    (see `find_sites`). Outputs, gradients and random state stay the same to the bit, with two exceptions in which torch
    itself takes another path beside hooks: `nn.TransformerEncoderLayer` leaves its fused inference path, and compiled
    models are compiled anew, with a graph break at each site, on entering and again on leaving.

    Every token that an MLP processes counts once, also under gradient checkpointing; padding does not count, as told by
    `attention_mask` (and `decoder_attention_mask`) of the call of `model` itself. In training mode, entries that
    dropout zeroed before the down projection are inactive: measure density in eval mode.
    """
    return Probe(model, sites)


class Probe:
    """Counts per site: open it with `with`, read it any time. Re-opening goes on counting.

    Active means strictly nonzero; NaN is nonzero. Reading waits for the device, counting never does.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site] | None = None) -> None:
        self._model = model
        self._sites = None if sites is None else list(sites)
        self._counts: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._bare: _BareWeights | None = None
        self._masks: dict[str, Any] = {}
        self._warned: set[str] = set()

    @property
    def sites(self) -> list[Site]:
        """The watched sites; RuntimeError before they are known."""
        if self._sites is None:
            raise RuntimeError("no site is known yet: call the model inside `with watch(model) as probe:` first")
        return self._sites

    @property
    def num_tokens(self) -> dict[str, int]:
        """Tokens seen by each site, padding left out."""
        return {name: int(counts[-1]) for name, counts in self.state().items()}

    @property
    def num_active(self) -> dict[str, float]:
        """Mean number of active neurons per token at each site; nan where no token was seen."""
        return {
            name: int(counts[:-1].sum()) / int(counts[-1]) if int(counts[-1]) else math.nan
            for name, counts in self.state().items()
        }

    @property
    def density(self) -> dict[str, float]:
        """Nonzero fraction of each site's activation map, in [0, 1]; nan where no token was seen."""
        return {name: active / (len(self._counts[name]) - 1) for name, active in self.num_active.items()}

    @property
    def firing_rate(self) -> dict[str, Tensor]:
        """Fraction of the tokens at which each neuron was active: float64 of shape [F] per site."""
        return {name: counts[:-1].double() / counts[-1] for name, counts in self.state().items()}

    def state(self) -> dict[str, Tensor]:
        """The raw counts: per site int64 [F + 1], how often each neuron was active, then the number of tokens.

        These are the live tensors: an in-place sum over ranks (`torch.distributed.all_reduce`) merges the ranks.
        """
        for site in self.sites:
            self._counts.setdefault(site.name, torch.zeros(site.d_ff + 1, dtype=torch.int64))
        return self._counts

    def merge(self, other: "Probe") -> None:
        """Add the counts of another probe (of another batch, rank or copy of the model)."""
        if self._sites is None:
            self._sites = list(other.sites)
        mine = {site.name: site for site in self._sites}
        for site in other.sites:
            known = mine.get(site.name, site)
            if known.d_ff != site.d_ff:
                raise ValueError(f"cannot merge site {site.name!r}: d_ff is {known.d_ff} here and {site.d_ff} there")
        self._sites += [site for site in other.sites if site.name not in mine]
        state = self.state()
        for name, counts in other.state().items():
            state[name] += counts.to(state[name].device)

    def table(self) -> str:
        """One line per site: activation, d_ff, tokens, active neurons per token, density in percent."""
        head = ("site", "activation", "d_ff", "tokens", "active/token", "density %")
        tokens, active, density = self.num_tokens, self.num_active, self.density
        rows: list[tuple[str, ...]] = [head]
        for site in self.sites:
            key, activation = site.name, ("gated " if site.gate else "") + site.activation
            numbers = (str(tokens[key]), f"{active[key]:.1f}", f"{100 * density[key]:.2f}")
            rows.append((key or "(model)", activation, str(site.d_ff), *numbers))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        smooth = sorted({site.activation for site in self.sites} - _RELU_LIKE)
        if smooth:
            lines.append(f"note: {', '.join(smooth)}: rarely zero exactly, so density says little")
        return "\n".join(lines)

    def __enter__(self) -> Self:
        if self._handles:
            raise RuntimeError("this probe is open already; nest another watch(model) instead")
        _forget_compiled()
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
            if self._sites is not None:
                self._attach(self._sites)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._bare is not None:
            self._bare.__exit__(kind, error, trace)
            unseen = [name for name in self._bare.names if error is None and name not in self._bare.seen]
            self._bare = None
            if unseen:
                warnings.warn(f"no product with the bare down weight was seen at {', '.join(unseen)}", stacklevel=2)
        _forget_compiled()

    def _on_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_tracing():
            return
        names = inspect.signature(unwrap(module).forward).parameters
        self._masks = dict(zip(names, args, strict=False)) | kwargs
        if self._sites is None:
            sites = find_sites_in_call(module, args, kwargs)
            self._attach(sites)
            self._sites = sites

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
            self._bare = _BareWeights(bare, self._count)
            self._bare.__enter__()

    def _hook(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            is_conv = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            self._count(site, args[0].movedim(-1 - len(module.kernel_size), -1) if is_conv else args[0])

        return hook

    def _count(self, site: Site, h: Tensor) -> None:
        """Add an activation map, shape [..., F]."""
        recomputing = torch._C._current_graph_task_id() != -1  # a checkpoint's second forward runs inside backward
        if is_tracing() or recomputing:
            return
        if h.shape[-1] != site.d_ff:
            raise ValueError(f"site {site.name!r}: {site.down} got {h.shape[-1]} neurons, the site has {site.d_ff}")
        counts = self._counts.get(site.name)
        with torch.inference_mode(False), torch.no_grad():
            if counts is None or counts.device != h.device:
                before = 0 if counts is None else counts.to(h.device)
                counts = torch.zeros(site.d_ff + 1, dtype=torch.int64, device=h.device) + before
                self._counts[site.name] = counts
            active_TF = (h.detach() != 0).reshape(-1, site.d_ff)
            tokens = active_TF.shape[0]
            mask = self._mask(site, h.shape[:-1])
            if mask is not None:
                mask = mask.to(h.device)
                active_TF, tokens = active_TF & mask[:, None], mask.sum()
            counts[:-1] += active_TF.sum(0)
            counts[-1] += tokens

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


class _BareWeights(TorchFunctionMode):
    """Sees the products with down weights that no module of their own holds (3-D experts, functional MLPs)."""

    def __init__(self, bare: list[tuple[Tensor, Site]], count: Callable[[Site, Tensor], None]) -> None:
        super().__init__()
        self.bare = bare
        self.names = [site.name for _, site in bare]
        self.count = count
        self.seen: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _PRODUCTS and len(args) >= 2 and not is_tracing():
            x, w = args[:2]
            storage = w.untyped_storage().data_ptr()
            for down, site in self.bare:
                if storage == down.untyped_storage().data_ptr() and x.shape[-1] == site.d_ff:
                    self.seen.add(site.name)
                    self.count(site, x)
        return func(*args, **(kwargs or {}))


def _two_stacks(model: nn.Module) -> bool:
    return "decoder_attention_mask" in inspect.signature(model.forward).parameters


def _eager(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Keep dynamo out of a hook; a process that never compiles does not load it."""
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def _forget_compiled() -> None:
    """Code compiled before the hooks came would ignore them silently, and code compiled with them would keep them."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
