"""Charts of Theorem 3.1: every case is a row, error bars are two standard errors, negatives have a place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lazyneuron.pages.charts import Figure, Run
from lazyneuron.paper.theorem31 import page
from lazyneuron.records.record import Record
from tests.paper.records import column

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]


def test_every_case_is_a_row_with_its_error_bar(runs: dict[str, Run], points: Points) -> None:
    (rows,) = points(page.theorem_cases([runs["theorem31"]], "x"))
    measured = [row for row in rows if row["kind"] != "closed form"]
    assert len(measured) == 18
    assert len(rows) - len(measured) == 12
    for row in measured:
        assert row["high"] - row["value"] == pytest.approx(2 * row["error"], rel=1e-2)
        assert row["value"] - row["low"] == pytest.approx(2 * row["error"], rel=1e-2)


def test_the_axis_is_logarithmic_only_where_all_is_positive(runs: dict[str, Run]) -> None:
    def scale(run: Run) -> dict[str, Any]:
        figure = page.theorem_cases([run], "x")
        assert figure is not None
        return figure.spec["concat"][0]["layer"][-1]["encoding"]["x"]

    assert scale(runs["theorem31"])["scale"]["type"] == "log"
    first, *others = runs["theorem31"].pick("gradient")
    for value in (-first.value, 0.0):
        x = scale(replace(runs["theorem31"], records=[replace(first, value=value), *others]))
        assert x["scale"]["type"] == "symlog"
        assert 0.0 in x["axis"]["values"]
        assert min(x["axis"]["values"]) < 0


def test_the_step_0_gradient_has_a_panel_per_network_and_stack(runs: dict[str, Run], points: Points) -> None:
    figure = page.gradient_step0([runs["theorem31"]], "x")
    assert [len(rows) for rows in points(figure)] == [4, 4, 6]
    assert figure is not None
    assert [panel["title"] for panel in figure.spec["concat"]] == ["t5 · encoder", "t5 · decoder", "vit"]


def test_values_that_are_not_finite_are_left_out_and_missing_errors_draw_no_bar(
    runs: dict[str, Run], points: Points
) -> None:
    first, second, *_ = runs["theorem31"].pick("gradient")
    records = [replace(first, value=float("nan")), replace(second, error=None)]
    (rows,) = points(page.theorem_cases([replace(runs["theorem31"], records=records)], "x"))
    assert [(row["case"], row["low"] == row["value"] == row["high"]) for row in rows] == [(second.case, True)]


def test_no_records_give_no_figure(runs: dict[str, Run]) -> None:
    assert page.theorem_cases([runs["t5"]], "x") is None
    assert page.gradient_step0([runs["t5"]], "x") is None


def test_numbers_give_z_and_the_distance_from_the_closed_form(runs: dict[str, Run]) -> None:
    table = page.numbers(runs["theorem31"])
    assert column(table, "z") == ["45"] * 18
    assert set(column(table, "off by (errors)")) == {"-0.45", "n/a"}
    alone = Record(what="gradient", value=1.0, unit="1", recipe="theorem31", seed=0, case="x")
    table = page.numbers(replace(runs["theorem31"], records=[alone]))
    assert table is not None
    assert [list(row) for row in table.rows] == [["x", "0", "1", "n/a", "n/a", "n/a", "n/a"]]
