"""Which tokens of a call are real and which are padding, from the masks that the model and its parts get."""

import functools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lazyneuron.maps.mask_readers import MaskReader, mask_reader, readers_around
from lazyneuron.maps.masks import behind_start, from_attention_mask, from_labels, from_padding_mask, from_pixel_mask
from lazyneuron.maps.nested import padded
from lazyneuron.maps.owners import Layout
from lazyneuron.maps.tokens import Tokens
from lazyneuron.maps.unread import UnreadPadding
from lazyneuron.sites import Site, unwrap


class _Found(NamedTuple):
    """Which tokens of a map are real; or the name and value of a mask that does not fit, if there is a mask."""

    is_real_BS: Tensor | None = None
    misfit: tuple[str, Any] | None = None
    has_mask: bool = True


class Padding:
    """Lays the masks of the current call over activation maps; warns once per site where a mask does not fit."""

    def __init__(self, model: nn.Module) -> None:
        self._root = mask_reader("", unwrap(model))
        self.has_two_masks = "decoder_attention_mask" in self._root.parameters
        self._inputs: dict[str, dict[str, Any]] = {}  # of the calls in progress, by the name of the module
        # By site and from the inside out: which module takes masks, whether for its decoder, and by which names.
        self._masks: dict[str, tuple[tuple[MaskReader, bool, tuple[str, ...]], ...]] = {}
        self._is_sequence_first: dict[str, bool] = {}  # by site
        self._found: dict[tuple[Any, ...], _Found] = {}  # in this call
        self._unread = UnreadPadding(unwrap(model))
        self._has_unmasked = False
        self._warned: set[str] = set()

    def around(self, layout: Layout, sites: Sequence[Site]) -> dict[MaskReader, nn.Module]:
        """The parts of the model around new sites that take masks: their calls are to be `read`."""
        new: dict[MaskReader, nn.Module] = {}
        for site in sites:
            inner, is_sequence_first = readers_around(layout, site, self._root)
            is_traced = site.order == "sequence"
            self._is_sequence_first[site.name] = is_traced if is_sequence_first is None else is_sequence_first
            readers = (*(reader for _, reader in inner), self._root)
            self._masks[site.name] = tuple((r, r.is_decoder_of(site), tuple(r.masks(site))) for r in readers)
            new |= {reader: module for module, reader in inner}
        return new

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Read the inputs of a call of the model, until `end`."""
        self._inputs.clear()
        self.read(self._root, args, kwargs)

    def read(self, reader: MaskReader, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Read the masks of a call of a part of the model, until its next call or `end`."""
        self._inputs[reader.name] = reader.read(args, kwargs)
        self._found.clear()

    def end(self) -> None:
        """The call is over."""
        if self._has_unmasked and self._root.name in self._inputs:
            self._unread.warn_of(self._inputs[self._root.name])
        self._has_unmasked = False
        self._inputs.clear()
        self._found.clear()

    def split(self, site: Site, h: Tensor) -> tuple[Tensor, Tokens]:
        """A map [..., F] as sequences [B, S, F], and what their tokens are.

        Nested maps hold real tokens alone. Where the model has flattened its sequences, the mask restores them; without
        one each token is a sequence.
        """
        if h.is_nested:
            h_BSF, is_real_BS = padded(h)
            return h_BSF, Tokens(is_real_BS)
        is_sequence_first = self._is_sequence_first.get(site.name, False)
        is_real_BS = self._real_tokens(site, h.shape[:-1])
        given = [ids.shape for ids in self._ids(site)] if is_real_BS is None else [is_real_BS.shape]
        if h.dim() > 2:
            h_BSF = h.flatten(1, -2)
            is_plain, is_turned = h_BSF.shape[:2] in given, h_BSF.shape[1::-1] in given
            if is_sequence_first if is_plain == is_turned else is_turned:
                h_BSF = h_BSF.transpose(0, 1)
        else:
            B, S = (h.numel() // h.shape[-1], 1) if is_real_BS is None else is_real_BS.shape
            F = h.shape[-1]
            h_BSF = h.reshape(S, B, F).transpose(0, 1) if is_sequence_first else h.reshape(B, S, F)
        B, S, _ = h_BSF.shape
        ids = next((ids for ids in self._ids(site) if ids.shape == (B, S)), None)
        on = h.device
        return h_BSF, Tokens(
            is_real_BS if is_real_BS is None else is_real_BS.to(on), ids if ids is None else ids.to(on)
        )

    def split_gathered(self, site: Site, h: Tensor) -> tuple[Tensor, Tokens]:
        """The same where a router has sent the model's tokens to the site in an unknown order: no mask fits them.

        Each counts as a sequence of its own; if some are padding, a warning names the site.
        """
        rows = next((x for x in (*self._ids(site), *self._row_masks(site))), None)
        is_real_BS = None if rows is None or site.name in self._warned else self._real_tokens(site, rows.shape)
        if is_real_BS is not None and not is_real_BS.all():
            self._warned.add(site.name)
            warnings.warn(
                f"site {site.name!r}: a router sends it tokens in an order of its own, which the masks do not follow; "
                "all its tokens are counted, including padding",
                stacklevel=2,
            )
        return h.reshape(-1, 1, h.shape[-1]), Tokens(
            position_BS=h.new_full((h[..., 0].numel(), 1), -1, dtype=torch.long)
        )

    def _real_tokens(self, site: Site, tokens: Sequence[int]) -> Tensor | None:
        masks = self._masks[site.name]
        key = (*masks, *tokens)
        if key not in self._found:
            self._found[key] = self._lay(masks, tokens)
        found = self._found[key]
        self._has_unmasked |= not found.has_mask
        if found.misfit and site.name not in self._warned:
            self._warned.add(site.name)
            name, mask = found.misfit
            kind = f"shape {tuple(mask.shape)}" if hasattr(mask, "shape") else f"type {type(mask).__name__}"
            warnings.warn(
                f"site {site.name!r}: {name} of {kind} does not fit its tokens {tuple(tokens)}; "
                "all tokens are counted, including padding",
                stacklevel=2,
            )
        return found.is_real_BS

    def _lay(self, masks: Any, tokens: Sequence[int]) -> _Found:
        misfit: tuple[str, Any] | None = None
        rows: list[Tensor] = []
        others: list[tuple[str, Any, dict[str, Any]]] = []  # asked where no mask has one entry a token
        for reader, is_decoder, names in masks:
            inputs = self._inputs.get(reader.name, {})
            given = [name for name in names if inputs.get(name) is not None]
            others += [(name, inputs[name], inputs) for name in given]
            if is_decoder and not given and (shown := _from_inputs(reader, inputs, tokens)) is not None:
                rows.append(shown)
        for of_rows in (True, False):
            for name, mask, inputs in others:
                if (isinstance(mask, Tensor) and mask.dim() == 2) is not of_rows or (rows and not of_rows):
                    continue
                is_real_BS = _from_mask(name, mask, inputs, tokens)
                if is_real_BS is None or not _fits(is_real_BS, tokens):
                    misfit = misfit or ((name, mask) if _masks_some(name, mask) else None)
                elif not rows or rows[0].shape == is_real_BS.shape:
                    rows.append(is_real_BS)
        if not rows:
            return _Found(None, misfit, bool(others))
        return _Found(functools.reduce(torch.logical_and, rows))

    def _ids(self, site: Site) -> Iterator[Tensor]:
        """The token ids that the modules around a site were called with, from the inside out."""
        for reader, is_decoder, _ in self._masks[site.name]:
            ids = self._inputs.get(reader.name, {}).get("decoder_input_ids" if is_decoder else "input_ids")
            if isinstance(ids, Tensor):
                yield ids

    def _row_masks(self, site: Site) -> Iterator[Tensor]:
        """The masks [B, S] that the modules around a site were called with, from the inside out."""
        for reader, _, names in self._masks[site.name]:
            given = (self._inputs.get(reader.name, {}).get(name) for name in names)
            yield from (mask for mask in given if isinstance(mask, Tensor) and mask.dim() == 2)


def _fits(is_real_BS: Tensor, tokens: Sequence[int]) -> bool:
    """Whether rows of real tokens can be laid over a map with these axes: flat, a grid by row, or sequence first."""
    is_flat = sum(size > 1 for size in tokens) <= 1
    B, S = is_real_BS.shape
    is_sequence_first = len(tokens) == 2 and tuple(tokens) == (S, B)
    return math.prod(tokens) == B * S and (is_flat or is_sequence_first or tokens[0] == B)


def _masks_some(name: str, mask: Any) -> bool:
    """Whether a mask leaves anything out; one that cannot be read may do so."""
    is_of_padding = name.endswith("key_padding_mask") or name == "input_mask"
    return not isinstance(mask, Tensor) or bool((mask != 0).any() if is_of_padding else (mask == 0).any())


def _from_mask(name: str, mask: Any, inputs: Mapping[str, Any], tokens: Sequence[int]) -> Tensor | None:
    if name == "pixel_mask":
        return from_pixel_mask(mask, tokens)
    if name.endswith("key_padding_mask") or name == "input_mask":
        return from_padding_mask(mask, math.prod(tokens))
    return from_attention_mask(mask, math.prod(tokens), inputs.get("past_key_values") is not None)


def _from_inputs(reader: MaskReader, inputs: Mapping[str, Any], tokens: Sequence[int]) -> Tensor | None:
    """Real tokens of a decoder without a mask: its inputs are the labels, or else the encoder's tokens, moved right."""
    labels, ids = inputs.get("labels"), inputs.get("decoder_input_ids")
    if isinstance(labels, Tensor) and labels.dim() == 2 and labels.numel() == math.prod(tokens):
        return from_labels(labels, ids, reader.pad)
    mask = inputs.get("attention_mask")
    is_own = ids is None and inputs.get("decoder_inputs_embeds") is None and inputs.get("input_ids") is not None
    if is_own and isinstance(mask, Tensor) and mask.dim() == 2 and mask.numel() == math.prod(tokens):
        return behind_start(mask != 0)
    return None
