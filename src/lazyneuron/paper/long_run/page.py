"""The long run: its mean density over the steps, the power law of the first two thirds, and the law in numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np

from lazyneuron.pages.axes import log_axis, step_axis
from lazyneuron.pages.charts import Figure, Row, Run, rounded
from lazyneuron.pages.panels import concat, inline, layered, picked, reference, seed_field, tooltips
from lazyneuron.pages.section import Part
from lazyneuron.paper.emergence.page import FIG1_LEVELS, over_training
from lazyneuron.paper.long_run.power_law import (
    FIT_FROM,
    FIT_TO,
    LAYERS,
    Extrapolation,
    extrapolate,
    mean_densities,
)
from lazyneuron.paper.results import Results, seeds_of, spread
from lazyneuron.paper.tables import RANGE, cell, table
from lazyneuron.records.table import Table

FITTED, CHECKED, LEFT_OUT = "fitted", "predicted", "not used"
_PROBES = [FITTED, CHECKED, LEFT_OUT]
_LINES = [FITTED, CHECKED]
_POINTS_PER_LINE = 60
_LAYERS, _DENSITY = "mean over", "mean density (% of neurons active)"


def add(part: Part, results: Results, name: str) -> None:
    """Add the law over the steps and in numbers, and then each layer's density and idle neurons as in Figure 1."""
    for member in results.trained:
        part.figures += filter(None, [law_over_training(member.run, name)])
        part.tables += filter(None, [numbers(member.run)])
    part.figures += over_training(results.trained, name, FIG1_LEVELS)


def law_over_training(run: Run, name: str) -> Figure | None:
    """Mean density over the steps and the law fitted to it, on a logarithmic step axis and on a linear one."""
    points, lines = [], []
    for layers in LAYERS:
        for seed, densities in _by_seed(run, layers):
            found = extrapolate(densities)
            place: Row = {"layers": layers, "seed": seed}
            for step, value in densities.items():
                probe = LEFT_OUT if found is None or step < min(found.fitted) else FITTED
                probe = CHECKED if found and step in found.checked else probe
                points.append(place | {"step": step, "percent": rounded(100 * value), "probe": probe})
            lines += [place | row for row in _line(found)] if found else []
    if not points:
        return None
    end = max(row["step"] for row in points)
    late = [row for row in points if row["step"] >= FIT_FROM * end]
    log_y = log_axis([row["percent"] for row in points], _DENSITY, field="percent")
    axis = alt.Axis(labelExpr="format(datum.value, '~s')", tickCount=5, grid=False)
    linear_x = alt.X("step:Q", title="training step", axis=axis, scale=alt.Scale(domain=[0, end], nice=False))
    linear_y = alt.Y("percent:Q", title=_DENSITY, scale=alt.Scale(zero=False, nice=True))
    panels = [
        _panel(points, lines, step_axis(max(1, end)), log_y, "all steps", end),
        _panel(late, lines, linear_x, linear_y, f"from {100 * FIT_FROM:g} % of the steps on", end),
    ]
    return Figure(
        name=f"{name}-law",
        title="The density, and the power law of the first two thirds of the steps",
        caption="Share of active neurons on held-out data, mean over layers, at each step measured, on logarithmic "
        f"and on linear axes. The law is fitted to the circles, from {100 * FIT_FROM:g} % to two thirds of the steps "
        "(solid, up to the dashed upright line), and predicts the diamonds (dashed); crosses are not used.",
        spec=concat(panels, pick="layers", legend=LAYERS),
    )


def _panel(points: Sequence[Row], lines: Sequence[Row], x: alt.X, y: alt.Y, title: str, end: int) -> alt.LayerChart:
    color = alt.Color("layers:N", title=_LAYERS, scale=alt.Scale(domain=[*LAYERS]))
    shapes = alt.Scale(domain=_PROBES, range=["circle", "diamond", "cross"])
    shape = alt.Shape("probe:N", legend=None, scale=shapes)
    dash = alt.StrokeDash("probe:N", legend=None, scale=alt.Scale(domain=_LINES, range=[[1, 0], [5, 3]]))
    base = alt.Chart(inline([*points])).encode(x=x, y=y, color=color, opacity=picked())
    shown = tooltips("layers", "step", "percent", "probe", *seed_field([*points]))
    marks: list[Any] = [base.mark_point(size=34, filled=True).encode(shape=shape, tooltip=shown)]
    if lines:
        law = alt.Chart(inline([*lines])).mark_line(strokeWidth=1.8)
        law = law.encode(x=x, y=y, color=color, opacity=picked(), strokeDash=dash, detail=["seed:N"])
        marks = [law, *marks, reference(round(FIT_TO * end), "", channel="x")]
    return layered(marks, title)


def _by_seed(run: Run, layers: str) -> Iterator[tuple[int, dict[int, float]]]:
    for seed in seeds_of(run):
        yield seed, mean_densities((record for record in run.records if record.seed == seed), layers)


def _line(found: Extrapolation) -> Iterator[Row]:
    """The law from the first step fitted to the last one checked, with a point of both parts where they meet."""
    first, between, last = min(found.fitted), FIT_TO * max(found.checked), max(found.checked)
    for probe, ends in zip(_LINES, [(first, between), (between, last)], strict=True):
        for step in np.geomspace(*ends, _POINTS_PER_LINE):
            yield {"step": rounded(step), "percent": rounded(100 * found.law.at(step)), "probe": probe}


def numbers(run: Run) -> Table | None:
    """The fitted law and its errors, a row for each mean over layers; numbers are means over seeds."""
    rows = []
    for layers in LAYERS:
        all_found = [found for _, densities in _by_seed(run, layers) if (found := extrapolate(densities))]
        if not all_found:
            continue
        laws = [found.law for found in all_found]
        probes = [f"{len(found.fitted)}, {len(found.checked)}" for found in all_found]
        rows.append(
            [
                (layers, ""),
                cell(spread(law.alpha for law in laws), 1, ".3f"),
                cell(spread(law.floor for law in laws), 100),
                cell(spread(law.c for law in laws), 100, ".3g"),
                ("; ".join(dict.fromkeys(probes)), ""),
                *(
                    cell(spread(getattr(found, error) for found in all_found), 100, ".2f")
                    for error in ("error_fitted", "error", "error_unchanged")
                ),
            ]
        )
    titles = (
        "alpha",
        "floor\n(%)",
        "c\n(%)",
        "probes fitted,\nchecked",
        "error,\nfitted (%)",
        "error, last\nthird (%)",
        "without\nchange (%)",
    )
    note = (
        "density = floor + c / step^alpha, fitted to the logarithm of the density. Errors: the largest distance of "
        "the law from what was measured, relative to that; without change: of a density that stays as it is at the "
        f"last step fitted, which a law has to beat. {RANGE}"
    )
    return table("The power law in numbers", [_LAYERS], titles, rows, note)
