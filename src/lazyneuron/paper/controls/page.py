"""Controls: the quality of each model beside that of its controls, and the difference in numbers."""

from collections.abc import Sequence

import altair as alt

from lazyneuron.pages.charts import Figure, rounded
from lazyneuron.pages.panels import concat, inline, layered, tooltip
from lazyneuron.pages.section import Part
from lazyneuron.paper.results import Member, Results, by_family, less, quality, spread
from lazyneuron.paper.sweep_charts import setting_text
from lazyneuron.paper.tables import RANGE, cell, table
from lazyneuron.records.table import Table

_MEASURES = {"T5": ("loss", "held-out loss (nats)", 1.0), "ViT": ("accuracy", "held-out accuracy (%)", 100.0)}


def add(part: Part, results: Results, name: str) -> None:
    """Add the chart of quality and the table of what each control loses."""
    part.figures += filter(None, [quality_of_controls(results, name)])
    part.tables += filter(None, [differences_to_dense(results)])


def quality_of_controls(results: Results, name: str) -> Figure | None:
    """Held-out loss of T5 and accuracy of ViT, a point for each seed of each model: a panel for each kind of model."""
    panels = []
    for kind, members in by_family(results.trained):
        what, title, scale = _MEASURES[kind]
        rows = [
            {"setting": setting_text(member.setting), "seed": seed, "value": rounded(scale * value)}
            for member in members
            for seed, value in quality(member.run, what).items()
        ]
        if rows:
            order = [setting_text(member.setting) for member in members]
            x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, nice=True))
            y = alt.Y("setting:N", title=None, sort=order)
            tooltips = [tooltip("setting", "model"), tooltip("value", title, ".4~g"), tooltip("seed", form="d")]
            dots = alt.Chart(inline(rows)).mark_point(size=60, filled=True, opacity=0.8)
            panels.append(layered([dots.encode(x=x, y=y, tooltip=tooltips)], kind))
    if not panels:
        return None
    return Figure(
        name=f"{name}-quality",
        title="With all MLPs, without any, and with a quarter of the neurons",
        caption="All held-out data; a point for each seed. A model without MLPs is trained like the dense one, with "
        "zeros in place of what its MLPs give. Where it does as well, no quality under sparsity can be judged.",
        spec=concat(panels),
    )


def differences_to_dense(results: Results) -> Table | None:
    """The quality of each model, and the dense model's less that of the control with the same seed."""
    rows = []
    for kind, members in by_family(results.trained):
        what, _, scale = _MEASURES[kind]
        dense = _dense(members)
        for member in members:
            found = quality(member.run, what)
            gap = less(quality(dense.run, what), found) if dense and member is not dense else {}
            unit = "nats" if what == "loss" else "%, points"
            cells = [cell(spread(found.values()), scale), cell(spread(gap.values()), scale, ".3g", sign=True)]
            rows.append([(setting_text(member.setting), member.run.name), (what, unit), *cells])
    title = "What the MLPs are worth"
    return table(title, ["model", "measure"], ["held-out", "dense less\nthe control"], rows, RANGE)


def _dense(members: Sequence[Member]) -> Member | None:
    """The member that is no control."""
    return next((m for m in members if not m.run.name.endswith(("-nomlp", "-quarter"))), None)
