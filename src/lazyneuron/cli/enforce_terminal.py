"""What `lazyneuron enforce` shows in a terminal: one line per density."""

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from lazyneuron.records.record import Record

_SITE_NUMBERS = ("density", "natural_density")
_COLUMNS = {
    "density": "kept\n%",
    "natural_density": "natural\n%",
    "loss": "loss\nnats",
    "perplexity": "perplexity",
    "accuracy": "accuracy\n%",
    "agreement": "same\nfirst %",
    "kl": "KL\nnats",
    "cosine": "cosine",
}
_IN_PERCENT = (*_SITE_NUMBERS, "accuracy", "agreement")


def quality_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One mapping per case and density, in the order of the records: "case", "x", and the numbers by name.

    Densities are means over the sites.
    """
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for r in records:
        if r.x is not None and r.split == "eval":
            found.setdefault((r.case, r.x), {}).setdefault(r.what, []).append(r.value)
    return [
        {"case": case, "x": x} | {what: sum(values) / len(values) for what, values in row.items()}
        for (case, x), row in found.items()
    ]


def quality_table(records: Sequence[Record]) -> Table:
    """What the terminal shows: quality against density, a line for each."""
    rows = quality_rows(records)
    scored = max((r.num_tokens or 0 for r in records if r.what in ("agreement", "cosine")), default=0)
    table = Table(title=f"Quality on {scored:,} held-out predictions", box=box.SIMPLE_HEAD)
    table.caption = "kept, natural: active neurons after and before selection, % of d_ff"
    if any(row["case"] == "control" for row in rows):
        table.caption += "\ncontrol: the original fine-tuned alike, without selection"
    table.padding, table.show_edge, table.caption_justify = (0, 1, 0, 0), False, "left"
    table.add_column("", no_wrap=True)
    table.add_column("density\n%", justify="right", no_wrap=True)
    shown = [what for what in _COLUMNS if any(what in row for row in rows)]
    for what in shown:
        table.add_column(_COLUMNS[what], justify="right", no_wrap=True)
    for row in rows:
        cells = ["" if row["case"] in ("before", "control") else f"{100 * row['x']:.4g}"]
        table.add_row(row["case"], *cells, *(_cell(what, row.get(what)) for what in shown))
    return table


def quality_json(records: Sequence[Record]) -> list[dict[str, Any]]:
    """`quality_rows` for machines: fractions in [0, 1], losses in nats, and None for what is not finite."""
    return [
        {what: None if isinstance(value, float) and not math.isfinite(value) else value for what, value in row.items()}
        for row in quality_rows(records)
    ]


def _cell(what: str, value: float | None) -> str:
    if value is None:
        return ""
    if what in _IN_PERCENT:
        return f"{100 * value:.2f}"
    if what == "perplexity":
        return f"{value:,.2f}" if value < 1e5 else f"{value:.2g}"
    return f"{value:.4f}"
