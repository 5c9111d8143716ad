"""Several documents in one row: where each begins, from the position ids or cumulative lengths of a call."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_QUERIES = ("cu_seq_lens_q", "cu_seqlens_q", "cu_seqlens", "cu_seq_lens")
_KEYS = ("cu_seq_lens_k", "cu_seqlens_k")


class Documents:
    """The documents of a call's rows; there are none to tell apart where neither input is given."""

    def __init__(self, inputs: Mapping[str, Any], device: torch.device) -> None:
        self._queries, self._keys = _tensor(inputs, _QUERIES, device), _tensor(inputs, _KEYS, device)
        by_kind = next((x for name in _KEYS if isinstance(x := inputs.get(name), Mapping)), {})  # a paged cache
        self._keys = _tensor(by_kind, ("full_attention",), device) if self._keys is None else self._keys
        self._ids = _tensor(inputs, ("decoder_position_ids", "position_ids"), device)

    def is_flat(self, shape: torch.Size) -> bool:
        """Whether a map of this shape holds packed documents as rows of one token."""
        return self._queries is not None and shape[1] == 1 and shape[0] > 1

    def begins(self, is_real_BS: Tensor) -> Tensor | None:
        """True at tokens that begin a document inside a row; None if there are none.

        By position ids [B, S], or one set of them an axis [3, B, S], that is a real token with the lowest of its row,
        after another real token. In a multi-axis set all of them are lowest.
        """
        B, S = is_real_BS.shape
        if self._queries is not None and B == 1:
            begins_S = is_real_BS.new_zeros(S + 1).index_fill_(0, self._queries.long().clamp(max=S), True)
            return begins_S[None, :S]
        ids_KBS = self._laid(B, S)
        if ids_KBS is None or S == 1:
            return None
        lowest_KB1 = ids_KBS.masked_fill(~is_real_BS, _largest(ids_KBS.dtype)).amin(-1, keepdim=True)
        return (ids_KBS == lowest_KB1).all(0) & is_real_BS & (is_real_BS.cumsum(1) > 1)

    def steps(self, is_real_BS: Tensor) -> Tensor | None:
        """True where the position ids say that a token comes right after the one before it in its row, [B, S - 1]."""
        ids_KBS = self._laid(*is_real_BS.shape)
        return None if ids_KBS is None or len(ids_KBS) > 1 else ids_KBS[0].diff() == 1

    def num_before(self, begins_BS: Tensor) -> Tensor | int:
        """Cached tokens of each token's document, [1, S]: keys that are no queries, else by the ids where it begins."""
        if self._queries is None:
            return 0
        document_1S = (begins_BS.cumsum(1) - 1).clamp(min=0)
        if self._keys is not None and len(self._keys) == len(self._queries):
            num_before_N = (self._keys - self._queries).diff()
            return num_before_N[document_1S.clamp(max=len(num_before_N) - 1)]
        ids_KBS = self._laid(*begins_BS.shape)
        if ids_KBS is None:
            return 0
        place_1S = torch.arange(begins_BS.shape[1], device=begins_BS.device)[None]
        return ids_KBS[0].gather(1, torch.where(begins_BS, place_1S, 0).cummax(1).values)

    @property
    def restart_rows(self) -> bool:
        """Whether rows are no sequences, so that none goes on in the next call."""
        return self._queries is not None

    def _laid(self, B: int, S: int) -> Tensor | None:
        """Position ids as [K, B, S] of K axes; None if they are not given or do not fit."""
        ids = self._ids
        if ids is None or ids.dim() not in (2, 3) or ids.shape[-1] != S or ids.shape[-2] not in (1, B):
            return None
        ids = ids[:1] if ids.dim() == 3 and len(ids) == 4 else ids  # text positions, before those of the three axes
        return ids.expand(*ids.shape[:-2], B, S).reshape(-1, B, S)


def _largest(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max


def _tensor(inputs: Mapping[str, Any], names: tuple[str, ...], device: torch.device) -> Tensor | None:
    return next((x.to(device) for name in names if isinstance(x := inputs.get(name), Tensor)), None)
