"""Measured models to the tables, sentences and warnings of the page, as plain values for the template."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lazyneuron.pages.charts import Run
from lazyneuron.pages.layers import Layer, has_positive, is_dense, is_smooth, layers_of
from lazyneuron.pages.tables import almost_all, listed, percent

_LISTED = 12


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text: `head` holds titles and whether the column is of numbers, `foot` rows that sum it up.

    Titles hold their unit and, where they have two lines, a line feed. `said` is what is the same in all rows.
    """

    head: list[tuple[str, bool]]
    rows: list[list[str]]
    foot: list[list[str]]
    said: str = ""

    @property
    def terms(self) -> list[str]:
        """What the columns that are here mean, in sentences."""
        titles = " ".join(title for title, _ in self.head)
        return [*filter(None, [self.said]), *(text for title, text in _TERMS.items() if title in titles)]


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
    _ENERGY_90: "90\u00a0% of energy: share of the neurons that holds as much of a token's sum of squares.",
    _ABOVE: "Above 1\u00a0% of top: share of the neurons above 1\u00a0% of the token's largest.",
    _POSITIVE: "Positive: share of the neurons above zero; where no gate multiplies them, ReLU would keep just these.",
    _OVERLAP: "Overlap: of the neurons active in either of two neighbouring tokens, the share in both.",
    _RANGE: "Range: the least and the most with their layers; of the energy's share where nearly all are active.",
    "class\ntoken": "Class token, patches: the density there.",
}
_SAME = {"activation": "the activation is {}", "d_ff": "d_ff is {}", "tokens": "{} tokens were counted"}


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A title, what a layer has there (None: nothing), how to write it, and how to write its mean, if it has one."""

    title: str
    value: Callable[[Layer], Any]
    shown: Callable[[Any], str] = str
    mean: Callable[[float], str] | None = None
    is_number: bool = True


def _integer(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    """A fraction in percent to three digits, trailing zeros too, so that a column of them is even."""
    size = 100 * abs(value)
    decimals = max(0, 2 - math.floor(math.log10(float(f"{size:.3g}")))) if size else 0
    return almost_all(value) or f"{100 * value:.{decimals}f}"


def _decimal(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def _measured(title: str, what: str, shown: Callable[[Any], str] = _share) -> _Column:
    mean = _decimal if shown is _integer else shown
    return _Column(title=title, value=lambda layer: layer.numbers.get(what), shown=shown, mean=mean)


_COLUMNS = [
    _Column(title="stack", value=lambda layer: layer.stack or None, is_number=False),
    _Column(title="layer", value=lambda layer: layer.layer),
    _Column(title="activation", value=lambda layer: layer.activation or None, is_number=False),
    _Column(title="d_ff", value=lambda layer: layer.d_ff, shown=_integer),
    _Column(title="tokens", value=lambda layer: layer.num_tokens, shown=_integer),
    _measured(_DENSITY, "density"),
    _measured("active,\nmean", "num_active", _decimal),
    _Column(title="active,\nmedian", value=lambda layer: layer.quantile(0.5), shown=_integer, mean=_decimal),
    _Column(title="active,\n99th pct", value=lambda layer: layer.quantile(0.99), shown=_integer, mean=_decimal),
    _measured(_NEVER, "never_fired", _integer),
    _measured(_ENERGY_90, "energy_90"),
    _measured("99\u00a0% of\nenergy (%)", "energy_99"),
    _measured(_ABOVE, "density_relative"),
    _Column(title=_POSITIVE, value=lambda layer: _positive(layer), shown=_share, mean=_share),
    _measured(_OVERLAP, "overlap"),
    _measured("class\ntoken (%)", "density_class_token"),
    _measured("patches\n(%)", "density_patches"),
    _Column(title="site", value=lambda layer: layer.site or "(model)", is_number=False),
]


def by_layer(run: Run) -> Table:
    """One row per site with all that was measured there, and the means of each stack; empty columns are left out.

    Activation, width and number of tokens are said once where they are the same in all of several layers.
    """
    layers, same = layers_of(run), []
    columns = [column for column in _COLUMNS if any(column.value(layer) is not None for layer in layers)]
    for column in [column for column in columns if column.title in _SAME and len(layers) > 1]:
        values = {column.value(layer) for layer in layers}
        if len(values) == 1:
            columns.remove(column)
            same.append(_SAME[column.title].format(column.shown(values.pop())))
    foot = []
    for stack, part in _stacks(layers):
        row = []
        for column in columns:
            found = [value for layer in part if (value := column.value(layer)) is not None]
            fixed = {"layer": "mean", "stack": stack}.get(column.title, "")
            row.append(column.mean(fmean(found)) if column.mean and found else fixed)
        foot.append(row)
    return Table(
        head=[(column.title, column.is_number) for column in columns],
        rows=[[_cell(column.value(layer), column.shown) for column in columns] for layer in layers],
        foot=foot if len(layers) > len(foot) else [],
        said=f"In every layer {listed(same)}." if same else "",
    )


def compared(runs: Sequence[Run]) -> Table:
    """One row per model and stack: its sizes, and means over its layers; empty columns are left out."""
    words = ["model", "stack", "activation", _RANGE]
    rows, is_any_smooth = [], any(is_smooth(layer) for run in runs for layer in layers_of(run))
    for run in runs:
        for stack, part in _stacks(layers_of(run)):
            dead = _dead(part)
            row = {"model": run.name, "stack": stack, "activation": _several(layer.activation for layer in part)}
            energy = {_ENERGY_90: _mean(part, "energy_90", _share)}
            if is_any_smooth:
                row |= energy | {_POSITIVE: _mean(part, "positive", _share)}
            row |= {_DENSITY: _mean(part, "density", _share), _RANGE: _range(part)}
            row["active\nneurons"] = _mean(part, "num_active", _decimal)
            row[f"{_NEVER} (%)"] = "n/a" if dead is None else _share(dead[0] / dead[1])
            row |= energy | {_ABOVE: _mean(part, "density_relative", _share)}
            row[_OVERLAP] = _mean(part, "overlap", _share)
            row |= {"layers": _integer(len(part)), "d_ff": _several(_cell(layer.d_ff, _integer) for layer in part)}
            row["tokens"] = _several(_cell(layer.num_tokens, _integer) for layer in part)
            rows.append(row)
    used = [key for key in (rows[0] if rows else ()) if any(row[key] not in ("", "n/a") for row in rows)]
    head = [(key, key not in words) for key in used]
    return Table(head=head, rows=[[row[key] for key in used] for row in rows], foot=[])


def origin(run: Run) -> str:
    """The model in full, how it was run, and on which data."""
    on = [f"{word} {run.config[key]}" for word, key in (("in", "dtype"), ("on", "device")) if run.config.get(key)]
    said = f"Model: {', '.join([str(run.config.get('model', run.name)), *on])}."
    return said + (f" Data: {str(run.config['data']).rstrip('.')}." if run.config.get("data") else "")


def summary(run: Run) -> list[str]:
    """What was measured, in sentences: each stack's mean and ends, the energy, and the neurons never active."""
    layers, said = layers_of(run), []
    for stack, part in _stacks(layers):
        if not any("density" in layer.numbers for layer in part):
            continue
        mean, sizes, full = _mean(part, "density", percent), {layer.d_ff for layer in part}, is_dense(part)
        count = _mean(part, "num_active", _decimal)
        of = (
            f" ({count} of {_integer(size)})" if len(sizes) == 1 and (size := max(sizes, key=bool)) and not full else ""
        )
        between = "" if full else _between(part, "density")
        first = f"In the {stack}, {mean}" if stack else f"{mean[0].upper()}{mean[1:]}"
        said.append(f"{first} of the neurons are active for a token{of}, on average over the layers{between}.")
    if any("energy_90" in layer.numbers for layer in layers):
        mean, between = _mean(layers, "energy_90", percent), _between(layers, "energy_90") if is_dense(layers) else ""
        said.append(f"On average {mean} of the neurons hold 90\u00a0% of a token's energy{between}.")
    if found := [layer for layer in layers if has_positive(layer)]:
        mean, keep = _mean(found, "positive", percent), "" if _is_gated(found) else ": those that ReLU would keep"
        said.append(f"On average {mean} of the neurons are above zero{keep}.")
    if (dead := _dead(layers)) is not None:
        never, total = dead
        share = f"{_integer(never)} of {_integer(total)} neurons ({percent(never / total)}) were never active."
        said.append(share if never else f"Each of the {_integer(total)} neurons was active for at least one token.")
    return said


def warnings(run: Run) -> list[str]:
    """What makes the numbers doubtful: entries that are not a number, and layers that no token reached."""
    layers = layers_of(run)
    if not layers:
        return ["This folder holds no records yet: the measurement did not come to its end."]
    said = []
    if broken := [layer for layer in layers if layer.numbers.get("num_nan", 0) > 0]:
        count = _integer(sum(layer.numbers["num_nan"] for layer in broken))
        entries, they, sentence = ("entry", "is", "It is") if count == "1" else ("entries", "are", "They are")
        said.append(
            f"{count} {entries} of the activation maps {they} NaN, in {_named(broken)}. {sentence} counted apart, not "
            "as active. The other numbers of these layers and of those after them cannot be trusted: try another dtype."
        )
    if unseen := [layer for layer in layers if "density" not in layer.numbers]:
        said.append(f"No density is known of {_named(unseen)}: no token reached them.")
    return said


def notes(run: Run) -> list[str]:
    """How to read the numbers of models whose activation hardly ever gives an exact zero."""
    layers, said = layers_of(run), []
    if smooth := sorted({layer.activation or "unknown" for layer in layers if is_smooth(layer)}):
        said.append(
            f"The activation here ({', '.join(smooth)}) hardly ever gives an exact zero, so density says little: look "
            "at the share of neurons that holds 90\u00a0% of a token's energy, or is above 1\u00a0% of its largest."
        )
    if is_dense(layers):
        said.append(
            "In every layer more than 99\u00a0% of the neurons are active: how often each one is, how many are for a "
            "token and density by position would be flat lines at 100\u00a0%. They are not drawn, but the records "
            "hold them."
        )
    return said


def _stacks(layers: Sequence[Layer]) -> list[tuple[str, list[Layer]]]:
    stacks = dict.fromkeys(layer.stack for layer in layers)
    return [(stack, [layer for layer in layers if layer.stack == stack]) for stack in stacks]


def _positive(layer: Layer) -> float | None:
    return layer.numbers["positive"] if has_positive(layer) else None


def _is_gated(layers: Sequence[Layer]) -> bool:
    return any(layer.activation.startswith("gated") for layer in layers)


def _ends(layers: Sequence[Layer], what: str) -> tuple[Layer, Layer] | None:
    """The layers of the least and of the most of `what`, if any has it."""
    found = sorted((layer for layer in layers if what in layer.numbers), key=lambda at: at.numbers[what])
    return (found[0], found[-1]) if found else None


def _range(layers: Sequence[Layer]) -> str:
    """The least and the most over the layers: of the density, or of the share of the energy where that is all."""
    what, name = ("energy_90", "energy") if is_dense(layers) else ("density", "density")
    if (ends := _ends(layers, what)) is None:
        return "n/a"
    said = dict.fromkeys(f"{_share(layer.numbers[what])}\u00a0({layer.layer})" for layer in ends)
    return f"{name} {' to '.join(said)}"


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


def _mean(layers: Sequence[Layer], what: str, shown: Callable[[float], str]) -> str:
    found = [layer.numbers[what] for layer in layers if what in layer.numbers]
    return shown(fmean(found)) if found else "n/a"


def _cell(value: Any, shown: Callable[[Any], str]) -> str:
    return "n/a" if value is None else shown(value)


def _several(texts: Iterable[str]) -> str:
    """The different ones of several texts, or the first and the last of many."""
    found = list(dict.fromkeys(texts))
    return ", ".join(found) if len(found) < 4 else f"{found[0]} … {found[-1]}"


def _named(layers: Sequence[Layer]) -> str:
    """Layers in words: "layers 0 and 3", by stack where there are several; the first twelve of many."""
    said = []
    for stack, part in _stacks(layers):
        numbers = [str(layer.layer) for layer in part]
        rest = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
        word = "layer" if len(numbers) == 1 else "layers"
        said.append(" ".join(filter(None, [stack, word, ", ".join(numbers[:_LISTED]) + rest])))
    return "; ".join(said)
