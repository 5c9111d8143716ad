"""Measured models to the tables, sentences and warnings of the page, as plain values for the template."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lazyneuron.report.charts import Run
from lazyneuron.report.layers import Layer, is_dense, layers_of
from lazyneuron.report.tables import percent

_NOT_RELU = ("leaky", "prelu", "rrelu")
_LISTED = 12


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text: `head` holds titles and whether the column is of numbers, `foot` rows that sum it up."""

    head: list[tuple[str, bool]]
    rows: list[list[str]]
    foot: list[list[str]]

    @property
    def terms(self) -> list[str]:
        """What the columns that are here mean, in sentences."""
        titles = {title for title, _ in self.head}
        return [text for title, text in _TERMS.items() if title in titles]


_TERMS = {
    "active, mean": "Active: how many neurons are not exactly zero for a token.",
    "active, 99\u00a0%": "Active, 99\u00a0%: the number that 99\u00a0% of the tokens do not exceed.",
    "never active": "Never active: neurons that no token activated.",
    "90\u00a0% of energy": "90\u00a0% of energy: share of the neurons that holds as much of a token's sum of squares.",
    "above 1\u00a0%": "Above 1\u00a0%: share of the neurons above 1\u00a0% of the token's largest.",
    "overlap of neighbours": "Overlap: of the neurons active in either of two neighbouring tokens, the share in both.",
}


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
    """A fraction as percent to three digits, trailing zeros too, so that a column of them is even."""
    size = 100 * abs(value)
    decimals = max(0, 2 - math.floor(math.log10(float(f"{size:.3g}")))) if size else 0
    return f"{100 * value:.{decimals}f}\u00a0%"


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
    _measured("density", "density"),
    _measured("active, mean", "num_active", _decimal),
    _Column(title="active, median", value=lambda layer: layer.quantile(0.5), shown=_integer, mean=_decimal),
    _Column(title="active, 99\u00a0%", value=lambda layer: layer.quantile(0.99), shown=_integer, mean=_decimal),
    _measured("never active", "never_fired", _integer),
    _measured("90\u00a0% of energy", "energy_90"),
    _measured("99\u00a0% of energy", "energy_99"),
    _measured("above 1\u00a0%", "density_relative"),
    _measured("overlap of neighbours", "overlap"),
    _measured("density, class\u00a0token", "density_class_token"),
    _measured("density, patches", "density_patches"),
    _Column(title="site", value=lambda layer: layer.site or "(model)", is_number=False),
]


def by_layer(run: Run) -> Table:
    """One row per site with all that was measured there, and the means of each stack; empty columns are left out."""
    layers = layers_of(run)
    columns = [column for column in _COLUMNS if any(column.value(layer) is not None for layer in layers)]
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
    )


def compared(runs: Sequence[Run]) -> Table:
    """One row per model and stack: its sizes, and means over its layers; empty columns are left out."""
    words = ["model", "stack", "activation"]
    rows = []
    for run in runs:
        for stack, part in _stacks(layers_of(run)):
            ends, dead = _ends(part), _dead(part)
            row = {"model": run.name, "stack": stack, "activation": _several(layer.activation for layer in part)}
            row |= {"layers": _integer(len(part)), "d_ff": _several(_cell(layer.d_ff, _integer) for layer in part)}
            row["tokens"] = _several(_cell(layer.num_tokens, _integer) for layer in part)
            row["density"] = _mean(part, "density", _share)
            row["sparsest (layer)"], row["densest (layer)"] = map(_end, ends or (None, None))
            row["active neurons"] = _mean(part, "num_active", _decimal)
            row["never active"] = "n/a" if dead is None else percent(dead[0] / dead[1])
            row["90\u00a0% of energy"] = _mean(part, "energy_90", _share)
            row["above 1\u00a0%"] = _mean(part, "density_relative", _share)
            row["overlap of neighbours"] = _mean(part, "overlap", _share)
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
    """What was measured, in sentences: each stack's mean and ends, the energy, and the neurons that never fired."""
    layers, said = layers_of(run), []
    for stack, part in _stacks(layers):
        if not (ends := _ends(part)):
            continue
        mean, sizes = _mean(part, "density", percent), {layer.d_ff for layer in part}
        count = _mean(part, "num_active", _decimal)
        of = f" ({count} of {_integer(size)})" if len(sizes) == 1 and (size := max(sizes, key=bool)) else ""
        low, high = (_end(layer, "layer ") for layer in ends)
        between = f": from {low} to {high}" if low.partition(" (")[0] != high.partition(" (")[0] else ""
        where = f"In the {stack}, " if stack else ""
        said.append(f"{where}{mean} of the neurons are active for a token{of}, on average over the layers{between}.")
    if any("energy_90" in layer.numbers for layer in layers):
        mean = _mean(layers, "energy_90", percent)
        said.append(f"On average {mean} of the neurons hold 90\u00a0% of a token's energy.")
    if (dead := _dead(layers)) is not None:
        never, total = dead
        share = f"{_integer(never)} of {_integer(total)} neurons ({percent(never / total)}) were active for no token."
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
        entries = f"{count} {'entry' if count == '1' else 'entries'} of the activation maps"
        said.append(
            f"{entries} {'is' if count == '1' else 'are'} NaN, in {_named(broken)}. A NaN counts as active, so the "
            "numbers of these layers and of those after them are not to be trusted: try another dtype."
        )
    if unseen := [layer for layer in layers if "density" not in layer.numbers]:
        said.append(f"No density is known of {_named(unseen)}: no token reached them.")
    return said


def notes(run: Run) -> list[str]:
    """How to read the numbers of models whose activation hardly ever gives an exact zero."""
    layers, said = layers_of(run), []
    if smooth := sorted({layer.activation or "unknown" for layer in layers if _is_smooth(layer)}):
        said.append(
            f"The activation here ({', '.join(smooth)}) hardly ever gives an exact zero, so density says little: look "
            "at the share of neurons that holds 90\u00a0% of a token's energy, or is above 1\u00a0% of its largest."
        )
    if is_dense(layers):
        said.append(
            "In every layer more than 99\u00a0% of the neurons are active: how often each one is, how many are for a "
            "token and density by position would be flat lines at 100\u00a0%. They are not drawn, but are in "
            "records.jsonl."
        )
    return said


def _is_smooth(layer: Layer) -> bool:
    name = layer.activation.lower()
    is_relu = "relu" in name and not any(other in name for other in _NOT_RELU)
    return not is_relu and layer.numbers.get("density", 0) > 0.5


def _stacks(layers: Sequence[Layer]) -> list[tuple[str, list[Layer]]]:
    stacks = dict.fromkeys(layer.stack for layer in layers)
    return [(stack, [layer for layer in layers if layer.stack == stack]) for stack in stacks]


def _ends(layers: Sequence[Layer]) -> tuple[Layer, Layer] | None:
    """The sparsest and the densest layer, if any has a density."""
    found = sorted((layer for layer in layers if "density" in layer.numbers), key=lambda at: at.numbers["density"])
    return (found[0], found[-1]) if found else None


def _end(layer: Layer | None, word: str = "") -> str:
    return "n/a" if layer is None else f"{percent(layer.numbers['density'])} ({word}{layer.layer})"


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
