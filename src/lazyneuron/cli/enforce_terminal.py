"""What `lazyneuron enforce` shows in a terminal: one line per density."""

import math
from collections.abc import Sequence
from typing import Any

from lazyneuron.records.record import Record
from lazyneuron.records.table import Column, Table, percent

_COLUMNS = {
    "density": Column("kept\n%", percent()),
    "natural_density": Column("natural\n%", percent()),
    "loss": Column("loss\nnats", ".4f"),
    "perplexity": Column("perplexity", lambda value: f"{value:,.2f}" if value < 1e5 else f"{value:.2g}"),
    "accuracy": Column("accuracy\n%", percent()),
    "agreement": Column("same\nfirst %", percent()),
    "kl": Column("KL\nnats", ".4f"),
    "cosine": Column("cosine", ".4f"),
}


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
    notes = ["kept, natural: active neurons after and before selection, % of d_ff"]
    if any(row["case"] == "control" for row in rows):
        notes.append("control: the original fine-tuned alike, without selection")
    columns = [Column(""), Column("density\n%", lambda density: f"{100 * density:.4g}"), *_COLUMNS.values()]
    cells = [
        [row["case"], None if row["case"] in ("before", "control") else row["x"], *map(row.get, _COLUMNS)]
        for row in rows
    ]
    title = f"Quality on {scored:,} held-out predictions"
    return Table(columns, cells, title=title, notes=notes).without_empty_columns()


def quality_json(records: Sequence[Record]) -> list[dict[str, Any]]:
    """`quality_rows` for machines: fractions in [0, 1], losses in nats, and None for what is not finite."""
    return [
        {what: None if isinstance(value, float) and not math.isfinite(value) else value for what, value in row.items()}
        for row in quality_rows(records)
    ]
