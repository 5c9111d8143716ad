"""Corrupted images and reliability: a point per model, severity and bin, over seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lazyneuron.pages.charts import Figure
from lazyneuron.paper.results import Results
from lazyneuron.paper.table1 import page
from tests.pages.reproduced import CORRUPTIONS
from tests.paper.records import column

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]


def test_severity_has_a_panel_per_corruption_and_starts_at_the_clean_images(
    checked: dict[str, Results], points: Points
) -> None:
    figure = page.accuracy_over_severity(checked["corruptions"], checked["corruptions"].studies("robustness")[0], "x")
    panels = points(figure)
    assert len(panels) == len(CORRUPTIONS)
    assert all(len(rows) == 2 * 6 for rows in panels)
    assert {(row["model"], row["severity"]) for row in panels[0]} >= {("ViT", 0), ("Top-k ViT", 5)}
    assert all(row["low"] < row["value"] < row["high"] for row in panels[0])


def test_relative_errors_have_a_point_per_corruption_and_the_mean(checked: dict[str, Results], points: Points) -> None:
    figure = page.relative_errors(checked["corruptions"], checked["corruptions"].studies("robustness")[0], "x")
    (rows,) = points(figure)
    assert len(rows) == len(CORRUPTIONS) + 1
    assert [row["corruption"] for row in rows if row["is_mean"]] == ["mean of all (mCE)"]
    assert {row["value"] for row in rows} == {96.0}
    assert figure is not None
    assert figure.spec["concat"][0]["layer"][-1]["encoding"]["y"]["sort"][:2] == ["mean of all (mCE)", "gaussian noise"]


def test_reliability_has_a_point_per_bin_model_and_seed_of_true_labels(
    checked: dict[str, Results], points: Points
) -> None:
    (rows,) = points(page.reliability(checked["table1"], "x"))
    assert len(rows) == 2 * 2 * 4
    assert {row["model"] for row in rows} == {"ViT", "Top-k ViT"}


def test_no_records_give_no_figure(checked: dict[str, Results]) -> None:
    experiment = checked["table1"]
    empty = replace(experiment.studies("robustness")[0], records=[])
    assert page.accuracy_over_severity(experiment, empty, "x") is None
    assert page.relative_errors(experiment, empty, "x") is None
    assert page.reliability(replace(experiment, members=[]), "x") is None


def test_table_1_stands_below_the_papers_in_its_layout(checked: dict[str, Results]) -> None:
    table = page.table1(checked["table1"])
    assert table is not None
    paper = [(name, "the paper") for name in ("ViT", "Top-128 ViT", "difference", "falls less by")]
    here = [(name, "here") for name in ("ViT", "Top-k ViT", "difference", "falls less by")]
    assert [row[0] for row in table.rows] == [*paper, *here]
    assert column(table, "natural")[:4] == ["74.85", "74.83", "-0.02", ""]
    assert column(table, "ECE")[:4] == ["8.42", "7.48", "-0.94", ""]
    assert [column(table, noise)[3] for noise in ("Gaussian", "impulse", "shot")] == ["+2.77", "+2.72", "+2.14"]
    assert column(table, "Gaussian")[4:] == ["56.10", "58.10", "+2.00", "+2.00"]
    assert column(table, "labels 80 %")[4:] == ["25.70", "22.65", "-3.05", ""]
    assert "ImageNet-C's" in table.notes[0]
    half = replace(checked["table1"], members=[m for m in checked["table1"].members if "top" not in m.run.name])
    assert column(page.table1(half), "natural")[5:] == ["", "", ""]
    assert page.table1(replace(checked["table1"], members=[])) is None


def test_mean_errors_are_relative_to_the_first_model(checked: dict[str, Results]) -> None:
    corruptions = checked["corruptions"]
    run = corruptions.studies("robustness")[0]
    assert column(page.mean_errors(corruptions, run), "mCE (% of the first's)") == ["100.00", "96.00"]
    assert page.mean_errors(corruptions, replace(run, records=[])) is None


def test_a_model_that_starts_lower_and_ends_as_low_falls_less(checked: dict[str, Results]) -> None:
    """Top-k's clean accuracy lowered by a point: its accuracy under noise stays, so it falls a point less."""
    run = checked["table1"].studies("robustness")[0]
    lower = [
        replace(r, value=r.value - 0.01) if (r.what, r.case) == ("accuracy", "vit-top4pct clean") else r
        for r in run.records
    ]
    assert page.falls_less(run, "gaussian_noise") == pytest.approx({0: 0.02, 1: 0.02})
    assert page.falls_less(replace(run, records=lower), "gaussian_noise") == pytest.approx({0: 0.03, 1: 0.03})
    assert page.falls_less(replace(run, records=[]), "gaussian_noise") == {}


def test_labels_learned_by_heart_are_those_of_training_images_at_the_end(checked: dict[str, Results]) -> None:
    experiment = checked["table1"]
    table = page.labels_learned(experiment)
    assert table is not None
    names = ["ViT", "Top-k ViT"]
    assert column(table, "training") == [f"{name}{noise}" for noise in ("", ", 40 %", ", 80 %") for name in names]
    learned = ["66.95", "60.70", "46.95", "42.30", "26.95", "23.90"]
    assert column(table, "accuracy on training labels (%)") == learned
    assert "on 1,024 training images" in table.notes[0]
    assert page.labels_learned(replace(experiment, members=[])) is None


def test_whose_constants_were_used_is_said(checked: dict[str, Results]) -> None:
    for name, constants in (("table1", "ImageNet-C"), ("corruptions", "CIFAR-10-C")):
        run = checked[name].studies("robustness")[0]
        figure = page.accuracy_over_severity(checked[name], run, "x")
        assert figure is not None
        assert f"({constants}'s)" in figure.caption
        old = page.accuracy_over_severity(checked[name], replace(run, config={"kind": "robustness"}), "x")
        assert old is not None
        assert "-C's" not in old.caption
