"""What `lazyneuron measure` prints: one line per site, or JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lazyneuron.records.record import Record
from lazyneuron.records.table import Column, Table, percent
from lazyneuron.sites import Site

# Titles, the records' `what` and `x`, and how the numbers are written.
_MEASURED = [
    ("density\n%", "density", None, percent()),
    ("median", "num_active_quantile", 0.5, ",.0f"),
    ("99th\npct", "num_active_quantile", 0.99, ",.0f"),
    ("never\nactive", "never_fired", None, ",.0f"),
    ("rarely\nactive", "rarely_fired", None, ",.0f"),
    ("hot\n%", "hot_90", None, percent()),
    ("energy\n%", "energy_90", None, percent()),
    ("class\n%", "density_class_token", None, percent()),
    ("patch\n%", "density_patches", None, percent()),
]


def measured_table(sites: Sequence[Site], records: Sequence[Record]) -> Table:
    """What the terminal shows: one line per site, fractions in percent."""
    found = {(r.site, r.what, r.x): r.value for r in records}
    layers = {r.site: f"{r.stack} {r.layer}".strip() for r in records}
    tokens = max((r.num_tokens or 0 for r in records), default=0)
    columns = [Column("layer"), Column("site"), Column("activation"), Column("d_ff", "d")]
    columns += [Column(title, form) for title, _, _, form in _MEASURED]
    rows = []
    for site in sites:
        activation = f"gated {site.activation}" if site.is_gated else site.activation
        numbers = [found.get((site.name, what, x)) for _, what, x, _ in _MEASURED]
        rows.append([layers.get(site.name, ""), site.name or "(model)", activation, site.d_ff, *numbers])
    note = "density: active neurons; rarely: at less than 1 % of the tokens; hot: the fewest neurons with 90 % of all "
    note += "activity; energy: the fewest that hold 90 % of a token's; density, hot and energy in % of d_ff"
    title = f"Activation maps of {tokens:,} tokens"
    return Table(columns, rows, title=title, notes=[note]).without_empty_columns()


def measured_json(sites: Sequence[Site], records: Sequence[Record]) -> list[dict[str, Any]]:
    """The numbers of each site for machines: fractions in [0, 1], counts per token, quantiles by their fraction."""
    found: dict[str, dict[str, Any]] = {site.name: asdict(site) for site in sites}
    for r in records:
        place = found[r.site] | {"stack": r.stack, "layer": r.layer, "num_tokens": r.num_tokens}
        if r.x is None:
            place[r.what] = r.value
        elif r.what == "num_active_quantile":
            place.setdefault(r.what, {})[f"{r.x:g}"] = r.value
        found[r.site] = place
    return list(found.values())
