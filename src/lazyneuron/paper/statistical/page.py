"""Statistical top-k: how many neurons it keeps of those asked for, and in what time."""

import altair as alt

from lazyneuron.pages.axes import free_log_axis, layer_axis, settings_axis
from lazyneuron.pages.charts import Figure, Run
from lazyneuron.pages.panels import concat, layered, lines_with_ranges, reference, tooltip
from lazyneuron.pages.section import Part
from lazyneuron.paper.results import Results, over_seeds, spread
from lazyneuron.paper.sweep_charts import density_by_setting, over_seeds_tooltip, rows_over_seeds
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
    rows = rows_over_seeds(
        (
            {"model": results.model(r.case), "stack": r.stack, "layer": r.layer or 0, "asked": f"{100 * (r.x or 0):g}"},
            r.value,
        )
        for r in run.pick("kept_ratio")
        if r.case != "gaussian"
    )
    if not rows:
        return None
    asked = sorted({row["asked"] for row in rows}, key=float)
    color = alt.Color("asked:O", title="asked for (% of d_ff)", sort=None, scale=alt.Scale(domain=asked))
    y = alt.Y("value:Q", title="kept, of those asked for", scale=alt.Scale(zero=True, nice=True))
    panels = []
    for model, stack in dict.fromkeys((row["model"], row["stack"]) for row in rows):
        part = [row for row in rows if (row["model"], row["stack"]) == (model, stack)]
        tooltips = [tooltip("layer"), tooltip("asked", "asked for (%)"), *over_seeds_tooltip("kept, of k")]
        lines = lines_with_ranges(part, layer_axis(), y, color, tooltips)
        panels.append(layered([reference(1, "as asked"), *lines], " · ".join(filter(None, [model, stack]))))
    return Figure(
        name=f"{name}-kept",
        title="What statistical top-k keeps of real pre-activations",
        caption="Neurons kept over those asked for, by layer of trained models, mean over held-out tokens: 1 is as "
        "asked. Its threshold supposes Gaussian pre-activations. Means over seeds, bars their range.",
        spec=concat(panels, pick="asked", legend=[*asked, "asked for"]),
    )


def time_over_width(run: Run, name: str) -> Figure | None:
    """Milliseconds of statistical and of exact top-k over the width, on logarithmic axes."""
    rows = rows_over_seeds(
        ({"call": call, "width": r.x or 0}, r.value) for what, call in CALLS.items() for r in run.pick(what)
    )
    if not rows:
        return None
    domain = [call for call in CALLS.values() if any(row["call"] == call for row in rows)]
    x = settings_axis("width", "width d", [row["width"] for row in rows], ",d")
    y = free_log_axis([row["value"] for row in rows], "milliseconds")
    color = alt.Color("call:N", title=None, scale=alt.Scale(domain=domain))
    shape = alt.Shape("call:N", title=None, scale=alt.Scale(domain=domain, range=["diamond", "circle"][: len(domain)]))
    tooltips = [tooltip("call"), tooltip("width", form=",d"), *over_seeds_tooltip("ms")]
    return Figure(
        name=f"{name}-time",
        title="Time over width",
        caption="Median time of a call on rows of Gaussian input, one thread, both axes logarithmic: means over seeds, "
        "bars their range. A line of slope 1 is linear in the width.",
        spec=concat(
            [layered(lines_with_ranges(rows, x, y, color, tooltips, shape=shape, size=60), "")],
            pick="call",
            legend=domain,
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
