"""Models trained with Top-k: quality against the share of neurons kept, and the difference to dense."""

from typing import Any

import altair as alt

from lazyneuron.pages.axes import settings_axis
from lazyneuron.pages.charts import Figure, Row, rounded
from lazyneuron.pages.panels import concat, inline, layered, reference, tooltip
from lazyneuron.pages.section import Part
from lazyneuron.paper.results import Member, Results, by_family, differences, family, quality
from lazyneuron.paper.sweep_charts import density_by_setting, over_seeds_tooltip, rows_over_seeds
from lazyneuron.paper.topk import COST

QUALITIES = {"accuracy": "held-out accuracy (%)", "loss": "held-out loss (nats)"}


def add(part: Part, results: Results, name: str) -> None:
    """Add quality against the neurons kept; the density of the trainings is collapsed."""
    part.figures += filter(None, [quality_against_kept(results, name), difference_to_dense(results, name)])
    part.more += density_by_setting(results, name)


def quality_against_kept(results: Results, name: str) -> Figure | None:
    """Held-out accuracy and loss against the neurons kept, the dense model at 100 %: a row of panels per model."""
    panels = []
    for kind, members in by_family(results.trained):
        for what, title in QUALITIES.items():
            rows = [row for member in members for row in _rows(member, quality(member.run, what), _scale(what))]
            if rows:
                panels.append(_panel(rows, title, kind, zero=None))
    if not panels:
        return None
    return Figure(
        name=f"{name}-quality",
        title="Quality against neurons kept",
        caption="Models trained with the k largest entries of each token's activation map kept, at every step; 100 % "
        "is the dense model. On all held-out data. A point for each seed, lines join the means; neurons kept on a "
        "logarithmic axis.",
        spec=concat(panels),
    )


def difference_to_dense(results: Results, name: str) -> Figure | None:
    """Accuracy under Top-k less that of the dense model of the same seed, in points, against the neurons kept."""
    panels = []
    for kind, members in by_family(results.trained):
        rows = [row for member, found in differences(members, "accuracy") for row in _rows(member, found, 100.0)]
        if rows:
            panels.append(_panel(rows, "accuracy less dense (points)", kind, zero=-COST))
    if not panels:
        return None
    return Figure(
        name=f"{name}-difference",
        title="What keeping fewer neurons costs",
        caption="Held-out accuracy less that of the dense model of the same seed, in percentage points: a point for "
        f"each seed, lines join the means. Below zero Top-k is worse; dashed at {-COST} is about what the paper "
        "reports for T5-3B at k = 128 and ViT at k = 256.",
        spec=concat(panels),
    )


def _scale(what: str) -> float:
    return 1.0 if what == "loss" else 100.0


def _rows(member: Member, values: dict[int, float], scale: float) -> list[Row]:
    place: dict[str, Any] = {"percent": float(member.setting), "run": member.run.name, "kind": family(member.run)}
    return [place | {"seed": seed, "value": rounded(scale * value)} for seed, value in values.items()]


def _panel(rows: list[Row], title: str, kind: str, zero: float | None) -> alt.LayerChart:
    """Points and their means; `zero` draws the line of no difference and the paper's."""
    means = rows_over_seeds(({"percent": row["percent"], "kind": kind}, row["value"]) for row in rows)
    x = settings_axis("percent", "neurons kept (%)", [row["percent"] for row in rows], ".3~g")
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, nice=True))
    color = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=["T5", "ViT"]))
    at = [tooltip("percent", "neurons kept (%)", ".3~g")]
    line = alt.Chart(inline(means)).mark_line(strokeWidth=1.8, point=False)
    lines = line.encode(x=x, y=y, color=color, tooltip=[*at, *over_seeds_tooltip(title)])
    tooltips = [*at, tooltip("value", title, ".4~g"), tooltip("seed", form="d"), tooltip("run")]
    dots = alt.Chart(inline(rows)).mark_point(size=40, filled=True, opacity=1)
    dots = dots.encode(x=x, y=y, color=color, tooltip=tooltips)
    marks = [lines, dots]
    if zero is not None:
        marks = [reference(0, "dense"), reference(zero, "about the paper's", is_left=True), *marks]
    return layered(marks, kind)
