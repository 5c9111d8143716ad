"""Selecting where no module holds the down projection: in the products with its weight."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lazyneuron.enforce.selection import Selection
from lazyneuron.maps.bare_products import FROM_LEFT, GROUPED, OPERANDS_AT, BareWeights, einsum_labels, tensors_in
from lazyneuron.sites import Site, clean_name


class SelectInProducts(BareWeights):
    """Puts the selected map in the place of the map, in each product with a site's down weight that `owner` holds.

    Products are told as `BareWeights` tells them. An einsum that sums over neurons and experts at once is selected over
    both where the site's d_ff counts both. While `is_on` is False nothing is changed.
    """

    def __init__(self, owner: nn.Module, site: Site, selection: Selection) -> None:
        self._owner, self._site, self._selection = owner, site, selection
        self._leaf = clean_name(site.down).rpartition(".")[2]
        self.is_on = True
        super().__init__([], lambda site, h: None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.is_on:
            weight = self._owner._parameters[self._leaf]  # now: FSDP swaps it as it gathers
            assert weight is not None
            self._weights = [(weight, self._site, True)]
            tensors = list(tensors_in((*args, *kwargs.values())))
            weights = {id(x) for x in tensors if self._roles_of(x)}
            found = _map_in(getattr(func, "__name__", ""), args, tensors, weights) if weights else None
            if found is not None:
                h, axes = found
                selected = self._selected(h, axes)
                if selected is not None:
                    self.seen.add(self._site.name)
                    args, kwargs = tree_map(lambda x: selected if x is h else x, (tuple(args), kwargs))
        return super().__torch_function__(func, types, args, kwargs)

    def _see(self, site: Site, is_down: bool, is_batched: bool, x: Tensor, kept: Tensor | None) -> None:
        return

    def _selected(self, h: Tensor, axes: Sequence[int]) -> Tensor | None:
        """The map with its summed `axes` selected over all of them, or over the last alone, as d_ff says; else None."""
        for some in (axes, axes[-1:]):
            last = [*range(h.dim() - len(some), h.dim())]
            moved = h.movedim(list(some), last)
            if moved.shape[-len(some) :].numel() == self._site.d_ff:
                flat = moved.flatten(-len(some))
                return self._selection.apply(flat).reshape(moved.shape).movedim(last, list(some))
        return None


def _map_in(name: str, args: Any, tensors: list[Tensor], weights: set[int]) -> tuple[Tensor, list[int]] | None:
    """The operand beside a weight in the matrix product `name`, and which of its axes are summed over."""
    if name == "einsum" and args and isinstance(args[0], str):
        at = next(i for i, x in enumerate(tensors) if id(x) in weights)
        return _map_in_einsum(args[0], tensors, at)
    at = 0 if name in GROUPED or name in FROM_LEFT else OPERANDS_AT.get(name)
    if at is None or len(tensors) < at + 2:
        return None
    a, b = tensors[at : at + 2]
    if (id(a) in weights) == (id(b) in weights):
        return None
    if name in FROM_LEFT:
        is_pointwise = id(b) in weights and all(size == 1 for size in b.shape[2:])
        return (a, [-1 if name == "linear" else 1 - b.dim()]) if is_pointwise else None
    return (a, [-1]) if id(b) in weights else (b, [-1 if b.dim() == 1 else -2])


def _map_in_einsum(equation: str, operands: list[Tensor], at: int) -> tuple[Tensor, list[int]] | None:
    terms, summed = einsum_labels(equation, operands, at)
    for x, labels in zip(operands, terms, strict=True):
        if labels is not terms[at] and summed and set(summed) <= set(labels):
            return x, [labels.index(label) for label in summed]
    return None
