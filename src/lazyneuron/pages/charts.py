"""Records of runs to figures: one Vega-Lite definition each for the page, the PNG and the SVG.

A figure is a row of panels (a Vega-Lite concat), so that the page can choose their width and number per row.
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
_PANEL = {"width": 330, "height": 270}
_WIDE = 600
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


def inline(rows: list[Row]) -> alt.InlineData:
    """Rows as a chart's data, without pandas."""
    return alt.InlineData(values=rows)


def grouped(rows: list[Row], key: str) -> list[tuple[str, list[Row]]]:
    """Rows by one key, in a fixed order for stacks and in order of appearance otherwise."""
    order = list(dict.fromkeys(str(row[key]) for row in rows))
    order.sort(key=lambda found: {"encoder": -2, "decoder": -1}.get(found, 0))
    return [(found, [row for row in rows if str(row[key]) == found]) for found in order]


def seed_field(rows: list[Row]) -> list[str]:
    """The tooltip field that tells seeds apart, where there are several."""
    return ["seed"] if len({row["seed"] for row in rows}) > 1 else []


def tooltips(*fields: str) -> list[alt.Tooltip]:
    """Tooltip lines with their titles and number formats."""
    titles = {"percent": "density (%)", "num_tokens": "tokens counted", "data": "measured on", "run": "result folder"}
    numbers = {"percent": ".4~g", "value": ".5~g", "error": ".3~g", "step": ",", "num_tokens": ","}
    return [
        alt.Tooltip(field, type="quantitative", title=titles.get(field, field), format=numbers[field])
        if field in numbers
        else alt.Tooltip(field, type="nominal", title=titles.get(field, field))
        for field in fields
    ]


def tooltip(field: str, title: str = "", form: str = "") -> alt.Tooltip:
    """A line of a tooltip; a number if it has a format."""
    kind: Any = "quantitative" if form else "nominal"
    return alt.Tooltip(field, type=kind, title=title or field, format=form or alt.Undefined)


def lines_with_ranges(
    rows: list[Row],
    x: alt.X,
    y: alt.Y,
    color: alt.Color,
    tooltips: list[alt.Tooltip],
    *,
    shape: Any = alt.Undefined,
    dash: Any = alt.Undefined,
    detail: Sequence[str] = (),
    size: int = 50,
) -> list[alt.Chart]:
    """Lines through points; where rows hold the `low` and `high` of their value over seeds, bars between these."""
    base = alt.Chart(inline(rows)).encode(x=x, color=color, opacity=picked(), detail=list(detail))
    lines = base.mark_line(strokeWidth=1.8, strokeJoin="round").encode(y=y, strokeDash=dash)
    points = base.mark_point(size=size, filled=True).encode(y=y, shape=shape, tooltip=tooltips)
    if "low" not in rows[0]:
        return [lines, points]
    return [lines, base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q"), y2="high:Q"), points]


def layered(layers: list[Any], title: str) -> alt.LayerChart:
    """One panel: its layers in one place, under a title if it has one."""
    return alt.LayerChart(layer=layers).properties(**_PANEL, **({"title": title} if title else {}))


def concat(
    panels: Sequence[Any],
    *,
    pick: str = "",
    columns: int = 2,
    legend_columns: int = 1,
    legend: Sequence[str] = (),
    narrow_columns: int = 1,
) -> dict[str, Any]:
    """The panels side by side as plain JSON, without the theme that altair adds.

    A click in the legend of field `pick` selects in all panels at once. Vega-Lite makes a legend clickable only where
    the selection belongs to the first layer that has the legend's colour.
    On narrow screens there are `narrow_columns` panels in a row under a legend of `legend_columns`, or as many columns
    as hold the texts of `legend`; where a chart stands beside the paper's numbers, so does its legend.
    """
    spec = alt.concat(*panels, columns=columns, spacing=28).to_dict()
    del spec["config"]
    if pick:
        views = [f"picked_{number}" for number in range(len(panels))]
        for panel, view in zip(spec["concat"], views, strict=True):
            next(layer for layer in panel["layer"] if "color" in layer.get("encoding", {}))["name"] = view
        select = {"type": "point", "fields": [pick]}
        spec["params"] = [{"name": "pick", "select": select, "bind": "legend", "views": views}]
    usermeta = {"narrowLegendColumns": legend_columns, "narrowColumns": narrow_columns}
    if legend:
        longest = max(len(text) for text in legend) + 5
        usermeta |= {"narrowLegendColumns": max(1, 42 // longest), "wideLegendColumns": max(1, 88 // longest)}
    return spec | {"usermeta": usermeta}


def side_by_side(panels: list[Any], *, pick: str = "", legend_columns: int = 1) -> dict[str, Any]:
    """The panels as `concat` joins them; one alone is drawn wider."""
    if len(panels) == 1:
        panels = [panels[0].properties(width=_WIDE)]
    return concat(panels, pick=pick, legend_columns=legend_columns)


def picked() -> dict[str, Any]:
    """The opacity of marks: those not selected in the legend fade."""
    return {"condition": {"param": "pick", "value": 1}, "value": 0.08}


def run_title(run: Run, with_label: bool = False) -> str:
    """The run's name for people."""
    names = {"t5": "T5", "vit": "ViT"}
    return names.get(run.name, run.name) + (f" ({run.label})" if with_label else "")
