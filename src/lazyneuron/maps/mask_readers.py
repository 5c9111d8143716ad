"""Which modules around a site take masks, and which of their masks are about the site's own tokens."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lazyneuron.maps.owners import Layout
from lazyneuron.sites import Site

_OWN = ("attention_mask", "src_key_padding_mask", "key_padding_mask", "input_mask", "pixel_mask")
_DECODER = ("decoder_attention_mask", "tgt_key_padding_mask")
_OTHER_INPUTS = {"input_ids", "decoder_input_ids", "decoder_inputs_embeds", "labels", "past_key_values", "pixel_values"}


@dataclass(frozen=True)
class MaskReader:
    """A module that takes masks: its name ("" for the whole model), the names of its inputs, and its pad token."""

    name: str
    parameters: tuple[str, ...]
    pad: int | None = None

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The masks among the inputs of a call, and what else tells padding."""
        named = dict(zip(self.parameters, args, strict=False)) | {**kwargs}
        if "query" in named and named["query"] is not named.get("key"):  # attention to other tokens
            return {}
        return {name: value for name, value in named.items() if "mask" in name or name in _OTHER_INPUTS}

    @property
    def takes_masks(self) -> bool:
        return any(name in self.parameters for name in (*_OWN, *_DECODER))

    def is_decoder_of(self, site: Site) -> bool:
        """Whether the site's tokens are those that decoder masks are about, in a module that may have two stacks."""
        if "tgt_key_padding_mask" in self.parameters and "src_key_padding_mask" not in self.parameters:
            return True
        inside = site.down.removeprefix(f"{self.name}.").split(".")
        return any(name in self.parameters for name in _DECODER) and any(p.startswith("decoder") for p in inside)

    def masks(self, site: Site) -> list[str]:
        """The names of the masks that are about the site's own tokens."""
        inside, images = site.down.split("."), ("vision", "visual")
        if _has(inside, images) and not _has(self.name.split("."), images) and "pixel_values" in self.parameters:
            return []  # the masks are the text's
        names = _DECODER if self.is_decoder_of(site) else _OWN
        # XLNet's; others mean the opposite by that name.
        return [n for n in names if n in self.parameters and (n != "input_mask" or "perm_mask" in self.parameters)]


def mask_reader(name: str, module: nn.Module) -> MaskReader:
    """The reader of a module with that name in the model."""
    pad: Any = getattr(getattr(module, "config", None), "pad_token_id", None)
    return MaskReader(name, tuple(inspect.signature(module.forward).parameters), pad if isinstance(pad, int) else None)


def readers_around(
    layout: Layout, site: Site, root: MaskReader
) -> tuple[list[tuple[nn.Module, MaskReader]], bool | None]:
    """The modules around a site below the model that take masks, from the inside out, and the order of its tokens.

    The order is True (False) where `nn.MultiheadAttention` beside the site has the sequence (the batch) first, None
    where there is none. Layers of a stack that takes masks itself are left out: their masks repeat the stack's.
    """
    path = site.down.split(".")[:-1]
    names = [".".join(path[:end]) for end in range(1, len(path) + 1)]
    found: list[tuple[nn.Module, MaskReader]] = []
    for name in names:
        if found and any(part.isdigit() for part in name.split(".")):
            break
        reader = mask_reader(name, layout.modules[name])
        if reader.takes_masks:
            found.append((layout.modules[name], reader))
    attention = _attention_beside(layout, names)
    if not found and not root.takes_masks:
        found = [(module, mask_reader(name, module)) for name, module in attention.items()]
    first = next(iter(attention.values()), None)
    return found[::-1], None if first is None else not first.batch_first


def _attention_beside(layout: Layout, names: list[str]) -> dict[str, nn.MultiheadAttention]:
    """The attention modules in the nearest module around the site that has any, by name."""
    for name in [*reversed(names), ""]:
        module = layout.modules[name]
        inside = module.named_modules(prefix=name) if name else module.named_children()
        if found := {n: module for n, module in inside if isinstance(module, nn.MultiheadAttention)}:
            return found
    return {}


def _has(path: list[str], words: tuple[str, ...]) -> bool:
    return any(word in part for part in path for word in words)
