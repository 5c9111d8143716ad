"""FLOPs and weight bytes of a forward pass by part of the model, and what density could save: counted, never timed."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from lazyneuron.records.table import Column, Table
from lazyneuron.sites import Site, clean_name, given_sites, unwrap
from lazyneuron.sites.dry_run import Inputs, as_call, dry_run
from lazyneuron.sites.trace import Tracer

PARTS = ("attention", "mlp_up", "mlp_down", "head", "other")
_LOOKUPS = ("embedding", "index", "index_select", "gather")
_ADDED_TO = ("addmm", "addmv", "baddbmm")
_GROUPED = ("_grouped_mm", "grouped_mm_fallback")
_ACTIVATIONS, _NOTHING = "(activations)", "(nothing)"  # in place of a weight's name in products without one


def _matmul_flops(x: Tensor, w: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    return 2 * out_val.numel() * x.shape[-1]


# Torch's formulas by the operation's name, and those that it lacks (2.13): CPU attention, experts, vectors.
_FORMULAS: dict[str, Any] = {str(op).rpartition(".")[2]: formula for op, formula in flop_registry.items()}
_FORMULAS |= dict.fromkeys((*_GROUPED, "linear", "mv"), _matmul_flops)
_FORMULAS["addmv"] = lambda bias, *args, **kwargs: _matmul_flops(*args, **kwargs)
_FORMULAS["_scaled_dot_product_flash_attention_for_cpu"] = flop_registry[
    torch.ops.aten._scaled_dot_product_flash_attention
]


@dataclass(frozen=True)
class PartCost:
    """FLOPs and weight bytes of one part in one pass: dense, and simulated at the given densities."""

    dense_flops: int
    simulated_flops: float
    dense_weight_bytes: int
    simulated_weight_bytes: float


@dataclass(frozen=True)
class Cost:
    """FLOPs and weight bytes of one forward pass by part (`PARTS`): dense as counted, and simulated at a density.

    Simulated figures assume that down projections neither multiply by nor read the weights of inactive neurons; nothing
    of this was run or timed. FLOPs are for all tokens of the pass. Weight bytes count each weight once per pass, so
    they are bytes per token when decoding at batch 1. Simulated bytes hold only there: several tokens read every row
    that any of them needs.
    """

    parts: Mapping[str, PartCost]
    num_tokens: int
    simulated: bool

    @property
    def total(self) -> PartCost:
        return PartCost(*(sum(column) for column in zip(*map(astuple, self.parts.values()), strict=True)))

    @property
    def dense_flops_per_token(self) -> float:
        return self.total.dense_flops / self.num_tokens

    @property
    def simulated_flops_per_token(self) -> float:
        return self.total.simulated_flops / self.num_tokens

    @property
    def mlp_share(self) -> float:
        """The MLPs' share of all weight bytes read densely, in [0, 1]; 0 where nothing is read."""
        mlp = self.parts["mlp_up"].dense_weight_bytes + self.parts["mlp_down"].dense_weight_bytes
        return mlp / self.total.dense_weight_bytes if mlp else 0.0

    @property
    def simulated_mlp_read(self) -> float:
        """Share of the MLPs' weight bytes still read, in [0, 1]; (1 + density) / 2 for a plain MLP without biases."""
        up, down = self.parts["mlp_up"], self.parts["mlp_down"]
        mlp = up.dense_weight_bytes + down.dense_weight_bytes
        return (up.simulated_weight_bytes + down.simulated_weight_bytes) / mlp if mlp else 1.0

    @property
    def speedup_limit(self) -> float:
        """Upper limit of the speed-up if reading weights takes all the time: 1 / (1 - f + f phi).

        f is `mlp_share`, phi `simulated_mlp_read`. It holds at one token per pass, and is not a promise.
        """
        return 1 / (1 - self.mlp_share + self.mlp_share * self.simulated_mlp_read)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def table(self) -> Table:
        """One line per part and the total: MFLOPs per token and weight MB per pass, dense and (if given) simulated."""
        titles = ("dense MFLOP/token", "simulated MFLOP/token", "dense weight MB", "simulated weight MB")
        shown = range(4) if self.simulated else (0, 2)
        rows = []
        for name, part in (*self.parts.items(), ("total", self.total)):
            flops = (value / self.num_tokens / 1e6 for value in (part.dense_flops, part.simulated_flops))
            numbers = [*flops, part.dense_weight_bytes / 1e6, part.simulated_weight_bytes / 1e6]
            rows.append([name, *(numbers[place] for place in shown)])
        notes = [f"{self.num_tokens} tokens; MLPs hold {100 * self.mlp_share:.1f} % of the weight bytes read"]
        if self.simulated:
            notes.append(
                f"simulated at one token per pass: {100 * self.simulated_mlp_read:.1f} % of the MLP bytes still read, "
                f"speed-up at most {self.speedup_limit:.2f} (a limit, nothing was timed)"
            )
        columns = [Column("part"), *(Column(titles[place], ".3f") for place in shown)]
        return Table(columns, rows, notes=notes)


def cost(
    model: nn.Module,
    sites: Sequence[Site],
    example_inputs: Inputs,
    density: Mapping[str, float] | None = None,
    *,
    num_tokens: int | None = None,
) -> Cost:
    """FLOPs and weight bytes of the call `model(example_inputs)`: dense as counted, and simulated at `density`.

    One forward pass runs on a copy of the inputs, as in `find_sites`, and leaves the model as it was. Model and inputs
    may be on the meta device, where nothing is allocated.

    A multiplication in a matrix product or convolution is two FLOPs. Attention counts in full (no causal half), experts
    for the tokens routed to them, and nothing else counts. Each parameter that is read counts its bytes once per pass,
    however often it is used; embeddings count the rows looked up, experts only if they have a token. Parts are found by
    tracing: "mlp_up" (with gate) and "mlp_down" are those of the sites, "attention" is products of two activations and
    the weights directly before and after one, "head" the weights whose product is an output of the model, "other" the
    rest. A tied weight belongs to the part of its product.

    `density` maps site names to the active fraction, as `Probe.density`; other sites stay dense. At density rho a down
    projection needs rho times its FLOPs and, at one token per pass, rho times its weight's bytes; up and gate stay
    dense. These savings are simulated.

    `num_tokens` divides the per-token figures. By default it is the tokens (batch times positions, with padding) of the
    last attention's output projection, or else of the last down projection. In an encoder-decoder these are the
    decoder's tokens, and they carry the encoder's FLOPs too.

    ValueError for sites of another model, sites that the pass does not reach, a density of an unknown site, outside
    [0, 1], or nan where tokens pass, and for no tokens. Source: arXiv 2210.06313 (the second product shrinks in
    proportion to density).
    """
    module = unwrap(model)
    parameters: dict[str, Tensor] = {clean_name(name): p for name, p in module.named_parameters()}
    roles, keep = _checked(module, sites, density or {})
    tracer = Tracer(parameters)
    meter = _Meter(tracer)
    output = dry_run(module, *as_call(example_inputs), modes=[tracer, meter])
    if sites and roles.keys().isdisjoint(meter.rows):
        raise ValueError(f"the pass reached none of the {len(sites)} sites: give example_inputs that run the MLPs")
    for site in sites:
        if site.down in meter.rows and math.isnan(keep.get(site.down, 1.0)):
            raise ValueError(f"site {site.name!r}: density is nan (no token seen); measure it on inputs that reach it")

    outputs = [meter.made_of([leaf]) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    heads = {name for names in outputs if len(names) == 1 for name in names} - meter.feeds_attention
    attention = meter.feeds_attention | meter.fed_by_attention
    roles = dict.fromkeys(attention, "attention") | dict.fromkeys(heads, "head") | roles
    weight_bytes = meter.weight_bytes()

    def total(counts: Mapping[str, int], part: str, keep: Mapping[str, float]) -> Any:
        names = (n for n in counts if (roles.get(n) or roles.get(meter.owner.get(n, n), "other")) == part)
        return sum(counts[name] * keep.get(name, 1) for name in names)

    counts = (meter.flops, {}), (meter.flops, keep), (weight_bytes, {}), (weight_bytes, keep)
    parts = {part: PartCost(*(total(count, part, kept) for count, kept in counts)) for part in PARTS}
    return Cost(parts, _num_tokens(meter, roles, num_tokens), density is not None)


class _Meter(TorchDispatchMode):
    """Counts the products and reads of one pass, by parameter; `tracer` runs around it and knows the parameters."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer
        self.origins = WeakTensorKeyDictionary()  # the weights whose products an activation is made of
        self.flops: Counter[str] = Counter()
        self.rows: dict[str, int] = {}  # by weight, in order of execution: the tokens of its latest product
        self.feeds_attention = {_ACTIVATIONS}
        self.fed_by_attention: set[str] = set()
        self.owner: dict[str, str] = {}  # biases: the weight in whose product they are added
        self._looked_up: Counter[str] = Counter()  # elements
        self._read: dict[tuple[str, int], int] = {}  # elements, by parameter and slice of it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not outputs:
            return out
        name = func._schema.name.split("::")[1]
        origins = self.made_of(operands)
        if name in _FORMULAS:
            flops = _FORMULAS[name](*args, **kwargs, out_val=out)
            origins = self._product(name, args, flops, operands, outputs[0])
        elif not func.is_view:
            self._other(name, operands, outputs[0])
        for output in outputs:
            if origins:
                self.origins[output] = origins
            elif output in self.origins:
                del self.origins[output]
        return out

    def made_of(self, tensors: Iterable[Tensor]) -> frozenset[str]:
        return frozenset(name for tensor in tensors for name in self.origins.get(tensor) or ())

    def _product(self, name: str, args: Any, flops: int, operands: list[Tensor], output: Tensor) -> frozenset[str]:
        """Count a product; returns the weights whose products its output is made of."""
        first = int(name in _ADDED_TO)
        factors: Sequence[Tensor] = args[first : first + (3 if "attention" in name else 2)]
        names = [self.tracer.weight_of(factor) for factor in factors]
        for operand in operands:
            if (bias := self.tracer.weight_of(operand)) and bias not in names and any(names):
                self.owner.setdefault(bias, next(filter(None, names)))
                self._reads(bias, operand, operand.numel())
        if not any(names):
            made_of = self.made_of(factors)
            self.flops[_ACTIVATIONS if made_of else _NOTHING] += flops  # nothing: rotary angles of positions
            self.feeds_attention |= made_of
            return frozenset([_ACTIVATIONS]) if made_of else made_of
        weight, w = max(((n, f) for n, f in zip(names, factors, strict=True) if n), key=lambda pair: pair[1].numel())
        read = w.numel()
        if name in _GROUPED and not (ends := operands[2]).is_meta:
            read = read // len(ends) * int((ends.diff(prepend=ends.new_zeros(1)) > 0).sum())
        self._reads(weight, w, read)
        self.flops[weight] += flops
        if all(names):
            return frozenset()
        x = factors[0] if names[0] is None else factors[1]
        self.rows[weight] = 2 * x.numel() * output.numel() // flops if flops else 0
        if _ACTIVATIONS in self.made_of([x]):
            self.fed_by_attention.add(weight)
        return frozenset([weight])

    def _other(self, name: str, operands: list[Tensor], output: Tensor) -> None:
        for operand in operands:
            if parameter := self.tracer.weight_of(operand):
                if name not in _LOOKUPS:
                    self._reads(parameter, operand, operand.numel())
                elif not self.tracer.weight_of(output):  # else experts gathered by token: their product reads them
                    self._looked_up[parameter] += output.numel()

    def _reads(self, parameter: str, slice: Tensor, elements: int) -> None:
        key = parameter, int(slice.storage_offset())
        self._read[key] = max(self._read.get(key, 0), elements)

    def weight_bytes(self) -> dict[str, int]:
        """Bytes read of each parameter, each element at most once."""
        elements = self._looked_up.copy()
        for (name, _), count in self._read.items():
            elements[name] += count
        parameters = self.tracer.parameters
        return {n: min(e, parameters[n].numel()) * parameters[n].element_size() for n, e in elements.items()}


def _checked(
    model: nn.Module, sites: Sequence[Site], density: Mapping[str, float]
) -> tuple[dict[str, str], dict[str, float]]:
    """The parts of the sites' weights, and the densities by down weight."""
    if sites:
        given_sites(model, sites)
    known = [site.name for site in sites]
    for name, value in density.items():
        if name not in known:
            raise ValueError(f"density[{name!r}] is of no site: the sites are {', '.join(map(repr, known[:3]))}, ...")
        if value < 0 or value > 1:
            raise ValueError(f"density[{name!r}] is {value}: pass the active fraction, from 0 to 1")
    roles = {site.down: "mlp_down" for site in sites}
    roles |= {name: "mlp_up" for site in sites for name in (site.up, site.gate) if name}
    kept = {site.down: density[site.name] for site in sites if site.name in density}
    return roles, {down: value for down, value in kept.items() if roles[down] == "mlp_down"}


def _num_tokens(meter: _Meter, roles: Mapping[str, str], given: int | None) -> int:
    """Tokens of the last attention's output projection, else of the last down projection."""
    attended = [
        rows for name, rows in meter.rows.items() if name in meter.fed_by_attention and roles[name] == "attention"
    ]
    last = attended or [rows for name, rows in meter.rows.items() if roles.get(name) == "mlp_down"]
    tokens = last[-1] if given is None and last else given or 0
    if tokens < 1:
        raise ValueError(f"cannot divide by {tokens} tokens: pass num_tokens=, the tokens that the pass stands for")
    return tokens
