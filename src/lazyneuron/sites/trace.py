"""The tracing of one forward pass that tells up, gate and down projections from other weights.

Every operation of the pass is seen by a `TorchDispatchMode`. The output of a matrix product with one weight operand
carries a tag that names the weight; pointwise arithmetic and reshapes pass tags on, nonlinearities mark them, and
whatever mixes activations (attention, reductions, normalisation) drops them. A matrix product whose input carries a
marked tag is a down projection, and the tag names its up and gate.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from lazyneuron.sites.site import Site

_MATRICES_AT = {"addmm": 1, "addmv": 1, "baddbmm": 1, "mm": 0, "bmm": 0, "mv": 0, "linear": 0, "convolution": 0}
_MATRICES_AT |= {"_grouped_mm": 0, "grouped_mm_fallback": 0}
_FIRST_OPERAND = {"index", "index_select", "gather", "repeat", "clone", "_to_copy", "_unsafe_view", "flip", "roll"}
_FIRST_OPERAND |= {"native_dropout", "_reshape_alias", "constant_pad_nd"}
_CONSTANTS = {"zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "scalar_tensor"}
_CONSTANTS |= {"empty_like", "bernoulli", "rand_like"}  # dropout, where it is on in eval mode too
_ARITHMETIC = {"add", "sub", "rsub", "mul", "div", "neg", "addcmul", "lerp", "copy", "where", "masked_fill", "scatter"}
_NONLINEAR_UNTAGGED = {"topk", "glu", "_prelu_kernel", "hardswish", "log_sigmoid_forward", "rrelu_with_noise"}
_ACTIVATION_NAMES = {
    ("threshold",): "relu",
    ("clamp_min",): "relu",
    ("relu", "pow"): "relu^2",
    ("pow", "tanh"): "gelu",
    ("tanh", "mul"): "gelu",
    ("erf",): "gelu",
    ("glu",): "sigmoid",
    ("hardtanh",): "relu6",
}


@dataclass(frozen=True)
class _Tag:
    """Where a tensor comes from: the linears that made it, those of them that passed a nonlinearity, and which ones."""

    producers: frozenset[str] = frozenset()
    activated: frozenset[str] = frozenset()
    nonlinearities: tuple[str, ...] = ()
    gated: bool = False

    def through(self, nonlinearity: str) -> "_Tag":
        steps = tuple(dict.fromkeys((*self.nonlinearities, nonlinearity)))
        return dataclasses.replace(self, activated=self.producers, nonlinearities=steps)


def _union(tags: Iterable[_Tag]) -> _Tag:
    tags = list(tags)
    return _Tag(
        frozenset().union(*(tag.producers for tag in tags)),
        frozenset().union(*(tag.activated for tag in tags)),
        tuple(dict.fromkeys(step for tag in tags for step in tag.nonlinearities)),
        any(tag.gated for tag in tags),
    )


@dataclass
class _Linear:
    """A weight seen in a matrix product: widths of its input and output, and how often it ran."""

    d_in: int
    d_out: int
    calls: int = 0
    map_tag: _Tag | None = None


@dataclass
class Tracer(TorchDispatchMode):
    parameters: dict[str, Tensor]
    linears: dict[str, _Linear] = field(default_factory=dict)
    nonlinearities: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.tags = WeakTensorKeyDictionary()
        self.derived = WeakTensorKeyDictionary()
        self.factors: set[str] = set()
        self.by_storage: dict[int, list[tuple[int, int, str]]] = {}
        for name, p in self.parameters.items():
            start = int(p.storage_offset())
            last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
            span = (start, start + last, name)
            self.by_storage.setdefault(p.untyped_storage()._cdata, []).append(span)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if outputs:
            name = func._schema.name.split("::")[1]
            self._follow(func, name if name.startswith("_") else name.removesuffix("_"), args, operands, outputs)
        return out

    def _follow(self, func: Any, name: str, args: Any, operands: list[Tensor], outputs: list[Tensor]) -> None:
        weights = [self.weight_of(operand) for operand in operands]
        if operands and all(weights):
            largest = max(zip(operands, weights, strict=True), key=lambda pair: pair[0].numel())[1]
            for output in outputs:
                self.derived[output] = largest
            return
        if name.startswith("index") and operands and weights[0]:  # experts' weights and biases, gathered by token
            if operands[0].dim() >= 3:
                self.derived[outputs[0]] = weights[0]
            else:
                self.tags[outputs[0]] = _Tag()
            return
        if name in _MATRICES_AT:
            tag = self._product(name, args)
        elif name in _CONSTANTS:
            tag = _Tag()
        elif func.is_view or name in _FIRST_OPERAND or "batch_norm" in name:
            tag = self.tags.get(operands[0]) if operands else None
        elif name == "cat":
            found = [self.tags.get(operand) for operand in operands]
            tag = _union(t for t in found if t) if all(found) else None
        elif torch.Tag.pointwise in func.tags or name in _ARITHMETIC or name in _NONLINEAR_UNTAGGED:
            tag = self._pointwise(name, operands, weights, outputs[0])
        else:
            tag = None
        for output in outputs:
            if tag is not None:
                self.tags[output] = tag
            elif output in self.tags:
                del self.tags[output]

    def weight_of(self, tensor: Tensor) -> str | None:
        if tensor.layout is torch.strided:
            start = tensor.storage_offset()
            for first, last, name in self.by_storage.get(tensor.untyped_storage()._cdata, ()):
                if first <= start <= last:
                    return name
        return self.derived.get(tensor)

    def _product(self, name: str, args: Any) -> _Tag | None:
        a, b = args[_MATRICES_AT[name] :][:2]
        weight = self.weight_of(b) or self.weight_of(a)
        if weight is None:
            self._strike(self.tags.get(a), self.tags.get(b))
            return None
        x, w = (a, b) if self.weight_of(b) else (b, a)
        tag: _Tag | None = self.tags.get(x)
        if name == "convolution":
            groups = args[8]
            if groups > 1 and groups == w.shape[0]:  # depthwise: channels stay apart, as in SegFormer's MLP
                return tag if tag and not tag.activated else None
            if groups > 1 or any(size > 1 for size in w.shape[2:]):
                return None
            d_out, d_in = w.shape[:2]
        elif w is a or name == "linear":
            d_out, d_in = w.shape[-2:]
        else:
            d_in, d_out = w.shape[-2:]
        linear = self.linears.setdefault(weight, _Linear(d_in, d_out))
        linear.calls += 1
        if linear.map_tag is None and tag and tag.activated:
            linear.map_tag = tag
        return _Tag(frozenset([weight]))

    def _pointwise(self, name: str, operands: list[Tensor], weights: list[str | None], output: Tensor) -> _Tag | None:
        # Masks and token indices are no activations, unless they were computed from one.
        seen = [(x, self.tags.get(x)) for x, w in zip(operands, weights, strict=True) if not w]
        foreign = [x.numel() for x, tag in seen if tag is None and x.is_floating_point() and x.dim() > 0]
        full = output.numel() * (2 if name == "glu" else 1)
        tags = [tag for x, tag in seen if tag is not None and (x.numel() >= full or name in ("scatter", "topk"))]
        if name in ("mul", "div"):
            self._strike(*(tag for x, tag in seen if tag and any(size >= x.numel() for size in foreign)))
        if not tags or any(size >= full for size in foreign):
            return None
        tag = _union(tags)
        if name not in _ARITHMETIC:
            self.nonlinearities[name] = None
            return tag.through(name)
        if name == "mul" and len(tags) == 2 and tag.activated and all(t.producers for t in tags):
            if operands[0] is operands[1]:
                return tag.through("pow")
            if not tags[0].producers & tags[1].producers:
                return dataclasses.replace(tag, gated=True)
            if tags[0] != tags[1] and tag.nonlinearities in (("sigmoid",), ("tanh",)):
                return tag.through("mul")
        return tag

    def _strike(self, *tags: _Tag | None) -> None:
        """An MLP's output is added to a stream; one that multiplies it is a gate (squeeze-excite), no site."""
        self.factors |= {next(iter(tag.producers)) for tag in tags if tag and len(tag.producers) == 1}

    def sites(self) -> list[Site]:
        found = {down: self._site(down, hit.map_tag) for down, hit in self.linears.items() if hit.map_tag}
        sites = {down: site for down, site in found.items() if down not in self.factors}
        # The layers of a deep head feed each other; an MLP in a residual block does not.
        ups = {up for site in sites.values() for up in (site.up, site.gate)}
        sites = _prefer(sites, {d for d, s in sites.items() if d not in ups and s.up not in sites})
        block = Counter(re.sub(r"\d+", "*", down) for down in sites)

        def returns(down: str, site: Site) -> bool:
            repeats = block[re.sub(r"\d+", "*", down)] > 1 or self.linears[down].calls > 1
            return self.linears[down].d_out == site.d_model and (repeats or bool(site.gate) or site.d_ff > site.d_model)

        sites = _prefer(sites, {down for down, site in sites.items() if returns(down, site)})
        sites = {down: site for known in sites.values() for down, site in self._siblings(known)}
        names = Counter(site.name for site in sites.values())
        return [
            site if names[site.name] == 1 else dataclasses.replace(site, name=down.rpartition(".")[0])
            for down, site in sites.items()
        ]

    def _siblings(self, site: Site) -> Iterator[tuple[str, Site]]:
        """The site, and its twins that the pass did not reach: experts that got no token differ in a number alone."""
        yield site.down, site
        stem = site.name.rstrip("0123456789")
        if stem == site.name:
            return
        inside = [name and name.removeprefix(site.name) for name in (site.up, site.gate, site.down)]
        for down, parameter in self.parameters.items():
            twin = down.removesuffix(str(inside[2]))
            if down in self.linears or twin == down or twin.rstrip("0123456789") != stem:
                continue
            if parameter.shape == self.parameters[site.down].shape:
                up, gate, _ = (part and twin + part for part in inside)
                yield down, dataclasses.replace(site, name=twin, up=str(up), gate=gate, down=down)

    def _site(self, down: str, tag: _Tag) -> Site:
        def largest(names: frozenset[str]) -> str:
            order = [name for name in self.linears if name in names]
            return max(order, key=lambda name: self.linears[name].d_in * self.linears[name].d_out)

        d_ff = self.linears[down].d_in
        gate = None
        if tag.gated:
            gate = largest(tag.activated)
            up = largest((tag.producers - tag.activated) or (tag.producers - {gate}))
        else:
            up = largest(tag.producers)
            if self.linears[up].d_out == 2 * d_ff:
                gate = up
        activation = _ACTIVATION_NAMES.get(tag.nonlinearities) or "+".join(tag.nonlinearities)
        modules = [name.split(".")[:-1] for name in (up, gate or up, down)]
        shared = 0
        while all(len(path) > shared and path[shared] == modules[0][shared] for path in modules):
            shared += 1
        return Site(".".join(modules[0][:shared]), up, gate, down, self.linears[up].d_in, d_ff, activation)


def _prefer(sites: dict[str, Site], chosen: set[str]) -> dict[str, Site]:
    return {down: site for down, site in sites.items() if down in chosen} if chosen else sites
