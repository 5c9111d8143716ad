"""Statistical top-k: how many neurons it keeps of those asked for, and in what time."""

from collections import defaultdict

import altair as alt

from lazyneuron.pages.charts import Figure, Row, Run, concat, inline, layered, picked
from lazyneuron.pages.section import Part
from lazyneuron.paper.results import Results, over_seeds, spread
from lazyneuron.paper.sweep_charts import (
    density_by_setting,
    log_ticks,
    over_seeds_tooltip,
    reference,
    seeds_row,
    tooltip_lines,
)
from lazyneuron.paper.tables import RANGE, cell, table
from lazyneuron.records.table import Table

CALLS = {"topk_ms": "exact top-k", "statistical_ms": "statistical top-k"}


def add(part: Part, results: Results, name: str) -> None:
    """Add what it keeps and its time; the density of the trainings can wait."""
    part.more += density_by_setting(results, name)
    for run in results.studies("statistical"):
        part.figures += filter(None, [kept_by_layer(results, run, name), time_over_width(run, name)])
        part.tables += filter(None, [numbers(results, run)])


def kept_by_layer(results: Results, run: Run, name: str) -> Figure | None:
    """Neurons kept over those asked for by layer, one line per density asked for, one panel per model and stack."""
    values: dict[tuple[str, str, int, float], list[float]] = defaultdict(list)
    for record in run.pick("kept_ratio"):
        if record.case != "gaussian":
            model = results.model(record.case)
            values[model, record.stack, record.layer or 0, record.x or 0].append(record.value)
    rows: list[Row] = []
    for (model, stack, layer, density), found in values.items():
        seen = spread(found)
        assert seen is not None
        place = {"model": model, "stack": stack, "layer": layer, "asked": f"{100 * density:g}"}
        rows.append(place | seeds_row(seen, 1.0))
    if not rows:
        return None
    asked = sorted({row["asked"] for row in rows}, key=float)
    color = alt.Color("asked:O", title="asked for (% of d_ff)", sort=None, scale=alt.Scale(domain=asked))
    x = alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, grid=False, labelOverlap=True))
    y = alt.Y("value:Q", title="kept, of those asked for", scale=alt.Scale(zero=True, nice=True))
    panels = []
    for model, stack in dict.fromkeys((row["model"], row["stack"]) for row in rows):
        part = [row for row in rows if (row["model"], row["stack"]) == (model, stack)]
        base = alt.Chart(inline(part)).encode(x=x, color=color, opacity=picked())
        bars = base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q"), y2="high:Q")
        tooltip = [
            *tooltip_lines(("layer", "layer", ""), ("asked", "asked for (%)", "")),
            *over_seeds_tooltip("kept, of k"),
        ]
        points = base.mark_point(size=50, filled=True).encode(y=y, tooltip=tooltip)
        lines = base.mark_line(strokeWidth=1.8).encode(y=y)
        panels.append(
            layered([reference(1, "as asked"), lines, bars, points], " · ".join(filter(None, [model, stack])))
        )
    return Figure(
        name=f"{name}-kept",
        title="What statistical top-k keeps of real pre-activations",
        caption="Neurons kept over those asked for, by layer of trained models, mean over held-out tokens: 1 is as "
        "asked. Its threshold supposes Gaussian pre-activations. Means over seeds, bars their range.",
        spec=concat(panels, pick="asked", legend=[*asked, "asked for"]),
    )


def time_over_width(run: Run, name: str) -> Figure | None:
    """Milliseconds of statistical and of exact top-k over the width, on logarithmic axes."""
    rows: list[Row] = []
    for what, call in CALLS.items():
        values: dict[float, list[float]] = defaultdict(list)
        for record in run.pick(what):
            values[record.x or 0].append(record.value)
        for width, found in values.items():
            seen = spread(found)
            assert seen is not None
            rows.append({"call": call, "width": width} | seeds_row(seen, 1.0))
    if not rows:
        return None
    domain = [call for call in CALLS.values() if any(row["call"] == call for row in rows)]
    widths = sorted({row["width"] for row in rows})
    axis = alt.Axis(values=widths, format=",d", labelOverlap=True, grid=False)
    x = alt.X("width:Q", title="width d", scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)
    ticks = log_ticks([row["value"] for row in rows])
    axis = alt.Axis(values=ticks, labelExpr="format(datum.value, '~g')", labelOverlap=True)
    y = alt.Y("value:Q", title="milliseconds", scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)
    color = alt.Color("call:N", title=None, scale=alt.Scale(domain=domain))
    base = alt.Chart(inline(rows)).encode(x=x, color=color, opacity=picked())
    bars = base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q"), y2="high:Q")
    shape = alt.Shape("call:N", title=None, scale=alt.Scale(domain=domain, range=["diamond", "circle"][: len(domain)]))
    tooltip = [*tooltip_lines(("call", "call", ""), ("width", "width", ",d")), *over_seeds_tooltip("ms")]
    points = base.mark_point(size=60, filled=True).encode(y=y, shape=shape, tooltip=tooltip)
    return Figure(
        name=f"{name}-time",
        title="Time over width",
        caption="Median time of a call on rows of Gaussian input, one thread, both axes logarithmic: means over seeds, "
        "bars their range. A line of slope 1 is linear in the width.",
        spec=concat(
            [layered([base.mark_line(strokeWidth=1.8).encode(y=y), bars, points], "")], pick="call", legend=domain
        ),
    )


def numbers(results: Results, run: Run) -> Table | None:
    """Kept over asked for, its deviation over tokens and overlap with exact top-k, by input and density asked for."""
    titles = {"kept_ratio": "kept, of\nthose asked", "kept_deviation": "deviation\nover tokens"}
    titles["kept_overlap"] = "overlap with\nexact top-k"
    places = dict.fromkeys((record.case, record.x) for record in run.pick("kept_ratio"))
    rows = []
    for case, x in places:
        values = [over_seeds(r for r in run.pick(what) if (r.case, r.x) == (case, x)) for what in titles]
        name = "Gaussian input" if case == "gaussian" else results.model(case)
        rows.append([(name, ""), (f"{100 * (x or 0):g}", ""), *(cell(spread(v.values()), 1, ".3f") for v in values)])
    note = "Means over layers. Overlap: neurons that it and exact top-k both keep, over those that either keeps. "
    numbers = ["asked for\n(%)", *titles.values()]
    return table("Statistical top-k in numbers", ["input"], numbers, rows, note + RANGE)
