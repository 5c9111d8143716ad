"""Rows of a batch that ended before others: what they are fed from then on is padding."""

import sys
from typing import Any

import torch
from torch import Tensor

_GENERATE = "transformers.generation.utils"


def rows_in_generate() -> tuple[Tensor, Any] | None:
    """Inside `generate`: int64 [B], 0 where it has finished a row, whatever stopped it, and an object that is its own.

    It is read from the frame of the decoding loop, the only place that knows it: stop strings, user's criteria and
    arguments such as `pad_token_id` leave no trace in the inputs of the model.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == _GENERATE and "unfinished_sequences" in frame.f_code.co_varnames:
            names = frame.f_locals
            is_unfinished_B, generation = names.get("unfinished_sequences"), names.get("generation_config")
            if isinstance(names, dict):
                names.clear()  # before Python 3.13 a copy that would keep the loop's tensors alive
            return None if is_unfinished_B is None else (is_unfinished_B, generation)
        frame = frame.f_back
    return None


class StopTokens:
    """The tokens that end a sequence of a model, and those that fill its row from then on."""

    def __init__(self, model: Any) -> None:
        configs = [getattr(model, name, None) for name in ("generation_config", "config")]
        eos: Any = next((e for c in configs if (e := getattr(c, "eos_token_id", None)) is not None), ())
        pad: Any = next((p for c in configs if (p := getattr(c, "pad_token_id", None)) is not None), None)
        self.ends: tuple[int, ...] = tuple(eos) if isinstance(eos, list | tuple) else (eos,)
        self.fills = self.ends if pad is None else (*self.ends, pad)

    def after_end(self, ids_BS: Tensor, is_real_BS: Tensor, is_over_B: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens only fill a row after its end, and the rows that are over after them; given those over before.

        A row is over from a token that ends it up to the next one that neither ends nor fills.
        """
        is_end_BS, is_fill_BS = _is_in(ids_BS, self.ends) & is_real_BS, _is_in(ids_BS, self.fills) | ~is_real_BS
        # The latest of the tokens that change what follows: one that ends (2t + 1) or one that goes on (2t).
        place_S = torch.arange(ids_BS.shape[1], device=ids_BS.device) * 2
        event_BS = torch.where(is_end_BS, place_S + 1, torch.where(is_fill_BS, -1, place_S)).cummax(1).values
        is_over_BS = torch.where(event_BS < 0, is_over_B[:, None], event_BS % 2 == 1)
        was_over_BS = torch.cat([is_over_B[:, None], is_over_BS[:, :-1]], 1)
        return was_over_BS & is_fill_BS, is_over_BS[:, -1]


def _is_in(ids_BS: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """Without a synchronisation, which a tensor made of `tokens` would need."""
    found_BS = torch.zeros_like(ids_BS, dtype=torch.bool)
    for token in tokens:
        found_BS |= ids_BS == token
    return found_BS
