"""Down projections without a module of their own: the products with their weights are seen as they run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lazyneuron.sites import Site, is_tracing

OPERANDS_AT = {"matmul": 0, "__matmul__": 0, "__rmatmul__": 0, "mm": 0, "bmm": 0, "mv": 0}
OPERANDS_AT |= {"addmm": 1, "addmv": 1, "baddbmm": 1, "addbmm": 1}
GROUPED = {"grouped_mm", "_grouped_mm", "grouped_mm_fallback"}
FROM_LEFT = {"linear", "conv1d", "conv2d", "conv3d"}
_GRAD: Any = Tensor.grad
# A weight, the operand beside it with the summed axis last, whether experts are batched, and which rows are kept.
_Product = tuple[Tensor, Tensor, bool, Tensor | None]


class BareWeights(TorchFunctionMode):
    """Sees the products with down weights that no module of their own holds (3-D experts, functional MLPs).

    `count(site, h)` gets each activation map: shape [..., F] as the model has it, [N, F] where the product is batched
    or grouped over experts. A row of those is a token at an expert, except rows beyond the last group, and rows that
    entered the up projection as exact zeros (the filling of unused capacity, tokens masked out by the router), told
    where `parameters` (by name, as in the sites) has the up weight. Not told are filling that is not zero, such as the
    rows that expert parallelism in transformers' `batched_mm` computes at a wrong expert and then multiplies by zero.
    """

    def __init__(
        self,
        bare: Sequence[tuple[Tensor, Site]],
        count: Callable[[Site, Tensor], None],
        parameters: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.names = [site.name for _, site in bare]
        self.seen: set[str] = set()
        self._count = count
        self._weights = [(down, site, True) for down, site in bare]
        ups = [((parameters or {}).get(site.up), site) for _, site in bare]
        self._weights += [(up, site, False) for up, site in ups if up is not None and up.dim() == 3]
        self._copies = WeakTensorKeyDictionary()
        self._filling: dict[str, Tensor] = {}
        # Compiled code would not know the weights again.
        self.__torch_function__ = MethodType(torch.compiler.disable(type(self).__torch_function__), self)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(tensors_in((*args, *kwargs.values())))
        weights = [x for x in tensors if self._roles_of(x)]
        if not weights or is_tracing():
            return func(*args, **kwargs)
        with torch.no_grad():
            products = list(_products(getattr(func, "__name__", ""), args, kwargs, tensors, weights))
            done: set[str] = set()
            for weight, x, is_batched, kept in products:
                for site, is_down in self._roles_of(weight):
                    if x.shape[-1] == (site.d_ff if is_down else site.d_model) and site.name not in done:
                        done.add(site.name)
                        self._see(site, is_down, is_batched, x.detach(), kept)
        out = func(*args, **kwargs)
        known = {id(x) for x in weights}
        others = [
            x for x in tensors if x.is_floating_point() and not isinstance(x, nn.Parameter) and id(x) not in known
        ]
        # Experts gathered by token, casts, weights computed from parameters alone.
        if not products and not others and func != _GRAD.__get__:
            for x in tensors_in((out,)):
                if x.is_floating_point():
                    self._copies[x] = self._roles_of(weights[0])
        return out

    def _roles_of(self, tensor: Tensor) -> list[tuple[Site, bool]]:
        """The sites whose weight this is (also a view or copy of it), and whether as their down weight."""
        if tensor.layout is not torch.strided:
            return []
        storage, start = tensor.untyped_storage()._cdata, tensor.storage_offset()
        found: list[tuple[Site, bool]] = [
            (site, is_down)
            for weight, site, is_down in self._weights
            if weight.untyped_storage()._cdata == storage and 0 <= start - weight.storage_offset() < weight.numel()
        ]
        return found or self._copies.get(tensor) or []

    def _see(self, site: Site, is_down: bool, is_batched: bool, x: Tensor, kept: Tensor | None) -> None:
        """Count an activation map, or note which rows that enter the experts are filling."""
        filling = self._filling.pop(site.name, None)
        if is_batched:
            x = x.reshape(-1, x.shape[-1])
            if not is_down:
                self._filling[site.name] = (x == 0).all(-1)
                return
            if filling is not None and len(filling) == len(x):
                kept = ~filling if kept is None else kept & ~filling
            x = x if kept is None else x[kept]
        if is_down:
            self.seen.add(site.name)
            self._count(site, x)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors_in(value)


def _products(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Tensor], weights: Sequence[Tensor]
) -> Iterator[_Product]:
    """The matrix products of a torch function with one of `weights`; those of an einsum in order of preference."""
    is_weight = {id(x) for x in weights}
    if name == "einsum" and args and isinstance(args[0], str):
        for at, weight in enumerate(tensors):
            if id(weight) in is_weight:
                yield from ((weight, x, weight.dim() == 3, None) for x in _summed_in_einsum(args[0], tensors, at))
        return
    at = 0 if name in GROUPED or name in FROM_LEFT else OPERANDS_AT.get(name)
    if at is None or len(tensors) < at + 2:
        return
    a, b = tensors[at : at + 2]
    if (id(a) in is_weight) == (id(b) in is_weight):
        return
    kept = None
    if name in GROUPED and a.dim() + b.dim() == 5:
        offsets = next((x for x in tensors[2:] if not x.is_floating_point()), None)
        if offsets is not None:
            rows = a.shape[0] if a.dim() == 2 else b.shape[1]
            kept = torch.arange(rows, device=offsets.device) < offsets[-1]
    if name in FROM_LEFT:
        if id(b) in is_weight and all(size == 1 for size in b.shape[2:]):
            yield b, a if name == "linear" else a.movedim(1 - b.dim(), -1), False, None
    elif id(b) in is_weight:
        yield b, a, b.dim() == 3, kept
    else:
        yield a, b if b.dim() == 1 else b.mT, a.dim() == 3, kept


def _summed_in_einsum(equation: str, operands: Sequence[Tensor], at: int) -> Iterator[Tensor]:
    """The operands beside number `at`, with the axes that the product sums over last: all as one, then each alone."""
    terms, summed = einsum_labels(equation, operands, at)
    for x, labels in zip(operands, terms, strict=True):
        for last in [summed] + [[label] for label in summed if len(summed) > 1]:
            if labels is not terms[at] and last and set(last) <= set(labels):
                rest = [axis for axis, label in enumerate(labels) if label not in last]
                yield x.permute(*rest, *(labels.index(label) for label in last)).flatten(len(rest))


def einsum_labels(equation: str, operands: Sequence[Tensor], at: int) -> tuple[list[list[str]], list[str]]:
    """The label of each axis of each operand, and those of operand number `at` that the product sums over."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_labels(term, x.dim()) for term, x in zip(left.split(","), operands, strict=True)]
    every = [label for term in terms for label in term]
    output = {label for label in every if label in right or label.isdigit()}
    if not arrow:
        output |= {label for label in every if every.count(label) == 1}
    return terms, [label for label in terms[at] if label not in output]


def _labels(term: str, dim: int) -> list[str]:
    """One label for each axis; those of an ellipsis are numbers, counted from its end."""
    before, dots, after = term.partition("...")
    middle = [str(i) for i in reversed(range(dim - len(before) - len(after)))] if dots else []
    return [*before, *middle, *after]
