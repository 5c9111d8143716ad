"""Charts of training runs hold one point for each record, and what they leave out is on purpose."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lazyneuron.pages import training_charts
from lazyneuron.pages.charts import Figure, Run
from lazyneuron.records.record import Record

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]

NUM_STEPS = 13


def changed(run: Run, **changes: Any) -> Run:
    return replace(run, label="other", records=[replace(record, **changes) for record in run.records])


def test_figure_1_has_a_panel_per_stack_and_a_point_per_layer_and_step(runs: dict[str, Run], points: Points) -> None:
    encoder, decoder = points(training_charts.density_over_training(runs["t5"], "x"))
    assert len(encoder) == len(decoder) == 4 * NUM_STEPS
    assert {row["stack"] for row in encoder} == {"encoder"}
    assert {row["layer"] for row in decoder} == {0, 1, 2, 3}
    assert {row["percent"] for row in encoder if row["step"] == 0} == {50.0}
    (only,) = points(training_charts.density_over_training(runs["vit"], "x"))
    assert len(only) == 6 * NUM_STEPS


def test_figure_1_reaches_from_step_0_to_the_last_and_below_the_least_density(
    runs: dict[str, Run], points: Points
) -> None:
    figure = training_charts.density_over_training(runs["t5"], "x")
    assert figure is not None
    encoding = figure.spec["concat"][0]["layer"][-1]["encoding"]
    assert encoding["x"]["scale"]["domain"] == [0, 2048]
    low, high = encoding["y"]["scale"]["domain"]
    assert high == 100
    assert low <= min(row["percent"] for panel in points(figure) for row in panel)


def test_figure_1_falls_back_to_evaluation_data(runs: dict[str, Run], points: Points) -> None:
    run = replace(runs["vit"], records=[r for r in runs["vit"].records if r.split != "train"])
    figure = training_charts.density_over_training(run, "x")
    assert len(points(figure)[0]) == 6 * NUM_STEPS
    assert figure is not None
    assert "evaluation data" in figure.caption


def test_a_density_of_zero_and_nan_are_drawn_or_left_out_without_an_error(runs: dict[str, Run], points: Points) -> None:
    some = [r for r in runs["vit"].records if r.what == "density" and r.split == "train"]
    records = [replace(some[0], value=0.0), replace(some[1], value=float("nan"))]
    rows = points(training_charts.density_over_training(replace(runs["vit"], records=records), "x"))[0]
    assert [row["percent"] for row in rows] == [0.0, None]


def test_hot_and_idle_neurons_are_drawn_as_shares_over_the_steps(runs: dict[str, Run], points: Points) -> None:
    assert training_charts.neurons_over_training(runs["t5"], "x") is None  # its records hold none
    seen = [r for r in runs["t5"].records if r.what == "density" and r.split == "train"]
    found = {"never_fired": 128, "hot_90": 0.3}
    more = [replace(r, what=what, value=value) for r in seen for what, value in found.items()]
    figure = training_charts.neurons_over_training(replace(runs["t5"], records=[*runs["t5"].records, *more]), "x")
    assert figure is not None
    assert [panel["title"] for panel in figure.spec["concat"]] == [
        "never active · encoder", "never active · decoder",
        "make up 90 % of the activity · encoder", "make up 90 % of the activity · decoder",
    ]  # fmt: skip
    panels = points(figure)
    assert [len(panel) for panel in panels] == [4 * NUM_STEPS] * 4
    assert [{row["percent"] for row in panel} for panel in panels] == [{25.0}, {25.0}, {30.0}, {30.0}]  # d_ff is 512


def test_idle_neurons_have_a_point_per_layer_and_step_of_held_out_data(runs: dict[str, Run], points: Points) -> None:
    figure = training_charts.idle_over_training(runs["t5"], "x")
    assert figure is not None
    assert [panel["title"] for panel in figure.spec["concat"]] == [
        "never active · encoder", "never active · decoder",
        "active at < 1 % of the tokens · encoder", "active at < 1 % of the tokens · decoder",
    ]  # fmt: skip
    panels = points(figure)
    assert [len(panel) for panel in panels] == [4 * NUM_STEPS] * 4
    assert [row["percent"] for row in panels[0][:4]] == [0, 2, 4, 6]
    assert {row["percent"] for row in panels[3]} == {30}
    others = [r for r in runs["t5"].records if r.split != "eval"] + [
        replace(r, x=0.1) for r in runs["t5"].records if r.what == "fires_below"
    ]
    assert training_charts.idle_over_training(replace(runs["t5"], records=others), "x") is None


def test_what_inputs_share_is_drawn_by_layer(runs: dict[str, Run], points: Points) -> None:
    figure = training_charts.inputs_over_training(runs["vit"], "x")
    mean, due = points(figure)
    assert len(mean) == len(due) == 6 * NUM_STEPS
    assert {row["percent"] for row in due} == {80}
    assert mean[0]["percent"] == 25  # half of a density of a half
    assert training_charts.inputs_over_training(replace(runs["vit"], records=[]), "x") is None


def test_figure_2_compares_both_splits_at_the_last_common_step(runs: dict[str, Run], points: Points) -> None:
    panels = points(training_charts.density_by_layer([runs["t5"]], "x"))
    assert [len(panel) for panel in panels] == [4 * 2, 4 * 2]
    assert {row["step"] for panel in panels for row in panel} == {2048}
    cut = [r for r in runs["t5"].records if not (r.split == "eval" and (r.step or 0) > 500)]
    panels = points(training_charts.density_by_layer([replace(runs["t5"], records=cut)], "x"))
    assert {(row["step"], row["data"]) for panel in panels for row in panel} == {
        (256, "training data"),
        (256, "evaluation data"),
    }


def test_runs_are_compared_by_their_mean_over_layers(runs: dict[str, Run], points: Points) -> None:
    panels = points(training_charts.mean_density([runs["t5"], changed(runs["t5"], value=0.25)], "x"))
    assert [len(panel) for panel in panels] == [2 * NUM_STEPS, 2 * NUM_STEPS]
    assert {row["percent"] for panel in panels for row in panel if row["run"] == "other"} == {25.0}
    first = [r.value for r in runs["t5"].pick("density") if (r.stack, r.split, r.step) == ("encoder", "train", 2048)]
    (seen,) = [row["percent"] for row in panels[0] if row["step"] == 2048 and row["run"] == "small"]
    assert seen == pytest.approx(100 * sum(first) / 4, rel=1e-4)


def test_loss_and_accuracy_have_a_panel_each(runs: dict[str, Run], points: Points) -> None:
    loss, accuracy = points(training_charts.loss_and_accuracy([runs["t5"]], "x"))
    assert len(loss) == len(accuracy) == 2 * NUM_STEPS
    assert all(0 < row["value"] <= 100 for row in accuracy)
    without = replace(runs["t5"], records=runs["t5"].pick("loss"))
    assert len(points(training_charts.loss_and_accuracy([without], "x"))) == 1


def test_a_long_curve_is_thinned_and_keeps_its_ends(runs: dict[str, Run], points: Points) -> None:
    at = {"what": "loss", "unit": "nats", "recipe": "t5", "seed": 0, "split": "train"}
    records = [Record(value=float(step), step=step, **at) for step in range(20_000)]
    (rows,) = points(training_charts.loss_and_accuracy([replace(runs["t5"], records=records)], "x"))
    steps = [row["step"] for row in rows]
    assert 100 < len(steps) <= training_charts.MAX_POINTS_PER_LINE
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 19_999)
    assert all(row["value"] == pytest.approx(row["step"], rel=1e-4) for row in rows)


def test_seeds_are_lines_of_their_own(runs: dict[str, Run], points: Points) -> None:
    both = replace(runs["vit"], records=runs["vit"].records + changed(runs["vit"], seed=1).records)
    figure = training_charts.density_over_training(both, "x")
    assert len(points(figure)[0]) == 2 * 6 * NUM_STEPS
    assert figure is not None
    encoding = figure.spec["concat"][0]["layer"][-1]["encoding"]
    assert {detail["field"] for detail in encoding["detail"]} >= {"seed"}
    assert "seed" in {line["field"] for line in encoding["tooltip"]}


def test_no_records_give_no_figure(runs: dict[str, Run]) -> None:
    empty = replace(runs["t5"], records=[])
    assert training_charts.density_over_training(empty, "x") is None
    assert training_charts.mean_density([empty], "x") is None
    assert training_charts.density_by_layer([empty], "x") is None
    assert training_charts.loss_and_accuracy([empty], "x") is None
