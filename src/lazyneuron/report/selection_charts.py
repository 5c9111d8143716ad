"""Runs that were trained with a selection: what quality is left at which density, over seeds and result folders."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt

from lazyneuron.report.charts import Figure, Row, Run, concat, inline, layered, picked, rounded, shown
from lazyneuron.report.training_charts import at_the_end

QUALITIES = {"accuracy": "held-out accuracy (%)", "loss": "held-out loss (nats)"}


def is_selected(run: Run) -> bool:
    """Whether the run was trained with a selection in force."""
    return "selection" in run.config


def family(run: Run) -> str:
    """What the run would be called without its selection."""
    return run.name.partition("-top")[0]


def selection_rows(runs: Sequence[Run]) -> list[Row]:
    """One row per family and budget, the densest first: quality at the end as mean and deviation over seeds."""
    found: dict[tuple[str, float], list[dict[str, float]]] = defaultdict(list)
    for run in runs:
        for one in _ends(run):
            found[family(run), one["percent"]].append(one)
    rows = []
    for (name, percent), ends in sorted(found.items(), key=lambda item: (item[0][0], -item[0][1])):
        row: Row = {"family": _title(name), "percent": percent, "num_seeds": len(ends)}
        for what in ("budget", "natural_start", "natural_end", "kept_end", *QUALITIES):
            values = [end[what] for end in ends if what in end]
            row[what] = rounded(statistics.fmean(values)) if values else None
            row[f"{what}_deviation"] = rounded(statistics.stdev(values)) if len(values) > 1 else None
        rows.append(row)
    return rows


def quality_against_density(runs: Sequence[Run], name: str) -> Figure | None:
    """Held-out accuracy and loss at the end against the share of neurons kept: a point per seed, a line of means."""
    points = [{"family": _title(family(run)), **one} for run in runs for one in _ends(run)]
    means = selection_rows(runs)
    names = list(dict.fromkeys(row["family"] for row in means))
    color = alt.Color("family:N", title="model", scale=alt.Scale(domain=names))
    panels = []
    for what, title in QUALITIES.items():
        part = [row for row in points if what in row]
        if not part:
            continue
        color = alt.Color(
            "family:N", title="model", scale=alt.Scale(domain=[*dict.fromkeys(r["family"] for r in means)])
        )
        ticks = sorted({row["percent"] for row in part})
        axis = alt.Axis(values=ticks, format=".3~g", labelOverlap=True, grid=False)
        x = alt.X("percent:Q", title="neurons kept (%)", scale=alt.Scale(type="log", nice=False, padding=8), axis=axis)
        y = alt.Y(f"{what}:Q", title=title, scale=alt.Scale(zero=False, nice=True))
        lines = alt.Chart(inline([row for row in means if row[what] is not None])).mark_line(strokeWidth=1.8)
        number = [alt.Tooltip(f"{what}:Q", title=title, format=".4~g"), alt.Tooltip("percent:Q", format=".3~g")]
        tooltip = [alt.Tooltip("family:N", title="model"), *number, alt.Tooltip("seed:N")]
        marks = (
            alt.Chart(inline(part))
            .mark_circle(size=36)
            .encode(x=x, y=y, color=color, opacity=picked(), tooltip=tooltip)
        )
        panels.append(layered([lines.encode(x=x, y=y, color=color, opacity=picked()), marks], what))
    if not panels:
        return None
    return Figure(
        name=name,
        title="Quality against density, trained with Top-k",
        caption="Each point is one training run whose activation maps kept only their largest entries, at every step;"
        " lines join the means over seeds. The neurons kept are k as a share of d_ff, on a logarithmic axis.",
        spec=concat(panels, pick="family"),
    )


def _ends(run: Run) -> list[dict[str, Any]]:
    """Per seed, what a run that came to its end came to on held-out data."""
    found = []
    asked, last = run.config.get("num_steps"), max((r.step or 0 for r in run.records), default=0)
    if isinstance(asked, int) and last < asked:
        return []
    for seed in sorted({record.seed for record in run.records}):
        records = [r for r in run.records if r.seed == seed and r.split == "eval"]
        end = at_the_end(records)

        def mean(what: str, part: Sequence[Any]) -> float:
            values = [r.value for r in part if r.what == what]
            return statistics.fmean(values) if values else math.nan

        budget, kept, active = mean("budget", end), mean("density", end), mean("num_active", end)
        if math.isnan(budget) or not active:
            continue
        one: dict[str, Any] = {"seed": seed, "run": run.label, "budget": budget, "kept_end": kept}
        one["percent"] = float(f"{100 * budget * kept / active:.3g}")
        one["natural_start"] = mean("natural_density", [r for r in records if r.step == 0])
        one["natural_end"] = mean("natural_density", end)
        one |= {"loss": mean("loss", end), "accuracy": 100 * mean("accuracy", end)}
        found.append({key: value for key, value in one.items() if not (isinstance(value, float) and math.isnan(value))})
    return found


def _title(name: str) -> str:
    return shown(Run(label="", name=name, config={}, records=[]))
