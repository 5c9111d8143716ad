"""What one mask says about which tokens are real, whatever its form."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_MASKED = -9999.0
"""Additive masks are at most this where they mask; ALiBi's slopes, which some models add to them, stay above."""

_IGNORED_LABEL = -100


def from_attention_mask(mask: Any, num_tokens: int, is_cached: bool = False) -> Tensor | None:
    """Which of B * S = `num_tokens` tokens are real, bool [B, S]; None if the mask does not fit them.

    The mask is [B, S] (nonzero or, if additive, not very negative where a token is real), [B, Q, K] or [B or 1, heads
    or 1, Q or 1, K] (True, or 0 if additive, where query q attends to key k), a dictionary of such masks by kind of
    attention, or a `BlockMask` of flex attention. If `is_cached` it covers cached tokens before those S too.
    """
    if isinstance(mask, Mapping):
        known = [one for one in (mask.get("full_attention"), *mask.values()) if one is not None]
        return from_attention_mask(known[0], num_tokens, is_cached) if known else None
    if type(mask).__name__ == "BlockMask":
        mask = _dense(mask)
    if not isinstance(mask, Tensor) or not 2 <= mask.dim() <= 4 or not mask.numel():
        return None
    is_allowed = _is_allowed(mask)
    if mask.dim() > 2:
        is_real_BS = _from_pairs(is_allowed if mask.dim() == 3 else is_allowed.any(1), num_tokens)
    else:
        length = num_tokens // len(mask)
        is_real_BS = is_allowed[:, -length:] if is_cached and length else is_allowed
    return is_real_BS if is_real_BS is not None and is_real_BS.numel() == num_tokens else None


def from_padding_mask(mask: Any, num_tokens: int) -> Tensor | None:
    """The same for a mask [B, S] that is nonzero at padding: True, 1, or -inf."""
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.numel() != num_tokens:
        return None
    return mask == 0


def from_labels(labels: Tensor, ids: Tensor | None, pad: int | None) -> Tensor:
    """Real tokens of a decoder whose inputs are the labels [B, S] shifted right, behind a start token.

    A sequence has as many inputs as labels, so those at labels of -100 at its end are padding. Of labels of -100 at
    its start, inputs are padding that come from them: all, or the `pad` tokens of `ids` if the model was called with
    these too.
    """
    return behind_start(labels != _IGNORED_LABEL, ids if ids is not None and ids.shape == labels.shape else None, pad)


def behind_start(is_real_BS: Tensor, ids: Tensor | None = None, pad: int | None = None) -> Tensor:
    """Real tokens of a decoder's inputs, made from other tokens by a shift right behind a start token."""
    is_left = F.pad(leading(~is_real_BS)[:, :-1], (1, 0)) & (True if ids is None else ids == pad)
    return ~(trailing(~is_real_BS) | is_left)


def from_pixel_mask(mask: Any, tokens: Sequence[int]) -> Tensor | None:
    """The same for images [B, H, W] whose tokens are a feature map [B, h, w] or [B, h * w], by its nearest pixels."""
    if not isinstance(mask, Tensor) or mask.dim() != 3 or len(tokens) < 2 or tokens[0] != len(mask):
        return None
    sizes = [tuple(-(-size // stride) for size in mask.shape[1:]) for stride in (4, 8, 16, 32, 64, 14)]
    size = next((hw for hw in sizes if tuple(tokens[1:]) in (hw, (math.prod(hw),))), None)
    return None if size is None else F.interpolate(mask[:, None].float(), size=size)[:, 0].flatten(1) != 0


def _is_allowed(mask: Tensor) -> Tensor:
    if not mask.is_floating_point():
        return mask != 0
    # Without waiting for the device. Rows of zeros alone are additive too: some token is real.
    is_additive = (mask < 0).any() | ~mask.any() if mask.dim() == 2 else ~(mask == 1).any()
    return torch.where(is_additive, mask > _MASKED, mask != 0)


def _from_pairs(is_allowed_BQK: Tensor, num_tokens: int) -> Tensor | None:
    """Real tokens where query q may attend to key k: padding is what no real query attends to."""
    _, Q, K = is_allowed_BQK.shape
    if Q > 1 and Q == K:
        is_isolated = is_allowed_BQK.sum(1) + is_allowed_BQK.sum(2) == 2
        is_isolated = is_isolated & is_allowed_BQK.diagonal(0, 1, 2)
    else:
        is_isolated = None
    # Queries at padding attend to nothing, or to everything (scaled_dot_product_attention needs some key). Causal
    # queries that are real do so only at the end.
    is_full = is_allowed_BQK.all(2)
    is_kept = ~is_full | trailing(is_full)
    is_real_BK = (is_allowed_BQK & is_kept[..., None]).any(1)
    if is_isolated is not None:  # or to themselves: two or more at an end of a row
        is_alone = is_isolated | ~is_real_BK
        for run in (leading(is_alone), trailing(is_alone)):
            is_pad = run & ((run & is_isolated).sum(1, keepdim=True) > 1)
            is_real_BK = is_real_BK & ~(is_pad & ~run.all(1, keepdim=True))
    length = K if Q == 1 and len(is_real_BK) in (1, num_tokens / K) else Q
    if length < K:  # cached tokens before, and room for more behind in a static cache
        last = (is_real_BK.any(0) * torch.arange(K, device=is_real_BK.device)).amax()
        columns = last - length + 1 + torch.arange(length, device=is_real_BK.device)
        is_real_BK = is_real_BK[:, columns.clamp(0)]
    if len(is_real_BK) == 1 and num_tokens % length == 0:
        is_real_BK = is_real_BK.expand(num_tokens // length, -1)
    return is_real_BK


def _dense(mask: Any) -> Tensor:
    from torch.nn.attention.flex_attention import create_mask

    batch, heads, queries, keys = mask.shape
    return create_mask(mask.mask_mod, batch, heads, queries, keys, device=mask.kv_num_blocks.device)


def leading(is_on_BS: Tensor) -> Tensor:
    """The run of True at the start of each row."""
    return is_on_BS.long().cumprod(-1).bool()


def trailing(is_on_BS: Tensor) -> Tensor:
    """The run of True at the end of each row."""
    return leading(is_on_BS.flip(-1)).flip(-1)
