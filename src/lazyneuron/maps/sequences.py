"""Where the tokens of a call stand in their sequences: over calls with a cache, left padding, and packed documents."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lazyneuron.maps.caches import ByCache, cache_in, cached_length
from lazyneuron.maps.documents import Documents
from lazyneuron.maps.ended_rows import StopTokens, rows_in_generate
from lazyneuron.maps.tokens import Tokens
from lazyneuron.sites import Site, unwrap

_NEVER = 2**62
_IDS = ("decoder_input_ids", "input_ids")


@dataclass
class _Past:
    """What is known of a cache's rows: their real tokens (-1: unknown), and which are over, in which `generate`."""

    num_real_B: Tensor | None = None
    is_over_B: Tensor | None = None
    generation: Any = None
    kept: dict[str, Tensor] = field(default_factory=dict)


class Sequences:
    """Follows the rows of a model's calls: leaves out what a row is fed after its end, and places its tokens.

    Inside `generate` its own list of finished rows decides. Elsewhere, in calls with a cache, a row of several is over
    at a token of the configuration's `eos_token_id`; `pad_token_id` and further end tokens after it are padding.

    Rows are followed by the cache that a call is given and returns. If it was changed since an earlier call (reordered
    by a beam search, cropped, copied), the tokens before are counted in the attention mask, else by the length of the
    cache, else unknown, and no token continues an earlier call.
    """

    def __init__(self, model: nn.Module, has_places: bool) -> None:
        self._names = [*inspect.signature(unwrap(model).forward).parameters]
        self._stop, self._has_places = StopTokens(unwrap(model)), has_places
        self._pasts, self._ends = ByCache(), ByCache()
        self._is_cached: dict[str, bool] = {}
        self.close()

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Read the inputs of a call of the model, until `end`."""
        self.end(None)
        self._inputs = dict(zip(self._names, args, strict=False)) | {**kwargs}
        given = (self._inputs.get(name) for name in (_IDS[0], "decoder_inputs_embeds", _IDS[1], "inputs_embeds"))
        rows = next((x for x in given if isinstance(x, Tensor) and x.dim() > 1), None)
        if rows is None:
            return
        self._rows, self._ids = rows.shape[:2], rows if rows.dim() == 2 else None
        self._generated = rows_in_generate()
        self._cache = cache_in(self._inputs)
        self._length = cached_length(self._cache)
        self._latest, self._is_same = self._pasts.get(self._cache)
        self._past = _Past() if self._latest is None or self._is_same is False else self._latest

    def end(self, output: Any) -> None:
        """The call is over: its rows go on where its cache is used again."""
        if output is not None and self._next is not None:
            cache = cache_in(output)
            self._pasts[self._cache if cache is None else cache] = self._next
        self._inputs: dict[str, Any] = {}
        self._rows, self._ids, self._generated, self._cache = None, None, None, None
        self._length: int | Tensor | None = 0
        self._latest: _Past | None = None
        self._past, self._is_same = _Past(), False
        self._next: _Past | None = None
        self._placed: dict[Any, tuple[Tokens, Tokens]] = {}
        self._documents: dict[torch.device, Documents] = {}

    def close(self) -> None:
        """Forget every cache."""
        self._pasts.clear()
        self._ends.clear()
        self._next = None
        self.end(None)

    def place(self, site: Site, h_BSF: Tensor, tokens: Tokens) -> tuple[Tensor, Tokens]:
        """The map and its tokens, without those after the end of a row, and with their places if these are asked for.

        A flat map [T, 1, F] of packed documents becomes a row [1, T, F].
        """
        documents = None
        if self._has_places:
            documents = self._documents.get(h_BSF.device) or Documents(self._inputs, h_BSF.device)
            self._documents[h_BSF.device] = documents
        if documents is not None and documents.is_flat(h_BSF.shape):
            h_BSF, real, ids = h_BSF.transpose(0, 1), tokens.is_real_BS, tokens.ids_BS
            tokens = Tokens(None if real is None else real.T, None if ids is None else ids.T)
        shape, device = h_BSF.shape[:2], h_BSF.device
        is_row = self._is_decoded(site) and shape == self._rows
        key = is_row, self._is_decoded(site), shape, device, id(tokens.is_real_BS), id(tokens.ids_BS)
        if key not in self._placed:  # beside the tokens given, so that others do not take their ids
            found = self._without_ends(tokens, shape, device) if is_row else tokens
            if documents is not None:
                is_other = not is_row and self._has_other_rows(site, shape)
                found = self._with_places(found, shape, device, documents, is_row, is_other)
            self._placed[key] = tokens, found
        return h_BSF, self._placed[key][1]

    def _is_decoded(self, site: Site) -> bool:
        """Whether the site's tokens are those that go on in later calls: those of an encoder do not."""
        if site.name not in self._is_cached:
            in_decoder = any(part.startswith("decoder") for part in site.down.split("."))
            self._is_cached[site.name] = in_decoder or _IDS[0] not in self._names
        return self._is_cached[site.name]

    def _has_other_rows(self, site: Site, shape: torch.Size) -> bool:
        """Whether a map holds the sequences' tokens in rows of other shape, so that their places cannot be known.

        Flat tokens, tokens at an expert, and rows of several codebooks; an image's patches are sequences of their own.
        """
        if self._rows is None or not self._is_decoded(site) or shape == self._rows:
            return False
        return shape[1] in (1, self._rows[1]) or shape.numel() == self._rows.numel()

    def _without_ends(self, tokens: Tokens, shape: torch.Size, device: torch.device) -> Tokens:
        B, S = shape
        self._next, is_after_BS = _Past(kept=self._next.kept if self._next else {}), None
        was_over_B = torch.zeros(B, dtype=torch.bool, device=device)
        if self._generated is not None:
            is_unfinished_B, generation = self._generated
            if len(is_unfinished_B) == B and B > 1:  # the last token of a finished row is fed once, then padding
                is_over_B = is_unfinished_B.to(device) == 0
                latest, self._next.is_over_B, self._next.generation = self._latest, is_over_B, generation
                if latest is not None and latest.is_over_B is not None and latest.generation is generation:
                    was_over_B = latest.is_over_B.to(device)
                is_after_BS = was_over_B[:, None].expand(B, S)
                if self._is_first_call:  # without a cache the rows come whole at each step
                    ends_B = self._ends.get(generation)[0]
                    ends_B = torch.full((B,), _NEVER, device=device) if ends_B is None else ends_B.to(device)
                    self._ends[generation] = ends_B = torch.where(is_over_B, ends_B.clamp(max=S), ends_B)
                    is_after_BS = torch.arange(S, device=device) >= ends_B[:, None]
        elif self._ids is not None and B > 1 and self._stop.ends:
            if self._past.is_over_B is not None:
                was_over_B = self._past.is_over_B.to(device) & self._is_same
            is_real_BS = tokens.is_real_BS
            is_real_BS = torch.ones(shape, dtype=torch.bool, device=device) if is_real_BS is None else is_real_BS
            # A first token does not end its sequence: some models begin with their end token.
            can_end_BS = is_real_BS & (is_real_BS.cumsum(1) > 1) if self._is_first_call else is_real_BS
            found_BS, self._next.is_over_B = self._stop.after_end(self._ids.to(device), can_end_BS, was_over_B)
            is_after_BS = None if self._is_first_call else found_BS
        if is_after_BS is None:
            return tokens
        return replace(tokens, is_real_BS=~is_after_BS & (True if tokens.is_real_BS is None else tokens.is_real_BS))

    @property
    def _is_first_call(self) -> bool:
        return isinstance(self._length, int) and self._length == 0

    def _with_places(
        self,
        tokens: Tokens,
        shape: torch.Size,
        device: torch.device,
        documents: Documents,
        is_row: bool,
        has_other_rows: bool,
    ) -> Tokens:
        is_real_BS = tokens.is_real_BS
        is_real_BS = torch.ones(shape, dtype=torch.bool, device=device) if is_real_BS is None else is_real_BS
        num_seen_BS = is_real_BS.cumsum(1)
        begins_BS, steps = documents.begins(is_real_BS), documents.steps(is_real_BS)
        goes_on = is_row and not documents.restart_rows
        has_plain_rows = tokens.is_real_BS is None and begins_BS is None and steps is None
        before_B1 = self._num_before(shape, device)[:, None] if goes_on and not self._is_first_call else None
        place_BS = num_seen_BS - 1 if before_B1 is None else torch.where(before_B1 < 0, -1, before_B1 + num_seen_BS - 1)
        is_pair_BS = is_real_BS & pad(is_real_BS[:, :-1], (1, 0))
        if begins_BS is not None:
            since_BS = torch.where(begins_BS, num_seen_BS - is_real_BS.long(), -1).cummax(1).values
            in_document_BS = num_seen_BS - 1 - since_BS + documents.num_before(begins_BS)
            place_BS = torch.where(since_BS < 0, place_BS, in_document_BS)
            is_pair_BS &= ~begins_BS
        if steps is not None:
            is_pair_BS[:, 1:] &= steps
        if has_other_rows:
            place_BS = place_BS.new_full(shape, -1)
        placed = replace(tokens, has_rows=not has_other_rows)
        if before_B1 is not None or has_other_rows or not has_plain_rows:
            placed = replace(placed, is_pair_BS=is_pair_BS, position_BS=place_BS.masked_fill(~is_real_BS, -1))
        if not goes_on or self._next is None or not shape.numel():
            return placed
        # A row without any token that is known of has none that goes on.
        num_real_B = num_seen_BS[:, -1] if before_B1 is None else place_BS[:, -1] + 1
        self._next.num_real_B = num_real_B if before_B1 is None else num_real_B.masked_fill(before_B1[:, 0] < 0, -1)
        past = self._past
        if past.num_real_B is None:
            return replace(placed, kept=self._next.kept)
        is_continued_B = is_real_BS.any(1) & (past.num_real_B.to(device) != 0) & self._is_same
        return replace(placed, is_continued_B=is_continued_B, past=past.kept, kept=self._next.kept)

    def _num_before(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Real tokens of each row before this call, int64 [B]; -1 where they are unknown."""
        B, S = shape
        mask: Any = self._inputs.get("decoder_attention_mask" if _IDS[0] in self._names else "attention_mask")
        if isinstance(mask, Tensor) and mask.dim() == 2 and len(mask) == B and mask.shape[1] > S:
            found_B = (mask[:, :-S] != 0).sum(1).to(device)
        else:
            length = -1 if self._length is None else self._length
            found_B = torch.zeros(B, dtype=torch.int64, device=device) + length
        known_B = self._past.num_real_B
        if known_B is None or self._is_same is True:
            return found_B if known_B is None else known_B.to(device)
        return torch.where(torch.as_tensor(self._is_same), known_B.to(device), found_B)
