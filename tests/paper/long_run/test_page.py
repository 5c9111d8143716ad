"""The long run's chart has what was measured and the law on both sides of where it was fitted, in numbers beside it."""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest

from lazyneuron.pages.charts import Run
from lazyneuron.paper.long_run import page
from lazyneuron.paper.long_run.power_law import LAYERS, extrapolate, mean_densities
from lazyneuron.paper.results import Results
from tests.paper.records import column

Data = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run(checked: dict[str, Results]) -> Run:
    return checked["long-run"].members[0].run


def of(rows: list[dict[str, Any]], key: str, value: Any) -> list[dict[str, Any]]:
    return [row for row in rows if row[key] == value]


def test_the_law_goes_from_what_is_fitted_to_what_is_predicted(run: Run, data: Data) -> None:
    figure = page.law_over_training(run, "x")
    for panel, first in ((0, 0), (1, 32)):
        lines, points = data(figure, panel), data(figure, panel, layer=1)
        assert {row["layers"] for row in lines} == {row["layers"] for row in points} == set(LAYERS)
        assert min(row["step"] for row in points) == first
        assert {row["step"] for row in of(points, "probe", "fitted")} == {32, 64, 128, 256, 512, 1024}
        assert {row["step"] for row in of(points, "probe", "predicted")} == {2048}
        fitted, predicted = ([row["step"] for row in of(lines, "probe", part)] for part in ("fitted", "predicted"))
        assert (min(fitted), max(predicted)) == (32, 2048)
        assert max(fitted) == min(predicted) == pytest.approx(2048 * 2 / 3, rel=1e-4)


def test_every_seed_has_its_own_law(run: Run, data: Data) -> None:
    lines = of(data(page.law_over_training(run, "x")), "layers", LAYERS[0])
    for seed in (0, 1):
        found = extrapolate(mean_densities([r for r in run.records if r.seed == seed], LAYERS[0]))
        assert found is not None
        last = max(of(lines, "seed", seed), key=lambda row: row["step"])
        assert last["percent"] == pytest.approx(100 * found.law.at(2048), rel=1e-4)


def test_a_run_that_has_not_come_far_is_drawn_without_a_law(run: Run, data: Data) -> None:
    short = replace(run, records=[r for r in run.records if (r.step or 0) <= 8])
    points = data(page.law_over_training(short, "x"))
    assert {row["probe"] for row in points} == {"not used"}
    assert page.numbers(short) is None
    assert page.law_over_training(replace(run, records=[]), "x") is None


def test_the_table_has_the_law_and_what_it_has_to_beat(run: Run) -> None:
    table = page.numbers(run)
    assert column(table, "mean over") == list(LAYERS)
    assert column(table, "probes fitted, checked") == ["6, 1"] * 2
    found = [extrapolate(mean_densities([r for r in run.records if r.seed == seed], LAYERS[1])) for seed in (0, 1)]
    for title, scale, values in (
        ("alpha", 1, [one.law.alpha for one in found if one]),
        ("floor (%)", 100, [one.law.floor for one in found if one]),
        ("c (%)", 100, [one.law.c for one in found if one]),
        ("error, fitted (%)", 100, [one.error_fitted for one in found if one]),
        ("error, last third (%)", 100, [one.error for one in found if one]),
        ("without change (%)", 100, [one.error_unchanged for one in found if one]),
    ):
        assert float(column(table, title)[1]) == pytest.approx(scale * fmean(values), rel=5e-3), title
