"""Charts of trainings that differ in one setting: density by layer, over the setting, and curves while training."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import altair as alt

from lazyneuron.pages.axes import free_log_axis, layer_axis, log_axis, settings_axis, step_axis
from lazyneuron.pages.charts import Figure, Row, rounded
from lazyneuron.pages.panels import concat, grouped, inline, layered, lines_with_ranges, picked, reference, tooltip
from lazyneuron.pages.training_charts import SPLITS, thinned
from lazyneuron.paper.emergence import MEANS
from lazyneuron.paper.results import (
    Member,
    Results,
    Spread,
    at_end,
    by_family,
    family,
    model_of,
    over_seeds,
    place_of,
    spread,
    spread_of,
)

SHAPES = ["circle", "diamond", "triangle-up", "square", "triangle-down", "cross"]
_MAX_POINTS = 40
_OVER_SEEDS = "Points are means over seeds, bars and bands their range"
_CLICK = "Click in the legend to single one out, beside the panels to see all."


def setting_text(setting: str | float) -> str:
    """A setting as a legend shows it."""
    return setting if isinstance(setting, str) else f"{setting:g}"


def setting_color(members: Sequence[Member], title: str) -> alt.Color:
    """Settings as colours: an ordered scheme for numbers."""
    domain = list(dict.fromkeys(setting_text(member.setting) for member in members))
    if all(not isinstance(member.setting, str) for member in members):
        domain.sort(key=float)
        return alt.Color("setting:O", title=title, sort=None, scale=alt.Scale(domain=domain))
    return alt.Color("setting:N", title=title, scale=alt.Scale(domain=domain))


def seeds_row(found: Spread, scale: float = 100.0) -> Row:
    """The mean of a number over seeds with its range, as the fields of a row."""
    row: Row = {"value": rounded(scale * found.mean), "low": rounded(scale * found.low)}
    return row | {"high": rounded(scale * found.high), "seeds": found.count}


def rows_over_seeds(points: Iterable[tuple[Row, float]], scale: float = 1.0) -> list[Row]:
    """A row for all points with the same fields: these fields, and the mean and range of the values."""
    found: dict[tuple[tuple[str, Any], ...], list[float]] = defaultdict(list)
    for fields, value in points:
        found[tuple(fields.items())].append(value)
    return [dict(fields) | seeds_row(spread_of(values), scale) for fields, values in found.items()]


def over_seeds_tooltip(unit: str) -> list[alt.Tooltip]:
    """Mean, range and number of seeds."""
    ends = [tooltip("low", "least", ".4~g"), tooltip("high", "most", ".4~g")]
    return [tooltip("value", unit, ".4~g"), *ends, tooltip("seeds", form="d")]


def density_by_setting(results: Results, name: str) -> list[Figure]:
    """The density at the end by layer, one line per setting: one figure per kind of model, one panel per stack."""
    found = [_by_layer(results, kind, members, name) for kind, members in by_family(results.trained)]
    return [figure for figure in found if figure]


def _by_layer(results: Results, kind: str, members: Sequence[Member], name: str) -> Figure | None:
    rows = [row for member in members for row in _layer_rows(member)]
    if not rows:
        return None
    legend = list(dict.fromkeys(row["setting"] for row in rows))
    color = setting_color([member for member in members if setting_text(member.setting) in legend], results.axis)
    counts = {(row["setting"], row["stack"]): row["num_layers"] for row in rows}
    is_relative = any(len({n for (_, at), n in counts.items() if at == stack}) > 1 for _, stack in counts)
    x = layer_axis(is_relative)
    paper = [MEANS[kind]] if kind in MEANS else []
    heights = [*(mean for mean, _ in paper), *(row[key] for row in rows for key in ("value", "low"))]
    y = log_axis(heights, "density (% of neurons active)")
    shapes = alt.Scale(domain=legend, range=[SHAPES[number % len(SHAPES)] for number in range(len(legend))])
    shape = alt.value("circle") if results.is_sweep else alt.Shape("setting:N", title=results.axis, scale=shapes)
    tooltips = [tooltip("setting", results.axis), tooltip("layer"), tooltip("site")]
    tooltips += over_seeds_tooltip("density (%)")
    panels = []
    for stack, part in grouped(rows, "stack"):
        lines = lines_with_ranges(part, x, y, color, tooltips, shape=shape)
        levels = [reference(mean, f"the paper's {model} {mean} %") for mean, model in paper]
        marks = [reference(50, "50 %: untrained"), *levels, *lines]
        panels.append(layered(marks, " · ".join(filter(None, [kind, stack]))))
    where = " by relative depth, since the models have different numbers of layers" if is_relative else ""
    dashed = " Dashed: the paper's mean over layers, and the 50 % of untrained layers." if paper else ""
    slug = re.sub(r"[^a-z0-9_.-]+", "-", kind.lower()).strip(".-") or "model"
    return Figure(
        name=f"{name}-layers-{slug}",
        title=f"Density by layer at the end of training: {kind}",
        caption=f"Share of active neurons on held-out data{where}, on a logarithmic axis. {_OVER_SEEDS}.{dashed}"
        + (f" {_CLICK}" if len(legend) > 1 else ""),
        spec=concat(panels, pick="setting", legend=legend),
    )


def _layer_rows(member: Member) -> list[Row]:
    records = [record for record in at_end(member.run) if math.isfinite(record.value)]
    places = {record.site: place_of(member.run, record) for record in records}
    last = {stack: max(layer for at, layer in places.values() if at == stack) for stack, _ in places.values()}
    points = []
    for record in sorted(records, key=lambda record: places[record.site][1]):
        stack, layer = places[record.site]
        depth = rounded(100 * layer / last[stack]) if last[stack] else 50.0
        row: Row = {"setting": setting_text(member.setting), "stack": stack, "layer": layer, "depth": depth}
        points.append((row | {"num_layers": last[stack] + 1, "site": record.site}, record.value))
    return rows_over_seeds(points, 100)


def density_over_setting(results: Results, name: str) -> Figure | None:
    """Percentage and number of active neurons, mean over layers, against a setting that is a number."""
    titles = {"density": "active neurons (%)", "num_active": "active neurons per token"}
    points, means = {what: [] for what in titles}, {what: [] for what in titles}
    for member in results.trained:
        if isinstance(member.setting, str):
            continue
        for what in titles:
            records = at_end(member.run, what)
            for stack in dict.fromkeys(record.stack for record in records):
                values = over_seeds(r for r in records if r.stack == stack)
                place = {"setting": member.setting, "stack": stack or family(member.run)}
                scale = 100.0 if what == "density" else 1.0
                points[what] += [place | {"seed": s, "value": rounded(scale * v)} for s, v in values.items()]
                if (found := spread(values.values())) is not None:
                    means[what].append(place | seeds_row(found, scale))
    if not points["density"]:
        return None
    stacks = list(dict.fromkeys(row["stack"] for row in points["density"]))
    places = {row["setting"] for row in points["density"]}
    x = settings_axis("setting", results.axis, places)
    color = alt.Color("stack:N", title="stack", scale=alt.Scale(domain=stacks))
    panels = []
    for what, title in titles.items():
        if not points[what]:
            continue
        y = free_log_axis([row["value"] for row in points[what]], title)
        lines = alt.Chart(inline(means[what])).mark_line(strokeWidth=1.8).encode(x=x, y=y, color=color)
        tooltips = [tooltip("stack"), tooltip("setting", results.axis, ",~g"), tooltip("seed", form="d")]
        tooltips += [tooltip("value", title, ".4~g")]
        dots = alt.Chart(inline(points[what])).mark_point(size=50, filled=True)
        dots = dots.encode(x=x, y=y, color=color, opacity=picked(), tooltip=tooltips)
        panels.append(layered([lines.encode(opacity=picked()), dots], title))
    return Figure(
        name=f"{name}-setting",
        title=f"Active neurons against {results.axis}",
        caption="Mean over the layers of a stack at the end of training, on held-out data, as a percentage and as a "
        "number. A point for each seed, lines join the means; all axes are logarithmic.",
        spec=concat(panels, pick="stack", legend=stacks),
    )


def training_curves(results: Results, name: str) -> Figure | None:
    """Mean density, loss and accuracy while training: means over seeds in their range, one row of panels per model."""
    units = {"density": "mean density (%)", "loss": "loss (nats)", "accuracy": "accuracy (%)"}
    panels, legend, last = [], [], 1
    color = setting_color(results.trained, results.axis)
    kinds = by_family(results.trained)
    for kind, members in kinds:
        for what, title in units.items():
            rows = [row for member in members for row in _curve_rows(member, what)]
            if not rows:
                continue
            legend += [row["setting"] for row in rows]
            last = max(row["step"][-1] for row in rows)
            is_log = what == "density"
            y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, nice=True))
            if is_log:
                y = log_axis([value for row in rows for value in row["low"]], title)
            dashes = alt.Scale(domain=[SPLITS["train"], SPLITS["eval"]], range=[[1, 0], [5, 3]])
            base = alt.Chart(inline(rows)).transform_flatten(["step", "value", "low", "high"])
            base = base.encode(x=step_axis(last), color=color, detail="data:N")
            band = base.mark_area(fillOpacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q", opacity=picked())
            tooltips = [tooltip("setting", results.axis), tooltip("data", "measured on")]
            dash = alt.StrokeDash("data:N", legend=None, scale=dashes)
            lines = base.mark_line(strokeWidth=1.6).encode(y=y, opacity=picked(), strokeDash=dash, tooltip=tooltips)
            name_of = title.partition(" (")[0]
            panels.append(layered([band, lines], f"{kind} · {name_of}" if len(kinds) > 1 else name_of))
    if not panels:
        return None
    return Figure(
        name=f"{name}-curves",
        title=f"While training: {results.title}",
        caption="Mean density over the layers, loss and accuracy at each step (logarithmic from step 1), thinned to "
        f"{_MAX_POINTS} steps: means over seeds in their range; training data solid, held-out data dashed. {_CLICK}",
        spec=concat(panels, pick="setting", columns=3, legend=list(dict.fromkeys(legend))),
    )


def _curve_rows(member: Member, what: str) -> list[Row]:
    """One row per split with lists of steps and of mean, least and most over seeds, where all seeds have the step."""
    values: dict[str, dict[int, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for record in member.run.pick(what):
        if math.isfinite(record.value):
            values[record.split][record.step or 0][record.seed].append(record.value)
    scale, rows = (1 if what == "loss" else 100), []
    for split, by_step in values.items():
        if what == "density" and split != "eval" and "eval" in values:
            continue
        num_seeds = max(len(found) for found in by_step.values())
        steps = thinned((step for step in by_step if len(by_step[step]) == num_seeds), _MAX_POINTS)
        lines: dict[str, list[float | None]] = {"value": [], "low": [], "high": []}
        for step in steps:
            seen = spread_of(fmean(found) for found in by_step[step].values())
            for key, value in zip(lines, (seen.mean, seen.low, seen.high), strict=True):
                lines[key].append(rounded(scale * value, 4))
        row: Row = {"setting": setting_text(member.setting), "data": SPLITS.get(split, split), "step": steps}
        rows.append(row | {"model": model_of(member.run)} | lines)
    return rows
