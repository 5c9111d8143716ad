"""Trace one forward pass to distinguish up, gate and down projections from other weights.

A `TorchDispatchMode` sees every operation. The output of a matrix product with one weight carries a tag that names the
weight. Pointwise arithmetic and reshapes pass tags on, nonlinearities mark them, and operations that mix activations
(attention, reductions, normalisation of a residual stream) drop them. A matrix product whose input carries a marked tag
may be a down projection, and the tag names its up and gate: see `mlps`.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from lazyneuron.sites.parallel import local
from lazyneuron.sites.rows import Rows

_MATRICES_AT = {"addmm": 1, "addmv": 1, "baddbmm": 1, "mm": 0, "bmm": 0, "mv": 0, "linear": 0, "convolution": 0}
_MATRICES_AT |= {"_grouped_mm": 0, "grouped_mm_fallback": 0}
_FIRST_OPERAND = {"index", "index_select", "gather", "repeat", "clone", "_to_copy", "_unsafe_view", "flip", "roll"}
_FIRST_OPERAND |= {"native_dropout", "_reshape_alias", "constant_pad_nd"}
_CONSTANTS = {"zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "scalar_tensor"}
_CONSTANTS |= {"empty_like", "bernoulli", "rand_like"}  # dropout, where it is on in eval mode too
_CONSTANTS |= {"_softmax"}  # a weight of the other factor: gated attention over an MLP's output, routing
NORMS = {"layer_norm", "group_norm", "rms_norm"}
_ARITHMETIC = {"add", "sub", "rsub", "mul", "div", "neg", "addcmul", "lerp", "copy", "where", "masked_fill", "scatter"}
_NONLINEAR_UNTAGGED = {"topk", "glu", "_prelu_kernel", "hardswish", "log_sigmoid_forward", "rrelu_with_noise"}


@dataclass(frozen=True)
class Tag:
    """Where a tensor comes from: the linears that made it, which of them passed a nonlinearity, and which ones."""

    producers: frozenset[str] = frozenset()
    activated: frozenset[str] = frozenset()
    nonlinearities: tuple[str, ...] = ()
    gated: bool = False
    fused: bool = False

    def through(self, nonlinearity: str) -> "Tag":
        steps = tuple(dict.fromkeys((*self.nonlinearities, nonlinearity)))
        activated = self.activated if self.gated else self.producers  # keeps up and gate distinct
        return dataclasses.replace(self, activated=activated, nonlinearities=steps)


def _union(tags: Iterable[Tag]) -> Tag:
    tags = list(tags)
    return Tag(
        frozenset().union(*(tag.producers for tag in tags)),
        frozenset().union(*(tag.activated for tag in tags)),
        tuple(dict.fromkeys(step for tag in tags for step in tag.nonlinearities)),
        any(tag.gated for tag in tags),
        any(tag.fused for tag in tags),
    )


@dataclass
class Linear:
    """A weight seen in a matrix product: widths of its input and output, and how often it ran."""

    d_in: int
    d_out: int
    axis: int = -1
    calls: int = 0
    map_tag: Tag | None = None
    order: str | None = None

    @property
    def is_stream(self) -> bool:
        """A 1x1 convolution after a sum of others starts a block of a residual network: no down projection."""
        return bool(self.map_tag) and self.axis < -2 and len(self.map_tag.producers) > 1 and not self.map_tag.gated


@dataclass
class Tracer(TorchDispatchMode):
    """Follows a forward pass from the model's `parameters`, by name, to its activation maps.

    `gathered` lists the parameters that are whole at the moment, if ranks hold only parts of them between uses.
    """

    parameters: dict[str, Tensor]
    gathered: Callable[[], Iterable[tuple[str, Tensor]]] | None = None
    linears: dict[str, Linear] = field(default_factory=dict)
    nonlinearities: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.tags = WeakTensorKeyDictionary()
        self.derived = WeakTensorKeyDictionary()
        self.rows = Rows()
        self.factors: set[str] = set()
        self.summands: set[str] = set()
        self.activated: set[str] = set()
        self.reached: set[str] = set()
        self.by_storage: dict[int, list[tuple[int, int, str]]] = {}
        self._know(self.parameters.items())

    def _know(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        for name, p in parameters:
            start = int(p.storage_offset())
            last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
            span = (start, start + last, name)
            if span not in (known := self.by_storage.setdefault(p.untyped_storage()._cdata, [])):
                known.append(span)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        whole_out = func(*args, **(kwargs or {}))
        if self.gathered is not None:
            args, kwargs, out = tree_map(local, (args, kwargs, whole_out))
        else:
            out = whole_out
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if outputs:
            name = func._schema.name.split("::")[1]
            name = name if name.startswith("_") else name.removesuffix("_")
            self._follow(func, name, args, operands, outputs)
            self.rows.follow(func, name, args, kwargs or {}, operands, outputs)
        return whole_out

    def _follow(self, func: Any, name: str, args: Any, operands: list[Tensor], outputs: list[Tensor]) -> None:
        weights = [self.weight_of(operand) for operand in operands]
        self.reached.update(filter(None, weights))
        if operands and all(weights):
            largest = max(zip(operands, weights, strict=True), key=lambda pair: pair[0].numel())[1]
            for output in outputs:
                self.derived[output] = largest
            return
        if name.startswith("index") and operands and weights[0]:  # experts' weights and biases, gathered by token
            if operands[0].dim() >= 3:
                self.derived[outputs[0]] = weights[0]
            else:
                self.tags[outputs[0]] = Tag()
            return
        if name in _MATRICES_AT:
            tag = self._product(name, args)
        elif name in _CONSTANTS:
            tag = Tag()
        elif func.is_view or name in _FIRST_OPERAND or "batch_norm" in name:
            tag = self.tags.get(operands[0]) if operands else None
        elif (norm := name.removeprefix("native_").removeprefix("_fused_")) in NORMS:
            tag = self.tags.get(operands[0])
            tag = tag.through(norm) if tag and tag.activated else None  # inside an MLP, not before one
        elif name == "cat":
            found = [self.tags.get(operand) for operand in operands]
            tag = _union(t for t in found if t) if all(found) else None
        elif torch.Tag.pointwise in func.tags or name in _ARITHMETIC or name in _NONLINEAR_UNTAGGED:
            tag = self._pointwise(name, operands, weights, outputs[0])
        else:
            tag = None
        for output in outputs:
            self._mark(output, tag)
            if func._schema.is_mutable and output._base is not None:
                self._write(output._base, output.numel(), tag)

    def _write(self, whole: Tensor, size: int, tag: Tag | None) -> None:
        """A view of `whole` was written to: all of it, or a part, as when a recurrence fills a buffer step by step."""
        before = self.tags.get(whole)
        if size == whole.numel():
            self._mark(whole, tag)
        elif before is not None:
            self._mark(whole, _union([before, tag]) if tag and before.producers else None)

    def _mark(self, tensor: Tensor, tag: Tag | None) -> None:
        if tag is not None:
            self.tags[tensor] = tag
        else:
            self.tags.pop(tensor, None)

    def weight_of(self, tensor: Tensor) -> str | None:
        if tensor.layout is torch.strided:
            start, storage = tensor.storage_offset(), tensor.untyped_storage()._cdata
            if storage not in self.by_storage and self.gathered is not None:
                self._know(self.gathered())
            for first, last, name in self.by_storage.get(storage, ()):
                if first <= start <= last:
                    return name
        return self.derived.get(tensor)

    def _product(self, name: str, args: Any) -> Tag | None:
        a, b = args[_MATRICES_AT[name] :][:2]
        weight = self.weight_of(b) or self.weight_of(a)
        if weight is None:
            self._strike(self.tags.get(a), self.tags.get(b))
            return None
        x, w = (a, b) if self.weight_of(b) else (b, a)
        tag: Tag | None = self.tags.get(x)
        if name == "convolution":
            groups = args[8]
            if groups > 1 and groups == w.shape[0]:
                # Depthwise, channels stay apart: inside an MLP (SegFormer), but also in a convolutional bottleneck.
                is_mlp = tag and (not tag.activated or all(self.linears[p].axis == -1 for p in tag.producers))
                return tag if is_mlp else None
            if any(size > 1 for size in w.shape[2:]):
                return None
            d_out, d_in = w.shape[0], w.shape[1] * groups  # SqueezeBERT's have groups
            if args[6]:  # transposed
                d_out, d_in = w.shape[1] * groups, w.shape[0]
        elif w is a or name == "linear":
            d_out, d_in = w.shape[-2:]
        else:
            d_in, d_out = w.shape[-2:]
        axis = 1 - w.dim() if name == "convolution" else -1
        linear = self.linears.setdefault(weight, Linear(d_in, d_out, axis))
        linear.calls += 1
        if linear.map_tag is None and tag and tag.activated:
            linear.map_tag = tag
            linear.order = self.rows.order(x) if axis == -1 else None
        return Tag(frozenset([weight]))

    def _pointwise(self, name: str, operands: list[Tensor], weights: list[str | None], output: Tensor) -> Tag | None:
        # Masks and token indices are no activations, unless they were computed from an activation.
        seen = [(x, self.tags.get(x)) for x, w in zip(operands, weights, strict=True) if not w]
        foreign = [x.numel() for x, tag in seen if tag is None and x.is_floating_point() and x.dim() > 0]
        full = output.numel() * (2 if name == "glu" else 1)
        tags = [tag for x, tag in seen if tag is not None and (x.numel() >= full or name in ("scatter", "topk"))]
        if name in ("mul", "div"):
            for x, tag in seen:
                larger = [y for y, other in seen if other and tag and y.numel() > x.numel() and other.producers]
                if larger or any(size >= x.numel() for size in foreign):
                    self._strike(tag)
        if name == "add" and len(tags) + sum(size >= full for size in foreign) > 1:
            self.summands |= {next(iter(tag.producers)) for tag in tags if len(tag.producers) == 1}
        if not tags or any(size >= full for size in foreign):
            return None
        tag = _union(tags)
        if name not in _ARITHMETIC:
            self.nonlinearities[name] = None
            if len(tag.producers) == 1 and not tag.activated and name != "pow":  # of a norm
                self.activated |= tag.producers
            return dataclasses.replace(tag.through(name), fused=tag.fused or name == "glu")
        if name == "mul" and len(tags) == 2 and tag.activated and all(t.producers for t in tags):
            if operands[0] is operands[1]:
                return tag.through("pow")
            if not tags[0].producers & tags[1].producers:
                return dataclasses.replace(tag, gated=True)
            if tags[0] != tags[1]:
                tag = dataclasses.replace(tag, fused=True)
                return tag.through("mul") if tag.nonlinearities in (("sigmoid",), ("tanh",)) else tag
        return tag

    def _strike(self, *tags: Tag | None) -> None:
        """An MLP's output is added to a stream; a weight whose output multiplies it is a gate (squeeze-excite)."""
        self.factors |= {next(iter(tag.producers)) for tag in tags if tag and len(tag.producers) == 1}

    @property
    def scales(self) -> list[str]:
        """Weights that would be down projections if their outputs were not factors of a stream (squeeze-excite)."""
        return [down for down, linear in self.linears.items() if linear.map_tag and down in self.factors]
