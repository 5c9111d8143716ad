"""Density by position: lines or a heat map, no position lost when they are pooled, and patches at their place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lazyneuron.pages import position_charts
from lazyneuron.pages.charts import Figure, Run

Measured = Callable[..., Run]
Data = Callable[..., list[dict[str, Any]]]


def marks(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [layer["mark"]["type"] for layer in figure.spec["concat"][0]["layer"]]


def test_few_layers_are_lines_and_many_a_heat_map(measured: Measured, data: Data) -> None:
    few = position_charts.density_by_position(measured("few", stacks={"": 12}), "x")
    assert marks(few) == ["line", "point"]
    assert len(data(few)) == 12 * 6
    many = position_charts.density_by_position(measured("many", stacks={"": 13}), "x")
    assert marks(many) == ["rect"]
    assert len(data(many)) == 13 * 6
    assert many is not None
    assert many.spec["concat"][0]["layer"][0]["encoding"]["color"]["scale"]["domain"] == pytest.approx([0.38462, 10])
    assert "pooled" not in many.caption


@pytest.mark.parametrize("kind", ["text", "images"])
@pytest.mark.parametrize("positions", [90, 300, 4000])
def test_thousands_of_positions_are_pooled_into_columns_that_leave_none_out(
    measured: Measured, data: Data, kind: str, positions: int
) -> None:
    figure = position_charts.density_by_position(measured(stacks={"": 1}, positions=positions, kind=kind), "x")
    rows = data(figure)
    assert len(rows) <= position_charts.MAX_COLUMNS
    assert (rows[0]["start"], rows[-1]["end"]) == (0, positions)
    assert [row["end"] for row in rows[:-1]] == [row["start"] for row in rows[1:]]
    mean = sum(row["value"] * (row["end"] - row["start"]) for row in rows) / positions
    assert mean == pytest.approx(5 * (positions + 1) / positions, rel=1e-3)
    assert figure is not None
    assert "pooled" in figure.caption


def test_positions_that_were_pooled_when_measured_say_so(measured: Measured, data: Data) -> None:
    run = measured(stacks={"": 1})
    wide = [replace(r, x=8 * r.x) if r.what == "density_by_position" and r.x else r for r in run.records]
    rows = data(position_charts.density_by_position(replace(run, records=wide), "x"))
    assert [row["positions"] for row in rows[:2]] == ["0 to 7", "8 to 15"]
    assert rows[-1]["end"] == 48


@pytest.mark.parametrize("positions", [0, 1])
def test_one_position_is_no_chart(measured: Measured, positions: int) -> None:
    assert position_charts.density_by_position(measured(positions=positions), "x") is None


@pytest.mark.parametrize(("positions", "side", "prefix"), [(9, 3, 0), (10, 3, 1), (21, 4, 5)])
def test_patches_stand_at_their_place_in_the_image(
    measured: Measured, data: Data, positions: int, side: int, prefix: int
) -> None:
    run = measured(stacks={"": 8}, kind="images", positions=positions)
    figure = position_charts.density_by_position(run, "x")
    assert marks(figure) == ["rect", "text"]
    rows = data(figure)
    assert [(row["tile_x"], row["tile_y"]) for row in rows] == [(n % 6, n // 6) for n in range(8)]
    assert all(row["cell"] == list(range(side**2)) and row["side"] == side for row in rows)
    first = 10 if prefix == 0 else 5
    assert rows[7]["value"] == pytest.approx([first] + [5] * (side**2 - 1))
    assert figure is not None
    said = {0: "image: one", 1: "image, without the token before them:", 5: "without the 5 tokens before them"}
    assert said[prefix] in figure.caption
    assert figure.spec["usermeta"]["aspect"] > 0


def test_what_is_no_square_or_has_lost_a_patch_is_not_drawn_as_an_image(measured: Measured) -> None:
    assert "line" in marks(position_charts.density_by_position(measured("a", kind="images", positions=34), "x"))
    run = measured("b", kind="images", positions=9)
    lost = [replace(r, value=float("nan")) if r.what == "density_by_position" and r.x == 4 else r for r in run.records]
    assert "line" in marks(position_charts.density_by_position(replace(run, records=lost), "x"))
    pooled = [replace(r, x=2 * r.x) if r.what == "density_by_position" and r.x else r for r in run.records]
    assert "line" in marks(position_charts.density_by_position(replace(run, records=pooled), "x"))


def test_more_patches_than_a_page_should_hold_are_a_heat_map(measured: Measured) -> None:
    figure = position_charts.density_by_position(measured(stacks={"": 32}, kind="images", positions=256), "x")
    assert figure is not None
    assert len(figure.spec["concat"][0]["layer"]) == 1


@pytest.mark.parametrize("num_layers", [3, 20])
def test_a_density_of_zero_has_a_colour_and_a_place(measured: Measured, data: Data, num_layers: int) -> None:
    figure = position_charts.density_by_position(measured(stacks={"": num_layers}, density=0.0), "x")
    assert {row["value"] for row in data(figure)} == {0.0}
    assert figure is not None
    encoding = figure.spec["concat"][0]["layer"][0]["encoding"]
    low, high = encoding["color" if num_layers > 12 else "y"]["scale"]["domain"]
    assert 0 < low < high


@pytest.mark.parametrize(("density", "domain"), [(0.03, [2, 10]), (0.0003, [0.02, 0.1]), (0.4, [20, 100])])
def test_the_axis_of_small_densities_does_not_reach_all(
    measured: Measured, density: float, domain: list[float]
) -> None:
    figure = position_charts.density_by_position(measured(density=density), "x")
    assert figure is not None
    assert figure.spec["concat"][0]["layer"][0]["encoding"]["y"]["scale"]["domain"] == pytest.approx(domain)


def test_a_layer_without_positions_is_left_out(measured: Measured, data: Data) -> None:
    run = measured()
    some = [r for r in run.records if r.what != "density_by_position" or r.layer == 2]
    rows = data(position_charts.density_by_position(replace(run, records=some), "x"))
    assert {row["layer"] for row in rows} == {2}
    assert position_charts.density_by_position(replace(run, records=[]), "x") is None
