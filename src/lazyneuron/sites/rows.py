"""Follow tokens through a traced pass: in what order an activation map has the tokens of the call."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_MOVES = {"index", "index_select", "gather"}
_REARRANGES = {
    "repeat",
    "flip",
    "roll",
    "t",
    "transpose",
    "permute",
    "slice",
    "select",
    "squeeze",
    "unsqueeze",
    "expand",
}
_REARRANGES |= {"split", "split_with_sizes", "unbind"}
_RESHAPES = {"view", "_unsafe_view", "_reshape_alias", "reshape"}
_SCATTERS = {"index_add", "index_put", "scatter", "scatter_add", "scatter_reduce", "index_copy", "as_strided"}
_MOVED = 2**40


class Rows:
    """The number of the token that each entry of a tensor belongs to, for the tensors of a pass.

    Tokens are numbered row by row through the inputs [B, S] of the call; those that an index has picked, as a router
    does, are numbered from 2**40 on. Unknown operations drop the numbers; a residual stream brings them back.
    """

    def __init__(self) -> None:
        self._numbers = WeakTensorKeyDictionary()
        self._inputs = 0, 0

    def begin(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        """Number the tokens of the inputs: ids [B, S], or features [B, S, D]."""
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and not x.is_nested and not x.is_meta]
        rows = [x for x in tensors if x.dim() == 2 + x.is_floating_point() and x.numel()]
        for x in rows:
            if rows[0].shape[:2] == x.shape[:2]:
                B, S = x.shape[:2]
                self._inputs = B, S
                numbers = torch.arange(B * S, device=x.device).view(B, S)
                self._numbers[x] = numbers if x.dim() == 2 else numbers[..., None].expand(x.shape)

    def follow(
        self, func: Any, name: str, args: Any, kwargs: Any, operands: list[Tensor], outputs: list[Tensor]
    ) -> None:
        """Number the outputs of an operation."""
        known = [self._numbers.get(x) for x in operands]
        for output in outputs:
            self._numbers.pop(output, None)
        if not any(x is not None for x in known) or name in _SCATTERS:
            return
        if known[0] is not None and name in _MOVES | _REARRANGES and not func._schema.is_mutable:
            made = func(known[0], *args[1:], **kwargs)
            for output, numbers in zip(outputs, made if isinstance(made, list | tuple) else [made], strict=True):
                self._mark(output, numbers + _MOVED if name in _MOVES else numbers)
            return
        for output in outputs:
            if name in _RESHAPES and known[0] is not None and known[0].numel() == output.numel():
                self._mark(output, known[0].reshape(output.shape))
            elif name == "embedding" and known[-1] is not None:
                self._mark(output, known[-1][..., None].expand(output.shape))
            elif name == "cat" and all(x is not None for x in known):
                self._mark(output, func(known, *args[1:], **kwargs))
            else:
                self._mark(output, self._alike(known, output))

    def order(self, x: Tensor) -> str | None:
        """The order of the tokens in a map [..., F]: see `Site.order`."""
        numbers = self._numbers.get(x)
        if numbers is None or not x.numel() or not _is_uniform(numbers):
            return None
        (B, S), flat = self._inputs, numbers[..., 0].flatten()
        if int(flat.max()) >= _MOVED:
            return "gathered"
        wanted = torch.arange(B * S, device=flat.device).view(B, S)
        orders = {"batch": wanted.flatten(), "sequence": wanted.T.flatten()} if B > 1 and S > 1 else {}
        return next((order for order, numbers in orders.items() if torch.equal(flat, numbers)), None)

    def _mark(self, output: Tensor, numbers: Tensor | None) -> None:
        if numbers is not None and numbers.shape == output.shape:
            self._numbers[output] = numbers

    def _alike(self, known: list[Tensor | None], output: Tensor) -> Tensor | None:
        """The numbers of an operand whose rows the output has."""
        for numbers in known:
            if numbers is not None and numbers.shape == output.shape:
                return numbers
        for numbers in known:
            if numbers is not None and numbers.shape[:-1] == output.shape[:-1] and _is_uniform(numbers):
                return numbers[..., :1].expand(output.shape)
        return None


def _is_uniform(numbers: Tensor) -> bool:
    """Whether all entries of each row are of one token."""
    if numbers.dim() < 2 or not numbers.numel():
        return False
    return numbers.stride(-1) == 0 or bool((numbers == numbers[..., :1]).all())
