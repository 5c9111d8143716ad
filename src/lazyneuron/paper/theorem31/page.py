"""Charts of Theorem 3.1: the mean gradient on active pre-activations, drawn and in real networks at step 0."""

import math
from collections.abc import Sequence

import altair as alt

from lazyneuron.pages.charts import Figure, Row, Run, rounded
from lazyneuron.pages.panels import concat, grouped, inline, layered, picked, seed_field, tooltips
from lazyneuron.pages.prose import number
from lazyneuron.pages.section import Part
from lazyneuron.paper.results import Results
from lazyneuron.paper.tables import table
from lazyneuron.records.table import Table

KINDS = {"gradient": "measured, ± 2 SE", "gradient_closed_form": "closed form"}


def add(part: Part, results: Results, name: str) -> None:
    """Add the charts of all cases and of real networks; the table of cases is collapsed."""
    for run in results.studies("theory"):
        figures = [theorem_cases([run], f"{name}-cases"), gradient_step0([run], f"{name}-step0")]
        part.figures += filter(None, figures)
        part.more_tables += filter(None, [numbers(run)])


def theorem_cases(runs: Sequence[Run], name: str) -> Figure | None:
    """Mean gradient of each case with its error bar, and the closed form where there is one."""
    rows = [row for run in runs for what in KINDS for row in _rows(run, what)]
    if not rows:
        return None
    cases = list(dict.fromkeys(row["case"] for row in rows))
    seen = [kind for kind in KINDS.values() if any(row["kind"] == kind for row in rows)]
    scale, ticks = _gradient_scale(rows)
    panels, compare = [], len({row["run"] for row in rows}) > 1
    for label, part in grouped(rows, "run"):
        base = alt.Chart(inline(part)).encode(
            y=alt.Y("case:N", title=None, sort=cases, axis=alt.Axis(labelLimit=180, grid=True)),
            color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=seen)),
            opacity=picked(),
        )
        axis = alt.Axis(values=ticks, format="~g", labelOverlap=True)
        bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q")
        places = base.encode(
            x=alt.X("value:Q", title="mean gradient dL/dp", scale=scale, axis=axis),
            shape=alt.Shape("kind:N", title=None, scale=alt.Scale(domain=seen, range=["circle", "diamond"])),
            tooltip=tooltips("case", "kind", "value", "error", *seed_field(rows)),
        )
        closed = places.mark_point(strokeWidth=1.8, size=130).transform_filter("datum.kind === 'closed form'")
        points = places.mark_point(filled=True, size=45).transform_filter("datum.kind !== 'closed form'")
        layers = [*([_zero("x")] if scale.type == "symlog" else []), bars, closed, points]
        panels.append(layered(layers, label if compare else "").properties(height=alt.Step(21), width=460))
    return Figure(
        name=name,
        title="Theorem 3.1: mean gradient on active neurons",
        caption="Mean of dL/dp over active neurons and random output layers V, ± 2 standard errors (SE), one row per "
        "loss, distribution of V and number of classes K. Where it is positive, a gradient step lowers the "
        "pre-activation.",
        spec=concat(panels, pick="kind", columns=1),
    )


def gradient_step0(runs: Sequence[Run], name: str) -> Figure | None:
    """Mean over root mean square of the gradient on active pre-activations of untrained real networks, by layer."""
    rows = [row for run in runs for row in _rows(run, "gradient_step0")]
    panels, compare = [], len({row["run"] for row in rows}) > 1
    for label, of_run in grouped(rows, "run"):
        for case, of_case in grouped(of_run, "case"):
            for stack, part in grouped(of_case, "stack"):
                x = alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, grid=False))
                color = alt.Color("above:N", legend=None, scale=alt.Scale(domain=[True, False]))
                axis = alt.Axis(labelExpr="datum.value ? format(datum.value, '~e') : '0'", tickCount=5)
                base = alt.Chart(inline(part)).encode(x=x, color=color)
                bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", axis=axis), y2="high:Q")
                points = base.mark_point(filled=True, size=60, opacity=1).encode(
                    y=alt.Y("value:Q", title="mean / RMS of the gradient", axis=axis),
                    tooltip=tooltips("case", "stack", "layer", "site", "value", "error", *seed_field(rows)),
                )
                title = " · ".join(filter(None, [label if compare else "", case, stack]))
                panels.append(layered([_zero("y"), bars, points], title))
    if not panels:
        return None
    return Figure(
        name=name,
        title="At step 0 of a real network: mean gradient over its RMS, by layer",
        caption="Mean of the gradient on active pre-activations of an untrained network over its root mean square "
        "(RMS), with ± 2 standard errors over initialisations. Above the dashed zero line, in blue, a gradient step "
        "lowers them; orange is below. Panels have scales of their own.",
        spec=concat(panels, columns=3),
    )


def _rows(run: Run, what: str) -> list[Row]:
    """One row per record; `low` and `high` are two standard errors off, or the value itself."""
    rows = []
    for record in run.pick(what):
        error = record.error if record.error is not None and math.isfinite(record.error) else 0.0
        keys = ("case", "stack", "layer", "site", "seed")
        row = {key: getattr(record, key) for key in keys} | {"run": run.label, "kind": KINDS.get(what, what)}
        row |= {"value": rounded(record.value), "error": rounded(record.error), "above": record.value > 0}
        row |= {"low": rounded(record.value - 2 * error), "high": rounded(record.value + 2 * error)}
        rows.append(row | {"case": record.case or "all"})
    return [row for row in rows if row["value"] is not None]


def _gradient_scale(rows: list[Row]) -> tuple[alt.Scale, list[float]]:
    """A logarithmic scale if all values are positive, otherwise one that is linear near zero, with ticks."""
    ends = [row[key] for row in rows for key in ("low", "value", "high")]
    sizes = [abs(row["value"]) for row in rows if row["value"]] or [1.0]
    first, last = math.floor(math.log10(min(sizes))), math.ceil(math.log10(max(*sizes, *map(abs, ends))))
    powers = [10.0**power for power in range(first, last + 1)]
    if min(ends) > 0:
        return alt.Scale(type="log", nice=True), powers
    ticks = [*(-power for power in reversed(powers)), 0.0, *powers]
    return alt.Scale(type="symlog", constant=10.0**first, nice=False), ticks


def _zero(channel: str) -> alt.Chart:
    return alt.Chart(inline([{"zero": 0}])).mark_rule(style="reference").encode(**{channel: alt.datum(0)})


def numbers(run: Run) -> Table | None:
    """Per case: mean, standard error, z = mean / error, the closed form and its distance in standard errors."""
    closed_forms = {(record.case, record.seed): record for record in run.pick("gradient_closed_form")}
    rows = []
    for record in run.pick("gradient"):
        closed = closed_forms.get((record.case, record.seed))
        error = record.error or 0
        off = closed and _ratio(record.value - closed.value, math.hypot(error, closed.error or 0))
        values = (record.value, record.error, _ratio(record.value, error), closed and closed.value, off)
        rows.append([record.case, str(record.seed), *map(number, values)])
    titles = ("seed", "mean\ngradient", "standard\nerror", "z", "closed\nform", "off by\n(errors)")
    note = "z is the mean in units of its standard error."
    return table("Every case in numbers", ["case"], titles, rows, note)


def _ratio(above: float, below: float) -> float | None:
    return above / below if below else None
