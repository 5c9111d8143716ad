"""Measured models by layer: records to one value per site, and the colours that their charts share."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import altair as alt

from lazyneuron.pages.charts import Row, Run
from lazyneuron.records.record import Record

NEARLY_ALL = 0.99
_STACKS = ["encoder", "decoder"]
_NOT_RELU = ("leaky", "prelu", "rrelu")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What was measured at one site: finite numbers by their `what`, curves as points (x, value) in order of x.

    `layer` is the record's number, `row` the site's place in its stack, from 0; they differ where sites share a layer.
    """

    stack: str
    layer: int
    row: int
    site: str
    activation: str
    d_ff: int | None
    num_tokens: int | None
    numbers: dict[str, float]
    curves: dict[str, list[tuple[float, float]]]

    def fraction(self, what: str) -> float | None:
        """A number as a fraction of the neurons, also of those that are counts of neurons; None if it is not known."""
        value = self.numbers.get(what)
        if value is None or not what.endswith("_fired"):
            return value
        return value / self.d_ff if self.d_ff else None

    def quantile(self, q: float) -> float | None:
        """The number of active neurons that a fraction `q` of the tokens do not exceed, if it was recorded."""
        return dict(self.curves.get("num_active_quantile", [])).get(q)


def is_measured(run: Run) -> bool:
    """Whether the run measured a model as it is, rather than trained one or checked a theorem."""
    return run.config.get("name") == "measure" or any(record.recipe == "measure" for record in run.records)


def layers_of(run: Run) -> list[Layer]:
    """The sites of a measured model in order of stack and layer, each with all that its records say."""
    by_place: dict[tuple[str, int | None, str], list[Record]] = defaultdict(list)
    for record in run.records:
        by_place[record.stack, record.layer, record.site].append(record)
    sites = {site["name"]: site for site in run.config.get("sites", [])}
    found: list[Layer] = []
    for place in sorted(by_place, key=lambda at: (_STACKS.index(at[0]) if at[0] in _STACKS else 2, at[1] or 0)):
        stack, number, name = place
        numbers: dict[str, float] = {}
        curves: dict[str, dict[float, float]] = defaultdict(dict)
        for record in by_place[place]:
            if record.x is not None and math.isfinite(record.value):
                curves[record.what][record.x] = record.value
            elif math.isfinite(record.value):
                numbers[record.what] = record.value
        site, row = sites.get(name, {}), sum(other.stack == stack for other in found)
        activation = " ".join(filter(None, ["gated" if site.get("is_gated") else "", str(site.get("activation", ""))]))
        size = round(numbers.get("num_active", 0) / density) if (density := numbers.get("density")) else None
        layer = Layer(
            stack=stack, layer=row if number is None else number, row=row, site=name,
            activation=activation, d_ff=site.get("d_ff", size),
            num_tokens=by_place[place][-1].num_tokens, numbers=numbers,
            curves={what: sorted(curve.items()) for what, curve in curves.items()},
        )  # fmt: skip
        found.append(layer)
    return found


def is_dense(layers: Sequence[Layer]) -> bool:
    """Whether nearly every neuron of every layer is active: then a chart of which ones are shows nothing."""
    found = [layer.numbers["density"] for layer in layers if "density" in layer.numbers]
    return bool(found) and min(found) > NEARLY_ALL


def is_smooth(layer: Layer) -> bool:
    """Whether the activation hardly ever gives an exact zero, as GELU and SiLU do."""
    return not _is_relu_like(layer) and layer.numbers.get("density", 0) > 0.5


def has_positive(layer: Layer) -> bool:
    """Whether the fraction above zero was recorded and says something: of a ReLU it is the density once more."""
    is_known = layer.activation not in ("", "gated")
    return "positive" in layer.numbers and (is_smooth(layer) or (is_known and not _is_relu_like(layer)))


def _is_relu_like(layer: Layer) -> bool:
    name = layer.activation.lower()
    return "relu" in name and not any(other in name for other in _NOT_RELU)


def at_layer(layer: Layer) -> Row:
    """The fields of a row that say where it was measured."""
    keys = ("stack", "layer", "row", "site", "num_tokens")
    return {key: getattr(layer, key) for key in keys}


def layer_color(layers: Sequence[Layer], legend: bool = True) -> alt.Color:
    """Layers as colours, the same in all panels; the legend has a column for each 14."""
    numbers = sorted({layer.layer for layer in layers})
    columns = math.ceil(len(numbers) / 14) if len(numbers) > 14 else alt.Undefined
    shown = alt.Legend(title="layer", columns=columns, symbolLimit=0) if legend else None
    return alt.Color("layer:O", sort="ascending", scale=alt.Scale(domain=numbers), legend=shown)


def by_stack(layers: Sequence[Layer]) -> list[tuple[str, list[Layer]]]:
    """Stacks and their layers."""
    stacks = dict.fromkeys(layer.stack for layer in layers)
    return [(stack, [layer for layer in layers if layer.stack == stack]) for stack in stacks]


def least_and_most(layers: Sequence[Layer], what: str) -> tuple[Layer, Layer] | None:
    """The layers of the least and of the most of `what`, if any has it."""
    found = sorted((layer for layer in layers if what in layer.numbers), key=lambda at: at.numbers[what])
    return (found[0], found[-1]) if found else None


def neurons(layers: Sequence[Layer], what: str) -> tuple[float, int] | None:
    """Neurons counted as `what`, such as "never_fired", and all neurons of the layers where they were counted."""
    found = [layer for layer in layers if what in layer.numbers and layer.d_ff]
    total = sum(layer.d_ff or 0 for layer in found)
    return (sum(layer.numbers[what] for layer in found), total) if found else None


def mean_over(layers: Sequence[Layer], what: str) -> float | None:
    """The mean of `what` over the layers that have it."""
    values = [layer.numbers[what] for layer in layers if what in layer.numbers]
    return fmean(values) if values else None
