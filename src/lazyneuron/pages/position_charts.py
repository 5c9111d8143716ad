"""Charts of measured models by position in the sequence: lines, a heat map for many layers, a map for images."""

import math
from collections.abc import Sequence
from itertools import pairwise

import altair as alt

from lazyneuron.pages.axes import PLAIN, count_axis, log_axis, log_ticks, nice_top, row_axis
from lazyneuron.pages.charts import Figure, Row, Run, rounded
from lazyneuron.pages.measured_layers import Layer, at_layer, layer_color, layers_of
from lazyneuron.pages.panels import concat, grouped, inline, layered, lines_with_ranges, side_by_side, tooltip, tooltips

MAX_COLUMNS = 64
MAX_LINES = 12
MAX_CELLS = 8000
MAX_PREFIX = 8
_TILES = 6
_GAP_X, _GAP_Y = 0.12, 0.34
_SHARE = tooltip("value", "density (%)", ".4~g")


def density_by_position(run: Run, name: str) -> Figure | None:
    """Density of each layer by position in the sequence; over the image, where the positions are its patches.

    A line per layer, or a heat map of many layers; None where there is one position at most.
    """
    layers = [layer for layer in layers_of(run) if layer.curves.get("density_by_position")]
    if max((len(layer.curves["density_by_position"]) for layer in layers), default=0) < 2:
        return None
    is_text = run.config.get("kind") != "images"
    sides = [0 if is_text else _side(layer) for layer in layers]
    if all(sides) and sum(side**2 for side in sides) <= MAX_CELLS:
        return _over_the_image(run, name, layers)
    rows = [row for layer in layers for row in _columns(layer, is_text)]
    last = max(row["end"] for row in rows)
    title, x_scale = "position in the sequence", alt.Scale(domain=[0, last], nice=False)
    x_axis = alt.Axis(grid=False, format="d", labelOverlap=True)
    x = count_axis("start", title, last) if is_text else alt.X("start:Q", title=title, scale=x_scale, axis=x_axis)
    values = [row["value"] for row in rows]
    y = log_axis(values, "density (% of neurons active)", top=nice_top(values))
    stacks = grouped(rows, "stack")
    many, panels = max(1 + max(row["row"] for row in part) for _, part in stacks) > MAX_LINES, []
    for stack, part in stacks:
        base = alt.Chart(inline(part)).encode(x=x)
        shown = [*tooltips("stack", "layer", "site"), tooltip("positions"), _SHARE]
        if many:
            cells = base.encode(y=row_axis(part, "top"), y2="bottom:Q", color=_heat(values), tooltip=shown)
            cells = cells.transform_calculate(top="datum.row - 0.47", bottom="datum.row + 0.47")
            cells = cells.mark_rect(aria=False).encode(x2="end:Q")
            height = 14 * (1 + max(row["row"] for row in part))
            panels.append(layered([cells], stack).properties(height=height))
        else:
            color, detail = layer_color(layers), ["site:N"]
            panels.append(layered(lines_with_ranges(part, x, y, color, shown, detail=detail, size=22), stack))
    caption = "Share of active neurons at each place in the sequence, counted from 0, mean over sequences."
    if is_text:
        caption += " Positions are on a logarithmic axis."
    if any(row["end"] - row["start"] > 1 for row in rows):
        caption += " Neighbouring positions are pooled where they would be too narrow to see."
    if not many:
        caption += " Click a layer in the legend to single it out, beside the panels to see all."
    spec = side_by_side(panels, pick="" if many else "layer", legend_columns=6)
    return Figure(name=name, title=f"Density by position: {run.name}", caption=caption, spec=spec)


def _columns(layer: Layer, is_text: bool) -> list[Row]:
    """The curve as columns from `start` to `end`: as recorded, or pooled into those wide enough to see."""
    points = layer.curves["density_by_position"]
    starts = [x for x, _ in points]
    step = min((after - before for before, after in pairwise(starts)), default=1.0)
    ends = [*starts[1:], starts[-1] + step]
    place = [math.log1p(start) if is_text else start for start in starts]
    width = max(1e-9, place[-1]) / (MAX_COLUMNS - 1)
    column = [int(at / width) for at in place] if len(points) > MAX_COLUMNS else range(len(points))
    rows = []
    for number in dict.fromkeys(column):
        found = [place for place, of in enumerate(column) if of == number]
        start, end = starts[found[0]], ends[found[-1]]
        mean = sum(points[place][1] for place in found) / len(found)
        text = f"{start:,.0f}" if end - start <= 1 else f"{start:,.0f} to {end - 1:,.0f}"
        place = {"start": start, "end": end, "positions": text}
        rows.append(at_layer(layer) | place | {"value": rounded(100 * mean)})
    return rows


def _side(layer: Layer) -> int:
    """Patches along one side of a square image, if each position was kept and they are that; else 0."""
    points = layer.curves["density_by_position"]
    if [x for x, _ in points] != list(range(len(points))):
        return 0
    side = math.isqrt(len(points))
    return side if side > 1 and len(points) - side**2 <= MAX_PREFIX else 0


def _over_the_image(run: Run, name: str, layers: list[Layer]) -> Figure:
    """One small map per layer: density of each patch, at its place in the image; tokens before them are left out."""
    rows, prefix = [], 0
    for layer in layers:
        side, points = _side(layer), layer.curves["density_by_position"]
        prefix = max(prefix, len(points) - side**2)
        shares = [rounded(100 * share) for _, share in points[len(points) - side**2 :]]
        row = {"side": side, "tile_x": layer.row % _TILES, "tile_y": layer.row // _TILES}
        rows.append(at_layer(layer) | row | {"cell": list(range(side**2)), "value": shares})
    color, panels, aspects = _heat([share for row in rows for share in row["value"]]), [], []
    for stack, part in grouped(rows, "stack"):
        num_rows = 1 + max(row["tile_y"] for row in part)
        wide, high = round(_TILES * (1 + _GAP_X) - _GAP_X, 4), round(num_rows * (1 + _GAP_Y), 4)
        aspects.append(high / wide)
        base = alt.Chart(inline(part)).transform_calculate(
            left=f"datum.tile_x * {1 + _GAP_X}", up=f"datum.tile_y * {1 + _GAP_Y} + {_GAP_Y}",
            name="'layer ' + datum.layer",
        )  # fmt: skip
        cells = base.transform_flatten(["cell", "value"]).transform_calculate(
            column="datum.cell % datum.side", line="floor(datum.cell / datum.side)",
            x0="datum.left + datum.column / datum.side", x1="datum.left + (datum.column + 1) / datum.side",
            y0="datum.up + datum.line / datum.side", y1="datum.up + (datum.line + 1) / datum.side",
        )  # fmt: skip
        x = alt.X("x0:Q", axis=None, scale=alt.Scale(domain=[0, wide], nice=False))
        y = alt.Y("y0:Q", axis=None, scale=alt.Scale(domain=[high, 0], nice=False))
        place = [tooltip("line", "row of the image", "d"), tooltip("column", form="d")]
        shown = [*tooltips("stack", "layer", "site"), *place, _SHARE]
        cells = cells.mark_rect(aria=False).encode(x=x, x2="x1:Q", y=y, y2="y1:Q", color=color, tooltip=shown)
        names = base.mark_text(style="note", align="left", baseline="bottom", dy=-3)
        names = names.encode(x=alt.X("left:Q", axis=None), y=alt.Y("up:Q", axis=None), text="name:N")
        panels.append(layered([cells, names], stack).properties(width=660, height=round(660 * high / wide)))
    spec = concat(panels, columns=1)
    spec["usermeta"]["aspect"] = round(max(aspects), 4)
    tokens = f", without the {'token' if prefix == 1 else f'{prefix} tokens'} before them" if prefix else ""
    caption = (
        f"Share of active neurons of each patch at its place in the image{tokens}: one map per layer, mean over "
        "images, all in the same (logarithmic) colours."
    )
    return Figure(name=name, title=f"Density over the image: {run.name}", caption=caption, spec=spec)


def _heat(values: Sequence[float | None]) -> alt.Color:
    """Densities as colours on a logarithmic scale; zero has the colour of the smallest other one."""
    found = sorted(value for value in values if value) or [1.0]
    low, high = found[0], max(found[-1], 1.01 * found[0])
    legend = alt.Legend(labelExpr=PLAIN, values=[tick for tick in log_ticks([low, high]) if low <= tick <= high])
    scale = alt.Scale(type="log", scheme="viridis", domain=[low, high], clamp=True, nice=False)
    return alt.Color("value:Q", title="density (%)", scale=scale, legend=legend)
