"""Matrix products with weights that are no linear module's own (3-D experts, functional MLPs), seen as they run."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from lazyneuron.maps.routed import Numbers, RoutedTokens
from lazyneuron.sites import Site, is_tracing

_OPERANDS_AT = {"matmul": 0, "__matmul__": 0, "__rmatmul__": 0, "mm": 0, "bmm": 0, "mv": 0}
_OPERANDS_AT |= {"addmm": 1, "addmv": 1, "baddbmm": 1, "addbmm": 1}
_GROUPED = {"grouped_mm", "_grouped_mm", "grouped_mm_fallback"}
_FROM_LEFT = {"linear", "conv1d", "conv2d", "conv3d"}
_OPERANDS_AT |= dict.fromkeys(_GROUPED | _FROM_LEFT, 0)
_GRAD: Any = Tensor.grad


class Product(NamedTuple):
    """A weight in a matrix product, the operand beside it, and which axes of the operand the product sums over.

    `is_batched` says that experts are batched or grouped in it, `kept` which rows of the operand belong to a group.
    """

    weight: Tensor
    operand: Tensor
    axes: list[int]
    is_batched: bool = False
    kept: Tensor | None = None

    def moved(self) -> Tensor:
        """The operand with the summed axes last, in the weight's order."""
        return self.operand.movedim(self.axes, [*range(-len(self.axes), 0)])

    def width(self) -> int:
        """Number of entries that each output is a sum over."""
        return math.prod(self.operand.shape[axis] for axis in self.axes)


class BareProducts(TorchFunctionMode, ABC):
    """While entered, shows `_see` each product with some of the weights, or with a view, cast or gathered copy."""

    def __init__(self, weights: Sequence[tuple[Tensor, Site, bool]]) -> None:
        """`weights` are the weight, its site, and whether it is the site's down weight."""
        super().__init__()
        self.seen: set[str] = set()
        self._weights = weights
        self._copies = WeakTensorKeyDictionary()
        # Compiled code would not recognise the weights.
        self.__torch_function__ = MethodType(torch.compiler.disable(type(self).__torch_function__), self)

    @abstractmethod
    def _see(self, site: Site, is_down: bool, product: Product) -> Tensor | None:
        """Look at a product; what is returned takes the place of its operand."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors_in((*args, *kwargs.values())))
        weights = [x for x in tensors if self._roles_of(x)]
        if not weights or is_tracing():
            return func(*args, **kwargs)
        products = list(_products(getattr(func, "__name__", ""), args, kwargs, tensors, weights))
        done: set[str] = set()
        replaced: dict[int, Tensor] = {}
        for product in products:
            for site, is_down in self._roles_of(product.weight):
                if site.name not in done and product.width() == (site.d_ff if is_down else site.d_model):
                    done.add(site.name)
                    new = self._see(site, is_down, product)
                    replaced |= {} if new is None else {id(product.operand): new}
        if replaced:
            args, kwargs = tree_map(lambda x: replaced.get(id(x), x), (tuple(args), kwargs))
        out = func(*args, **kwargs)
        known = {id(x) for x in weights}
        others = [
            x for x in tensors if x.is_floating_point() and not isinstance(x, nn.Parameter) and id(x) not in known
        ]
        # Experts gathered by token, casts, weights computed from parameters alone.
        if not products and not others and func != _GRAD.__get__:
            for x in _tensors_in((out,)):
                if x.is_floating_point():
                    self._copies[x] = self._roles_of(weights[0])
        return out

    def _roles_of(self, tensor: Tensor) -> list[tuple[Site, bool]]:
        """The sites whose weight this is (or a view or copy of it), and whether as their down weight."""
        if tensor.layout is not torch.strided:
            return []
        storage, start = tensor.untyped_storage()._cdata, tensor.storage_offset()
        found = [
            (site, is_down)
            for weight, site, is_down in self._weights
            if weight.untyped_storage()._cdata == storage and 0 <= start - weight.storage_offset() < weight.numel()
        ]
        return found or self._copies.get(tensor) or []


class BareMaps(BareProducts):
    """Calls `on_map(site, h, numbers)` with the activation map of each product with a bare down weight.

    The map has shape [..., F] as in the model, or [N, F] where the product is batched or grouped over experts. Each row
    is then a token at an expert. Rows beyond the last group are left out, and so are unused capacity and tokens that
    the router masked, if `parameters` (by name) holds the up weight: they enter the up projection as exact zeros.
    Filling that is not zero counts as tokens, such as the rows that expert parallelism in transformers' `batched_mm`
    computes at a wrong expert and then multiplies by zero.

    `numbers` say which token each row at experts is, as `routed` follows them; None if that is not known.
    """

    def __init__(
        self,
        bare: Sequence[tuple[Tensor, Site]],
        on_map: Callable[[Site, Tensor, Numbers | None], None],
        parameters: Mapping[str, Tensor],
        routed: RoutedTokens,
    ) -> None:
        self.names = [site.name for _, site in bare]
        self._on_map = on_map
        self._is_filling: dict[str, Tensor] = {}
        self._numbers: dict[str, Numbers] = {}
        self._routed = routed
        ups = [(parameters[site.up], site, False) for _, site in bare if site.up in parameters]
        super().__init__([*((down, site, True) for down, site in bare), *(up for up in ups if up[0].dim() == 3)])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs)
        if not is_tracing():
            self._routed.follow(func, args, kwargs or {}, out)
        return out

    @torch.no_grad()
    def _see(self, site: Site, is_down: bool, product: Product) -> None:
        x, kept = product.moved().flatten(-len(product.axes)).detach(), product.kept
        if not is_down:
            self._see_up(site, x, product)
            return
        is_filling, numbers = self._is_filling.pop(site.name, None), self._numbers.pop(site.name, None)
        if product.is_batched:
            x = x.reshape(-1, x.shape[-1])
            if is_filling is not None and len(is_filling) == len(x):
                kept = ~is_filling if kept is None else kept & ~is_filling
        if numbers is not None and (x.dim() != 2 or len(numbers.of) != len(x)):
            numbers = None
        if product.is_batched and kept is not None:
            x, numbers = x[kept], None if numbers is None else numbers._replace(of=numbers.of[kept])
        self.seen.add(site.name)
        self._on_map(site, x, numbers)

    def _see_up(self, site: Site, x: Tensor, product: Product) -> None:
        if product.is_batched:
            self._is_filling[site.name] = (x == 0).all(-1).flatten()
        numbers = self._routed.of(product.operand)
        if numbers is not None and numbers.is_picked:
            of_T = product._replace(operand=numbers.of).moved()[..., 0].flatten()
            self._numbers[site.name] = numbers._replace(of=of_T)
        else:
            self._numbers.pop(site.name, None)


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors_in(value)


def _products(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Tensor], weights: Sequence[Tensor]
) -> Iterator[Product]:
    """The matrix products of a torch function with one of `weights`; those of an einsum in order of preference."""
    is_weight = {id(x) for x in weights}
    if name == "einsum" and args and isinstance(args[0], str):
        for at, weight in enumerate(tensors):
            if id(weight) in is_weight:
                yield from _products_in_einsum(args[0], tensors, at)
        return
    at = _OPERANDS_AT.get(name)
    if at is None or len(tensors) < at + 2:
        return
    a, b = tensors[at : at + 2]
    if (id(a) in is_weight) == (id(b) in is_weight):
        return
    kept = None
    if name in _GROUPED and a.dim() + b.dim() == 5:
        offsets = next((x for x in tensors[2:] if not x.is_floating_point()), None)
        if offsets is not None:
            rows = a.shape[0] if a.dim() == 2 else b.shape[1]
            kept = torch.arange(rows, device=offsets.device) < offsets[-1]
    if name in _FROM_LEFT:
        if id(b) in is_weight and all(size == 1 for size in b.shape[2:]):
            yield Product(b, a, [-1 if name == "linear" else 1 - b.dim()])
    elif id(b) in is_weight:
        yield Product(b, a, [-1], b.dim() == 3, kept)
    else:
        yield Product(a, b, [-1 if b.dim() == 1 else -2], a.dim() == 3, kept)


def _products_in_einsum(equation: str, operands: Sequence[Tensor], at: int) -> Iterator[Product]:
    """Operand `at` with each other operand: first summed over all labels that the output lacks, then over one of them,
    as where the others are experts."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_labels(term, x.dim()) for term, x in zip(left.split(","), operands, strict=True)]
    every = [label for term in terms for label in term]
    output = {label for label in every if label in right or label.isdigit()}
    if not arrow:
        output |= {label for label in every if every.count(label) == 1}
    summed = [label for label in terms[at] if label not in output]
    for some in [summed] + [[label] for label in reversed(summed) if len(summed) > 1]:
        for x, labels in zip(operands, terms, strict=True):
            if labels is not terms[at] and some and set(some) <= set(labels):
                axes = [labels.index(label) for label in some]
                yield Product(operands[at], x, axes, operands[at].dim() == 3)


def _labels(term: str, dim: int) -> list[str]:
    """One label for each axis; those of an ellipsis are numbers, counted from its end."""
    before, dots, after = term.partition("...")
    middle = [str(i) for i in reversed(range(dim - len(before) - len(after)))] if dots else []
    return [*before, *middle, *after]
