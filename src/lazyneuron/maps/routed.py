"""Which tokens of a call the rows at experts are, however a router sorted, picked or repeated them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lazyneuron.maps.tokens import Tokens

_PICKS = {"getitem", "index_select", "gather", "repeat_interleave", "repeat", "expand"}
_MOVES = {*_PICKS, "view", "reshape", "flatten", "unsqueeze", "squeeze", "transpose", "permute"}
_KEEPS = {"to", "float", "half", "bfloat16", "double", "type", "type_as", "contiguous", "clone", "detach"}
_KEEPS |= {"mul", "imul", "add", "iadd", "dropout", "linear", "layer_norm", "rms_norm"}


class Numbers(NamedTuple):
    """The number of the token that each entry of a tensor belongs to, and all numbers in their order, [B, S, 1].

    `is_picked` says that tokens were picked, sorted or repeated.
    """

    of: Tensor
    grid_BS1: Tensor
    is_picked: bool = False


class RoutedTokens:
    """Numbers the tokens of tensors on their way to experts.

    Tokens are numbered row by row through the latest hidden states [B, S, D] that a module around the experts got.
    Functions that are not known to move or keep rows drop the numbers.
    """

    def __init__(self) -> None:
        self._numbers = WeakTensorKeyDictionary()

    def forget(self) -> None:
        """Forget every number: another call of the model begins."""
        self._numbers.clear()

    def begin(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Number the tokens of the hidden states among the inputs of a module, if it has any in three dimensions."""
        x = next((x for x in (*args, *kwargs.values()) if type(x) is Tensor and x.is_floating_point()), None)
        if x is not None and x.dim() == 3 and x not in self._numbers:
            B, S, _ = x.shape
            grid_BS1 = torch.arange(B * S, device=x.device).view(B, S, 1)
            self._numbers[x] = Numbers(grid_BS1.expand(x.shape), grid_BS1)

    def follow(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Number the output of a function of tensors."""
        x: Any = args[0] if args else None
        numbers = self.of(x) if isinstance(x, Tensor) and isinstance(out, Tensor) else None
        if numbers is None:
            return
        name = getattr(func, "__name__", "").strip("_")
        made: Tensor | None = None
        if name in _MOVES and out.dtype == x.dtype:
            made = (Tensor.reshape if name == "view" else func)(numbers.of, *args[1:], **kwargs)
        elif name in _KEEPS and x.shape[:-1] == out.shape[:-1]:
            made = numbers.of if x.shape == out.shape else numbers.of[..., :1].expand(out.shape)
        if made is not None and made.shape == out.shape:
            self._numbers[out] = Numbers(made, numbers.grid_BS1, numbers.is_picked or name in _PICKS)

    def of(self, x: Tensor) -> Numbers | None:
        """The numbers of a tensor; None if they are not known."""
        return self._numbers.get(x)


def at_experts(number_T: Tensor, laid_BS1: Tensor, tokens: Tokens) -> Tokens:
    """What the rows at experts are, [T, 1], given the tokens of the call and their numbers, laid out alike."""
    B, S, _ = laid_BS1.shape
    place_T = laid_BS1.flatten().argsort()[number_T]
    position_BS = torch.arange(S, device=number_T.device).expand(B, S)
    position_BS = position_BS if tokens.position_BS is None else tokens.position_BS
    real, ids, position = (
        None if x is None else x.flatten()[place_T, None] for x in (tokens.is_real_BS, tokens.ids_BS, position_BS)
    )
    return Tokens(real, ids, has_rows=False, position_BS=position)
