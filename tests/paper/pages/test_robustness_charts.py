"""Corrupted images and reliability: a point per model, severity and bin, over seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lazyneuron.pages.charts import Figure
from lazyneuron.paper.pages import robustness_charts
from lazyneuron.paper.pages.experiment import Experiment
from tests.pages.reproduced import CORRUPTIONS

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]


def test_severity_has_a_panel_per_corruption_and_starts_at_the_clean_images(
    checked: dict[str, Experiment], points: Points
) -> None:
    figure = robustness_charts.accuracy_over_severity(
        checked["corruptions"], checked["corruptions"].studies("robustness")[0], "x"
    )
    panels = points(figure)
    assert len(panels) == len(CORRUPTIONS)
    assert all(len(rows) == 2 * 6 for rows in panels)
    assert {(row["model"], row["severity"]) for row in panels[0]} >= {("ViT", 0), ("Top-k ViT", 5)}
    assert all(row["low"] < row["value"] < row["high"] for row in panels[0])


def test_relative_errors_have_a_point_per_corruption_and_the_mean(
    checked: dict[str, Experiment], points: Points
) -> None:
    figure = robustness_charts.relative_errors(
        checked["corruptions"], checked["corruptions"].studies("robustness")[0], "x"
    )
    (rows,) = points(figure)
    assert len(rows) == len(CORRUPTIONS) + 1
    assert [row["corruption"] for row in rows if row["is_mean"]] == ["mean of all (mCE)"]
    assert {row["value"] for row in rows} == {96.0}
    assert figure is not None
    assert figure.spec["concat"][0]["layer"][-1]["encoding"]["y"]["sort"][:2] == ["mean of all (mCE)", "gaussian noise"]


def test_reliability_has_a_point_per_bin_model_and_seed_of_true_labels(
    checked: dict[str, Experiment], points: Points
) -> None:
    (rows,) = points(robustness_charts.reliability(checked["table1"], "x"))
    assert len(rows) == 2 * 2 * 4
    assert {row["model"] for row in rows} == {"ViT", "Top-k ViT"}


def test_no_records_give_no_figure(checked: dict[str, Experiment]) -> None:
    experiment = checked["table1"]
    empty = replace(experiment.studies("robustness")[0], records=[])
    assert robustness_charts.accuracy_over_severity(experiment, empty, "x") is None
    assert robustness_charts.relative_errors(experiment, empty, "x") is None
    assert robustness_charts.reliability(replace(experiment, members=[]), "x") is None
