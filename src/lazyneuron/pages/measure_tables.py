"""Tables, sentences and warnings about measured models."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from lazyneuron.pages.charts import Run
from lazyneuron.pages.measured_layers import Layer, has_positive, is_dense, is_smooth, layers_of
from lazyneuron.pages.prose import almost_all, listed, percent
from lazyneuron.records.table import Column, Table

_LISTED = 12
_DENSITY = "density\n(%)"
_NEVER = "never\nactive"
_ENERGY_90 = "90\u00a0% of\nenergy (%)"
_ABOVE = "above 1\u00a0%\nof top (%)"
_POSITIVE = "positive\n(%)"
_OVERLAP = "overlap\n(%)"
_RANGE = "range over\nlayers (%)"
_TERMS = {
    "active,\nmean": "Active: how many neurons are not exactly zero for a token.",
    "active,\n99th": "99th pct: the number that 99\u00a0% of the tokens do not exceed.",
    _NEVER: "Never active: neurons that no token activated.",
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


def _integer(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    """A fraction in percent to three digits, trailing zeros too, so that a column of them is even."""
    size = 100 * abs(value)
    decimals = max(0, 2 - math.floor(math.log10(float(f"{size:.3g}")))) if size else 0
    return almost_all(value) or f"{100 * value:.{decimals}f}"


def _decimal(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


@dataclass(frozen=True)
class _Measure:
    """A column, what a layer has there (None: nothing), and how the mean over layers is written, if it has one."""

    column: Column
    value: Callable[[Layer], Any]
    mean: Callable[[float], str] | None = None


def _measure(title: str, what: str, form: Callable[[Any], str] = _share) -> _Measure:
    mean = _decimal if form is _integer else form
    return _Measure(Column(title, form), lambda layer: layer.numbers.get(what), mean)


_MEASURES = [
    _Measure(Column("layer"), lambda layer: f"{layer.stack} {layer.layer}".strip()),
    _Measure(Column("activation"), lambda layer: layer.activation or None),
    _Measure(Column("d_ff", _integer), lambda layer: layer.d_ff),
    _Measure(Column("tokens", _integer), lambda layer: layer.num_tokens),
    _measure(_DENSITY, "density"),
    _measure("active,\nmean", "num_active", _decimal),
    _Measure(Column("active,\nmedian", _integer), lambda layer: layer.quantile(0.5), _decimal),
    _Measure(Column("active,\n99th pct", _integer), lambda layer: layer.quantile(0.99), _decimal),
    _measure(_NEVER, "never_fired", _integer),
    _measure(_ENERGY_90, "energy_90"),
    _measure("99\u00a0% of\nenergy (%)", "energy_99"),
    _measure(_ABOVE, "density_relative"),
    _Measure(
        Column(_POSITIVE, _share), lambda layer: layer.numbers["positive"] if has_positive(layer) else None, _share
    ),
    _measure(_OVERLAP, "overlap"),
    _measure("class\ntoken (%)", "density_class_token"),
    _measure("patches\n(%)", "density_patches"),
    _Measure(Column("site", is_path=True), lambda layer: layer.site or "(model)"),
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
    foot = [_means(stack, part, measures) for stack, part in _stacks(layers)]
    table = Table(
        columns=[measure.column for measure in measures],
        rows=[[measure.value(layer) for measure in measures] for layer in layers],
        foot=foot if len(layers) > len(foot) else [],
        title=f"Each layer of {run.name}",
        missing="n/a",
    )
    return _explained(table, f"In every layer {listed(same)}." if same else "")


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
    columns = [Column("model"), Column("stack"), Column("activation"), Column(_DENSITY, _share), Column(_RANGE)]
    columns += [Column("active\nneurons", _decimal), Column(f"{_NEVER} (%)", _share), Column(_ENERGY_90, _share)]
    columns += [Column(_ABOVE, _share), Column(_OVERLAP, _share), Column("layers", _integer)]
    columns += [Column("d_ff", ""), Column("tokens", "")]
    if any(is_smooth(layer) for run in runs for layer in layers_of(run)):
        columns.insert(3, columns.pop(7))
        columns.insert(4, Column(_POSITIVE, _share))
    rows = []
    for run in runs:
        for stack, part in _stacks(layers_of(run)):
            dead = _dead(part)
            row: dict[str, Any] = {"model": run.name, "stack": stack}
            row["activation"] = _several(layer.activation for layer in part)
            row |= {title: _mean(part, what) for title, what in _MEANS.items()}
            row |= {_RANGE: _range(part), f"{_NEVER} (%)": dead and dead[0] / dead[1], "layers": len(part)}
            row["d_ff"] = _several(_integer(layer.d_ff) for layer in part if layer.d_ff is not None)
            row["tokens"] = _several(_integer(layer.num_tokens) for layer in part if layer.num_tokens is not None)
            rows.append([row[column.title] for column in columns])
    return _explained(Table(columns, rows, title="The models compared", missing="n/a"))


def origin(run: Run) -> str:
    """The model in full, how it was run, and on which data."""
    on = [f"{word} {run.config[key]}" for word, key in (("in", "dtype"), ("on", "device")) if run.config.get(key)]
    sentences = f"Model: {', '.join([str(run.config.get('model', run.name)), *on])}."
    return sentences + (f" Data: {str(run.config['data']).rstrip('.')}." if run.config.get("data") else "")


def summary(run: Run) -> list[str]:
    """What was measured, in sentences: each stack's mean and ends, the energy, and the neurons never active."""
    layers, sentences = layers_of(run), []
    for stack, part in _stacks(layers):
        if not any("density" in layer.numbers for layer in part):
            continue
        mean, sizes, full = percent(_mean(part, "density")), {layer.d_ff for layer in part}, is_dense(part)
        count = _decimal(_mean(part, "num_active") or 0)
        of = (
            f" ({count} of {_integer(size)})" if len(sizes) == 1 and (size := max(sizes, key=bool)) and not full else ""
        )
        between = "" if full else _between(part, "density")
        first = f"In the {stack}, {mean}" if stack else f"{mean[0].upper()}{mean[1:]}"
        sentences.append(f"{first} of the neurons are active for a token{of}, on average over the layers{between}.")
    if any("energy_90" in layer.numbers for layer in layers):
        mean, between = percent(_mean(layers, "energy_90")), _between(layers, "energy_90") if is_dense(layers) else ""
        sentences.append(f"On average {mean} of the neurons hold 90\u00a0% of a token's energy{between}.")
    if found := [layer for layer in layers if has_positive(layer)]:
        mean, keep = percent(_mean(found, "positive")), "" if _is_gated(found) else ": those that ReLU would keep"
        sentences.append(f"On average {mean} of the neurons are above zero{keep}.")
    if (dead := _dead(layers)) is not None:
        never, total = dead
        share = f"{_integer(never)} of {_integer(total)} neurons ({percent(never / total)}) were never active."
        sentences.append(
            share if never else f"Each of the {_integer(total)} neurons was active for at least one token."
        )
    return sentences


def warnings(run: Run) -> list[str]:
    """What makes the numbers doubtful: entries that are not a number, and layers that no token reached."""
    layers = layers_of(run)
    if not layers:
        return ["This folder holds no records yet: the measurement did not come to its end."]
    sentences = []
    if broken := [layer for layer in layers if layer.numbers.get("num_nan", 0) > 0]:
        count = _integer(sum(layer.numbers["num_nan"] for layer in broken))
        entries, they, sentence = ("entry", "is", "It is") if count == "1" else ("entries", "are", "They are")
        sentences.append(
            f"{count} {entries} of the activation maps {they} NaN, in {_named(broken)}. {sentence} counted apart, not "
            "as active. The other numbers of these layers and of those after them cannot be trusted: try another dtype."
        )
    if unseen := [layer for layer in layers if "density" not in layer.numbers]:
        sentences.append(f"No density is known of {_named(unseen)}: no token reached them.")
    return sentences


def notes(run: Run) -> list[str]:
    """How to read the numbers of models whose activation hardly ever gives an exact zero."""
    layers, sentences = layers_of(run), []
    if smooth := sorted({layer.activation or "unknown" for layer in layers if is_smooth(layer)}):
        sentences.append(
            f"The activation here ({', '.join(smooth)}) hardly ever gives an exact zero, so density says little: look "
            "at the share of neurons that holds 90\u00a0% of a token's energy, or is above 1\u00a0% of its largest."
        )
    if is_dense(layers):
        sentences.append(
            "In every layer more than 99\u00a0% of the neurons are active: how often each one is, how many are for a "
            "token and density by position would be flat lines at 100\u00a0%. They are not drawn, but the records "
            "hold them."
        )
    return sentences


def _stacks(layers: Sequence[Layer]) -> list[tuple[str, list[Layer]]]:
    stacks = dict.fromkeys(layer.stack for layer in layers)
    return [(stack, [layer for layer in layers if layer.stack == stack]) for stack in stacks]


def _is_gated(layers: Sequence[Layer]) -> bool:
    return any(layer.activation.startswith("gated") for layer in layers)


def _ends(layers: Sequence[Layer], what: str) -> tuple[Layer, Layer] | None:
    """The layers of the least and of the most of `what`, if any has it."""
    found = sorted((layer for layer in layers if what in layer.numbers), key=lambda at: at.numbers[what])
    return (found[0], found[-1]) if found else None


def _range(layers: Sequence[Layer]) -> str | None:
    """The least and the most over the layers: of the density, or of the share of the energy where that is all."""
    what, name = ("energy_90", "energy") if is_dense(layers) else ("density", "density")
    if (ends := _ends(layers, what)) is None:
        return None
    texts = dict.fromkeys(f"{_share(layer.numbers[what])}\u00a0({layer.layer})" for layer in ends)
    return f"{name}\u00a0{' to '.join(texts)}"


def _between(layers: Sequence[Layer], what: str) -> str:
    """The same in words, for the end of a sentence; nothing where both ends read the same."""
    low, high = _ends(layers, what) or (layers[0], layers[0])
    ends = [percent(layer.numbers[what]) for layer in (low, high)]
    is_alone = len({layer.stack for layer in layers}) == 1
    names = [f"layer {layer.layer}" if is_alone else _named([layer]) for layer in (low, high)]
    return f": from {ends[0]} ({names[0]}) to {ends[1]} ({names[1]})" if ends[0] != ends[1] else ""


def _dead(layers: Sequence[Layer]) -> tuple[float, int] | None:
    """Neurons that no token activated, and all neurons, of the layers where they were counted."""
    found = [layer for layer in layers if "never_fired" in layer.numbers and layer.d_ff]
    total = sum(layer.d_ff or 0 for layer in found)
    return (sum(layer.numbers["never_fired"] for layer in found), total) if found else None


def _mean(layers: Sequence[Layer], what: str) -> float | None:
    values = [layer.numbers[what] for layer in layers if what in layer.numbers]
    return fmean(values) if values else None


def _several(texts: Iterable[str]) -> str:
    """The different ones of several texts, or the first and the last of many."""
    found = list(dict.fromkeys(texts))
    return ", ".join(found) if len(found) < 4 else f"{found[0]} … {found[-1]}"


def _named(layers: Sequence[Layer]) -> str:
    """Layers in words: "layers 0 and 3", by stack where there are several; the first twelve of many."""
    sentences = []
    for stack, part in _stacks(layers):
        numbers = [str(layer.layer) for layer in part]
        rest = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
        word = "layer" if len(numbers) == 1 else "layers"
        sentences.append(" ".join(filter(None, [stack, word, ", ".join(numbers[:_LISTED]) + rest])))
    return "; ".join(sentences)
