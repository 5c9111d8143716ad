"""Padding that could not be read from a call: warned about once, by the name of the argument."""

import re
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lazyneuron.maps.masks import leading, trailing

# Names of masks that say something else, and of those that are read elsewhere.
_NOT_PADDING = re.compile(
    r"head|pos|perm|causal|label|loss|time_indices|lm|memory|cross|encoder|global|prompt|output|attention_mask|key_padding_mask"
)


class UnreadPadding:
    """Looks at the inputs of calls in which tokens had no mask."""

    def __init__(self, model: nn.Module) -> None:
        config: Any = getattr(model, "config", None)
        self._pad: Any = getattr(config, "pad_token_id", None)
        ends: list[Any] = [getattr(config, f"{name}_token_id", None) for name in ("bos", "eos", "decoder_start")]
        is_end = any(self._pad in (end if isinstance(end, list) else [end]) for end in ends)
        self._allowed = 1 if is_end else 0  # a real sequence may begin or end with that token
        self._warned: set[str] = set()

    def warn_of(self, inputs: Mapping[str, Any]) -> None:
        """Warn of a mask that looks like padding but has an unknown name, and of pad tokens at an end of a row."""
        for name, value in inputs.items():
            if not isinstance(value, Tensor) or value.dim() != 2 or name in self._warned:
                continue
            if value.device.type != "cpu":  # looking at it makes the host wait for the device: once is enough
                self._warned.add(name)
            if "mask" in name and not _NOT_PADDING.search(name) and _looks_like_padding(value):
                self._warn(name, f"{name} looks like padding but its name is not known: all tokens are counted; ")
            is_decoder = name.startswith("decoder")
            mask = "decoder_attention_mask" if is_decoder else "attention_mask"
            is_ids = name in ("input_ids", "decoder_input_ids") and isinstance(self._pad, int)
            if is_ids and inputs.get(mask) is None and self._has_pads(value, is_decoder):
                self._warn(name, f"{name} has the pad token {self._pad} at an end of rows, which counts as real; ")

    def _has_pads(self, ids_BS: Tensor, is_decoder: bool) -> bool:
        is_pad = ids_BS == self._pad
        ends = (trailing,) if is_decoder else (leading, trailing)  # a decoder's rows begin alike
        num_pads_B = [run(is_pad).sum(1) for run in ends]
        allowed = self._allowed if len(is_pad) > 1 else 1  # nor is a row alone padded by a single token
        return any(bool(((n > allowed) & (n < is_pad.shape[1])).any()) for n in num_pads_B)

    def _warn(self, name: str, message: str) -> None:
        self._warned.add(name)
        mask = "decoder_attention_mask" if name.startswith("decoder") else "attention_mask"
        warnings.warn(f"{message}pass {mask} to leave padding out", stacklevel=2)


def _looks_like_padding(mask_BS: Tensor) -> bool:
    """Whether zeros and others both occur, and either stand at the ends of rows alone."""
    is_on = mask_BS != 0
    runs = ((is_on == (leading(is_on) | trailing(is_on))).all(), (~is_on == (leading(~is_on) | trailing(~is_on))).all())
    return bool(is_on.any() & ~is_on.all() & (runs[0] | runs[1]))
