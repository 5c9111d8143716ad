"""Tables of measured models."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from lazyneuron.pages.charts import Run
from lazyneuron.pages.measured_layers import (
    Layer,
    by_stack,
    has_positive,
    is_dense,
    is_smooth,
    layers_of,
    least_and_most,
    mean_over,
    neurons,
)
from lazyneuron.pages.prose import decimal, integer, listed, share
from lazyneuron.records.table import Column, Table

_DENSITY = "density\n(%)"
_NEVER = "never\nactive"
_RARELY = "active at\n<1\u00a0% of tokens"
_HOT_90 = "90\u00a0% of\nactivity (%)"
_HOT_OVERLAP = "shared by\nhalves (%)"
_ENERGY_90 = "90\u00a0% of\nenergy (%)"
_ABOVE = "above 1\u00a0%\nof top (%)"
_POSITIVE = "positive\n(%)"
_OVERLAP = "overlap\n(%)"
_RANGE = "range over\nlayers (%)"
_TERMS = {
    "active,\nmean": "Active: how many neurons are not exactly zero for a token.",
    "active,\n99th": "99th pct: the number that 99\u00a0% of the tokens do not exceed.",
    _NEVER: "Never active: neurons that no token activated.",
    _RARELY: "Active at <1\u00a0% of tokens: how many neurons are, those never active among them.",
    _HOT_90: "90\u00a0% of activity: the least share of the neurons that makes up as much of all tokens' activity.",
    _HOT_OVERLAP: "Shared by halves: of the neurons that make up 90\u00a0% of the activity in either half of the data, "
    "the share that do so in both.",
    _ENERGY_90: "90\u00a0% of energy: the least share of the neurons that holds as much of a token's sum of squares.",
    _ABOVE: "Above 1\u00a0% of top: share of the neurons above 1\u00a0% of the token's largest.",
    _POSITIVE: "Positive: share of the neurons above zero; without a gate, these are the neurons that ReLU would keep.",
    _OVERLAP: "Overlap: of the neurons active in either of two neighbouring tokens, the share in both.",
    _RANGE: "Range: the least and the most, with the layer; of the energy's share where nearly all neurons are active.",
    "class\ntoken": "Class token, patches: the density there.",
}
_MEANS = {
    _DENSITY: "density",
    _ENERGY_90: "energy_90",
    _POSITIVE: "positive",
    "active\nneurons": "num_active",
    _ABOVE: "density_relative",
    _OVERLAP: "overlap",
}
_SAME = {"activation": "the activation is {}", "d_ff": "d_ff is {}", "tokens": "{} tokens were counted"}


@dataclass(frozen=True)
class _Measure:
    """A column, what a layer has there (None: nothing), and how the mean over layers is written, if it has one."""

    column: Column
    value: Callable[[Layer], Any]
    mean: Callable[[float], str] | None = None


def _measure(title: str, what: str, form: Callable[[Any], str] = share) -> _Measure:
    mean = decimal if form is integer else form
    return _Measure(Column(title, form), lambda layer: layer.numbers.get(what), mean)


_MEASURES = [
    _Measure(Column("layer"), lambda layer: f"{layer.stack} {layer.layer}".strip()),
    _Measure(Column("activation"), lambda layer: layer.activation or None),
    _Measure(Column("d_ff", integer), lambda layer: layer.d_ff),
    _Measure(Column("tokens", integer), lambda layer: layer.num_tokens),
    _measure(_DENSITY, "density"),
    _measure("active,\nmean", "num_active", decimal),
    _Measure(Column("active,\nmedian", integer), lambda layer: layer.quantile(0.5), decimal),
    _Measure(Column("active,\n99th pct", integer), lambda layer: layer.quantile(0.99), decimal),
    _measure(_NEVER, "never_fired", integer),
    _measure(_ENERGY_90, "energy_90"),
    _measure("99\u00a0% of\nenergy (%)", "energy_99"),
    _measure(_ABOVE, "density_relative"),
    _Measure(Column(_POSITIVE, share), lambda layer: layer.numbers["positive"] if has_positive(layer) else None, share),
    _measure(_OVERLAP, "overlap"),
    _measure("class\ntoken (%)", "density_class_token"),
    _measure("patches\n(%)", "density_patches"),
    _Measure(Column("site", is_path=True), lambda layer: layer.site or "(model)"),
]
_SPREAD = [
    _MEASURES[0],
    _measure(_NEVER, "never_fired", integer),
    _measure(_RARELY, "rarely_fired", integer),
    _measure(_HOT_90, "hot_90"),
    _measure("99\u00a0% of\nactivity (%)", "hot_99"),
    _measure(_HOT_OVERLAP, "hot_overlap"),
    _MEASURES[-1],
]


def by_layer(run: Run) -> Table:
    """One row per site with all that was measured there, and the means of each stack; empty columns are left out.

    Activation, width and number of tokens are notes where they are the same in all of several layers.
    """
    layers, measures, same = layers_of(run), [*_MEASURES], []
    for measure in [measure for measure in measures if measure.column.title in _SAME and len(layers) > 1]:
        values = {measure.value(layer) for layer in layers}
        if len(values) == 1 and (value := values.pop()) is not None:
            measures.remove(measure)
            same.append(_SAME[measure.column.title].format(measure.column.text(value)))
    table = _rows_by_layer(layers, measures, f"Each layer of {run.name}")
    return _explained(table, f"In every layer {listed(same)}." if same else "")


def spread_by_layer(run: Run) -> Table:
    """One row per site with how its activity is spread over its neurons; no row where that was not recorded."""
    layers = [layer for layer in layers_of(run) if "hot_90" in layer.numbers]
    return _explained(_rows_by_layer(layers, _SPREAD, f"How the activity is spread over the neurons of {run.name}"))


def _rows_by_layer(layers: Sequence[Layer], measures: Sequence[_Measure], title: str) -> Table:
    foot = [_means(stack, part, measures) for stack, part in by_stack(layers)]
    return Table(
        columns=[measure.column for measure in measures],
        rows=[[measure.value(layer) for measure in measures] for layer in layers],
        foot=foot if len(layers) > len(foot) else [],
        title=title,
        missing="n/a",
    )


def _means(stack: str, layers: Sequence[Layer], measures: Sequence[_Measure]) -> list[str]:
    """A stack's means over its layers, as text: "" where a column has none."""
    means = [f"{stack} mean".strip()]
    for measure in measures[1:]:
        values = [value for layer in layers if (value := measure.value(layer)) is not None]
        means.append(measure.mean(fmean(values)) if measure.mean and values else "")
    return means


def _explained(table: Table, first: str = "") -> Table:
    """The table without empty columns, with what its columns mean as notes."""
    table = table.without_empty_columns()
    titles = " ".join(column.title for column in table.columns)
    notes = [*filter(None, [first]), *(text for title, text in _TERMS.items() if title in titles)]
    return replace(table, notes=notes)


def compared(runs: Sequence[Run]) -> Table:
    """One row per model and stack: its sizes, and means over its layers; empty columns are left out."""
    columns = [Column("model"), Column("stack"), Column("activation"), Column(_DENSITY, share), Column(_RANGE)]
    columns += [Column("active\nneurons", decimal), Column(f"{_NEVER} (%)", share), Column(_ENERGY_90, share)]
    columns += [Column(_ABOVE, share), Column(_OVERLAP, share), Column("layers", integer)]
    columns += [Column("d_ff", ""), Column("tokens", "")]
    if any(is_smooth(layer) for run in runs for layer in layers_of(run)):
        columns.insert(3, columns.pop(7))
        columns.insert(4, Column(_POSITIVE, share))
    rows = []
    for run in runs:
        for stack, part in by_stack(layers_of(run)):
            dead = neurons(part, "never_fired")
            row: dict[str, Any] = {"model": run.name, "stack": stack}
            row["activation"] = _several(layer.activation for layer in part)
            row |= {title: mean_over(part, what) for title, what in _MEANS.items()}
            row |= {_RANGE: _range(part), f"{_NEVER} (%)": dead and dead[0] / dead[1], "layers": len(part)}
            row["d_ff"] = _several(integer(layer.d_ff) for layer in part if layer.d_ff is not None)
            row["tokens"] = _several(integer(layer.num_tokens) for layer in part if layer.num_tokens is not None)
            rows.append([row[column.title] for column in columns])
    return _explained(Table(columns, rows, title="The models compared", missing="n/a"))


def _range(layers: Sequence[Layer]) -> str | None:
    """The least and the most over the layers: of the density, or of the share of the energy where that is all."""
    what, name = ("energy_90", "energy") if is_dense(layers) else ("density", "density")
    if (ends := least_and_most(layers, what)) is None:
        return None
    texts = dict.fromkeys(f"{share(layer.numbers[what])}\u00a0({layer.layer})" for layer in ends)
    return f"{name}\u00a0{' to '.join(texts)}"


def _several(texts: Iterable[str]) -> str:
    """The different ones of several texts, or the first and the last of many."""
    found = list(dict.fromkeys(texts))
    return ", ".join(found) if len(found) < 4 else f"{found[0]} … {found[-1]}"
