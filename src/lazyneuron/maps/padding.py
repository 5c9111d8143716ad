"""Which tokens of a call are real and which are padding, from the attention masks that the model was called with."""

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lazyneuron.maps.nested import padded
from lazyneuron.maps.tokens import Tokens
from lazyneuron.sites import Site, unwrap


class Padding:
    """Lays the masks of the current call over activation maps; warns once per site where a mask does not fit."""

    def __init__(self, model: nn.Module) -> None:
        self.has_two_masks = "decoder_attention_mask" in inspect.signature(unwrap(model).forward).parameters
        self._inputs: dict[str, Any] = {}
        self._warned: set[str] = set()

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Read the masks of a call of the model, until `end`."""
        self._inputs = _named(unwrap(module), args, kwargs)

    def begin_encoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Read the mask of a call of the encoder (`generate` calls it outside the model), until `end_encoder`."""
        self._inputs = self._inputs | {"attention_mask": _named(module, args, kwargs).get("attention_mask")}

    def end_encoder(self) -> None:
        self._inputs.pop("attention_mask", None)

    def end(self) -> None:
        self._inputs = {}

    def split(self, site: Site, h: Tensor) -> tuple[Tensor, Tokens]:
        """A map [..., F] as sequences [B, S, F], and what their tokens are.

        Nested maps hold real tokens alone. Where the model has flattened its sequences, the mask restores them; without
        one each token is a sequence.
        """
        if h.is_nested:
            h_BSF, is_real_BS = padded(h)
            return h_BSF, Tokens(is_real_BS)
        is_real_BS = self._real_tokens(site, h.shape[:-1])
        if h.dim() > 2:
            h_BSF = h.flatten(1, -2)
        else:
            h_BSF = h.reshape(*((-1, 1) if is_real_BS is None else is_real_BS.shape), h.shape[-1])
        B, S, _ = h_BSF.shape
        is_real_BS = None if is_real_BS is None else is_real_BS.reshape(B, S).to(h.device)
        ids: Any = self._inputs.get("input_ids")
        fits = isinstance(ids, Tensor) and ids.shape == (B, S)
        return h_BSF, Tokens(is_real_BS, ids.to(h.device) if fits else None)

    def _real_tokens(self, site: Site, tokens: Sequence[int]) -> Tensor | None:
        path = site.down.split(".")
        if "pixel_values" in self._inputs and any(word in part for part in path for word in ("vision", "visual")):
            return None  # the mask is the text's
        in_decoder = any(part.startswith("decoder") for part in path)
        name = "decoder_attention_mask" if in_decoder and self.has_two_masks else "attention_mask"
        mask: Any = self._inputs.get(name)
        if not isinstance(mask, Tensor):
            return None
        if mask.dim() == 2 and mask.numel():
            length = math.prod(tokens) // len(mask)
            if self._inputs.get("past_key_values") is not None:  # the mask also covers the cached tokens
                mask = mask[:, -length:]
            is_flat = sum(size > 1 for size in tokens) <= 1
            if math.prod(tokens) == mask.numel() and (is_flat or tuple(tokens) == mask.shape):
                return mask != 0
        if site.name not in self._warned:
            self._warned.add(site.name)
            warnings.warn(
                f"site {site.name!r}: {name} of shape {tuple(mask.shape)} does not fit its tokens {tuple(tokens)}; "
                "all tokens are counted, including padding",
                stacklevel=2,
            )
        return None


def _named(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | {**kwargs}
