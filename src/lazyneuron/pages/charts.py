"""What charts are drawn from and what they become: one Vega-Lite definition each for the page, the PNG and the SVG.

Colours are left to `theme`, so that one definition serves a light and a dark page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from lazyneuron.records.record import Record

VEGALITE_VERSION = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run to draw, with the records of all its seeds: `label` is its result folder's name, `name` its own there."""

    label: str
    name: str
    config: dict[str, Any]
    records: list[Record]

    def pick(self, what: str) -> list[Record]:
        """This run's records of one kind, without those of the test at its end."""
        return [record for record in self.records if record.what == what and record.split != "test"]

    def tested(self, what: str) -> list[Record]:
        """This run's records of one kind on all held-out data, once its model was trained."""
        return [record for record in self.records if record.what == what and record.split == "test"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart: `name` is its file's stem, `spec` its Vega-Lite definition without title and colours."""

    name: str
    title: str
    caption: str
    spec: dict[str, Any]


def theme(dark: bool = False) -> dict[str, Any]:
    """The Vega-Lite config that gives every chart its colours and type."""
    ink, muted, grid = ("#e6e6e3", "#b4b7bc", "#3a3e45") if dark else ("#1f2328", "#57606a", "#e3e6ea")
    blue, orange, rest = (
        ("#62b6ee", "#f0a63a", ["#35c29a", "#e58fc0", "#f2e35e", "#b4b7bc"])
        if dark
        else ("#0072b2", "#d55e00", ["#009e73", "#b0589a", "#8a6d00", "#57606a"])
    )
    text = {"labelColor": muted, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500}
    return {
        "background": "transparent" if dark else "white",
        "font": "Liberation Sans, Helvetica, Arial, sans-serif",
        "view": {"stroke": None},
        "title": {"color": ink, "subtitleColor": muted, "fontSize": 13, "fontWeight": 600, "anchor": "start"},
        "axis": text | {"gridColor": grid, "domainColor": muted, "tickColor": muted, "tickSize": 4, "labelPadding": 4},
        "legend": text | {"symbolSize": 80, "symbolStrokeWidth": 2.5, "labelLimit": 240, "rowPadding": 3},
        "style": {
            "reference": {"color": muted, "strokeDash": [5, 4], "strokeWidth": 1.2},
            "note": {"color": muted, "fontSize": 11, "fontStyle": "italic"},
        },
        "range": {
            "category": [blue, orange, *rest],
            "ordinal": {"scheme": "viridis", "extent": [0.28, 1.0] if dark else [0.0, 0.88]},
        },
    }


def save(figure: Figure, folder: Path, formats: Sequence[str] = ("svg", "png")) -> None:
    """Write the figure as `<name>.svg` and `<name>.png` (two pixels a point), or one of them, titled, on white.

    There is room to the right for legends in a wider font than the one that lays the chart out.
    """
    title = {"text": figure.title, "fontSize": 16, "fontWeight": 600, "offset": 14, "anchor": "start"}
    spec = figure.spec | {"title": title, "padding": {"left": 16, "top": 16, "right": 40, "bottom": 16}}
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGALITE_VERSION, config=theme())
    if "svg" in formats:
        (folder / f"{figure.name}.svg").write_text(svg, encoding="utf-8")
    if "png" in formats:
        (folder / f"{figure.name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=2))


def rounded(value: float | None, digits: int = 5) -> float | None:
    """The number to so many significant digits; None for what JSON cannot hold (nan and infinity)."""
    return float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None


def run_title(run: Run, with_label: bool = False) -> str:
    """The run's name for people."""
    names = {"t5": "T5", "vit": "ViT"}
    return names.get(run.name, run.name) + (f" ({run.label})" if with_label else "")
