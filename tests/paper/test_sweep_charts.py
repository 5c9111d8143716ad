"""Trainings that differ in one setting: a point per setting, layer and stack, with the range over seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lazyneuron.pages.charts import Figure
from lazyneuron.paper import sweep_charts
from lazyneuron.paper.results import Results

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]


def test_density_by_layer_has_a_figure_per_model_and_a_panel_per_stack(
    checked: dict[str, Results], points: Points
) -> None:
    t5, vit = sweep_charts.density_by_setting(checked["fig2a"], "fig2a")
    assert (t5.name, vit.name) == ("fig2a-layers-t5", "fig2a-layers-vit")
    assert [len(rows) for rows in points(t5)] == [4, 4]
    (rows,) = points(vit)
    assert len(rows) == 6
    assert {row["setting"] for row in rows} == {"ViT"}
    for row in rows:
        assert row["low"] < row["value"] < row["high"]
        assert row["seeds"] == 2


def test_models_of_different_depth_are_drawn_by_relative_depth(checked: dict[str, Results], points: Points) -> None:
    (figure,) = sweep_charts.density_by_setting(checked["fig4a"], "x")
    encoder, decoder = points(figure)
    assert len(encoder) == len(decoder) == 4 + 6
    encoding = figure.spec["concat"][0]["layer"][-1]["encoding"]
    assert encoding["x"]["field"] == "depth"
    assert encoding["color"]["type"] == "ordinal"
    assert encoding["color"]["scale"]["domain"] == ["4", "6"]


def test_the_papers_mean_has_a_place_on_the_axis(checked: dict[str, Results]) -> None:
    t5, vit = sweep_charts.density_by_setting(checked["fig2a"], "x")
    for figure, mean in ((t5, "3.0"), (vit, "6.3")):
        assert f"{mean} %" in str(figure.spec["datasets"])
        low, high = figure.spec["concat"][0]["layer"][-1]["encoding"]["y"]["scale"]["domain"]
        assert low <= float(mean) <= high
    (mixer,) = sweep_charts.density_by_setting(checked["mixer"], "x")
    assert "the paper's" not in str(mixer.spec)


def test_a_setting_that_is_a_number_is_an_axis(checked: dict[str, Results], points: Points) -> None:
    figure = sweep_charts.density_over_setting(checked["fig4bc"], "x")
    percent, count = points(figure)
    assert len(percent) == len(count) == 3 * 2 * 2
    assert {row["setting"] for row in percent} == {128.0, 512.0, 2048.0}
    assert {row["stack"] for row in count} == {"encoder", "decoder"}
    at = {(row["setting"], row["stack"], row["seed"]): row["value"] for row in percent}
    assert at[128.0, "encoder", 0] > at[2048.0, "encoder", 0]
    assert sweep_charts.density_over_setting(checked["fig1"], "x") is None


def test_curves_are_means_over_seeds_within_their_range(checked: dict[str, Results], points: Points) -> None:
    figure = sweep_charts.training_curves(checked["fig2a"], "x")
    assert figure is not None
    assert [panel["title"] for panel in figure.spec["concat"]] == [
        f"{model} · {what}" for model in ("T5", "ViT") for what in ("mean density", "loss", "accuracy")
    ]
    density, loss, *_ = points(figure)
    assert [row["data"] for row in density] == ["evaluation data"]
    assert {row["data"] for row in loss} == {"training data", "evaluation data"}
    for row in loss:
        assert row["step"][-1] == 2048
        assert len(row["step"]) == len(row["value"]) <= 40
        assert all(low < value < high for low, value, high in zip(row["low"], row["value"], row["high"], strict=True))


@pytest.mark.parametrize("name", ["fig1", "fig4bc", "mixer"])
def test_no_records_give_no_figure(checked: dict[str, Results], name: str) -> None:
    empty = replace(checked[name], members=[])
    assert sweep_charts.density_by_setting(empty, "x") == []
    assert sweep_charts.density_over_setting(empty, "x") is None
    assert sweep_charts.training_curves(empty, "x") is None
