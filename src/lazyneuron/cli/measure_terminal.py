"""What `lazyneuron measure` shows in a terminal: a bar while it runs, then one line per site."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lazyneuron.records.record import Record
from lazyneuron.sites import Site


def counting_bar(console: Console, unit: str) -> Progress:
    """A bar that counts what is called `unit`, shown in a terminal only."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def measured_table(sites: Sequence[Site], records: Sequence[Record]) -> Table:
    """What the terminal shows: one line per site, in percent where a fraction is meant."""
    found = {(r.site, r.what, r.x): r.value for r in records}
    layers = {r.site: f"{r.stack} {r.layer}".strip() for r in records}
    has_class_token = any(what == "density_class_token" for _, what, _ in found)
    tokens = max((r.num_tokens or 0 for r in records), default=0)
    caption = "density: active neurons; energy: the fewest that hold 90 % of it; both in % of d_ff"
    table = Table(title=f"Activation maps of {tokens:,} tokens", caption=caption, box=box.SIMPLE_HEAD)
    table.padding, table.show_edge, table.caption_justify = (0, 1, 0, 0), False, "left"
    left, right = ["layer", "site", "activation"], ["d_ff", "density\n%", "median", "99th\npct", "never\nactive"]
    right += ["energy\n%", *(["class\n%", "patch\n%"] * has_class_token)]
    for name in left:
        table.add_column(name, overflow="fold", min_width=len(name))
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for site in sites:
        kinds = [("density", None), ("num_active_quantile", 0.5), ("num_active_quantile", 0.99)]
        kinds += [("never_fired", None), ("energy_90", None)]
        kinds += [("density_class_token", None), ("density_patches", None)] * has_class_token
        cells = []
        for what, x in kinds:
            value = found.get((site.name, what, x))
            is_count = what in ("num_active_quantile", "never_fired")
            cells.append("" if value is None else f"{value:,.0f}" if is_count else f"{100 * value:.2f}")
        activation = f"gated {site.activation}" if site.is_gated else site.activation
        table.add_row(layers.get(site.name, ""), site.name or "(model)", activation, str(site.d_ff), *cells)
    return table


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
