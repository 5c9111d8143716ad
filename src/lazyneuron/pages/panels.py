"""Parts of charts: panels, their marks and tooltips.

A figure is a row of panels (a Vega-Lite concat), so that the page can choose their width and number per row.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt

from lazyneuron.pages.charts import Row

_PANEL = {"width": 330, "height": 270}
_WIDE = 600


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


def tooltip(field: str, title: str = "", form: str = "") -> alt.Tooltip:
    """A line of a tooltip; a number if it has a format."""
    kind: Any = "quantitative" if form else "nominal"
    return alt.Tooltip(field, type=kind, title=title or field, format=form or alt.Undefined)


def tooltips(*fields: str) -> list[alt.Tooltip]:
    """Lines of a tooltip with their titles and number formats."""
    titles = {"percent": "density (%)", "num_tokens": "tokens counted", "data": "measured on", "run": "result folder"}
    numbers = {"percent": ".4~g", "value": ".5~g", "error": ".3~g", "step": ",", "num_tokens": ","}
    return [tooltip(field, titles.get(field, field), numbers.get(field, "")) for field in fields]


def lines_with_ranges(
    rows: list[Row],
    x: alt.X,
    y: alt.Y,
    color: alt.Color,
    tooltip_lines: list[alt.Tooltip],
    *,
    shape: Any = alt.Undefined,
    dash: Any = alt.Undefined,
    detail: Sequence[str] = (),
    size: int = 50,
) -> list[alt.Chart]:
    """Lines through points; where rows hold the `low` and `high` of their value over seeds, bars between these."""
    base = alt.Chart(inline(rows)).encode(x=x, color=color, opacity=picked(), detail=list(detail))
    lines = base.mark_line(strokeWidth=1.8, strokeJoin="round").encode(y=y, strokeDash=dash)
    points = base.mark_point(size=size, filled=True).encode(y=y, shape=shape, tooltip=tooltip_lines)
    if "low" not in rows[0]:
        return [lines, points]
    return [lines, base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q"), y2="high:Q"), points]


def reference(value: float, note: str, channel: str = "y", is_left: bool = False) -> alt.LayerChart:
    """A dashed line at a height of `value`, or at that place along the x axis, with a note at its end."""
    base = alt.Chart(inline([{"value": value, "note": note}]))
    if channel == "x":
        return alt.LayerChart(layer=[base.mark_rule(style="reference").encode(x="value:Q")])
    base = base.encode(y="value:Q")
    place: Any = 4 if is_left else "width"
    text = base.mark_text(style="note", align="left" if is_left else "right", dy=-7)
    text = text.encode(x=alt.value(place), text="note:N")
    return alt.LayerChart(layer=[base.mark_rule(style="reference"), text])


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
