"""Charts of measured models draw every layer and every number, zeros too, and nothing that was not measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from lazyneuron.pages import measure_charts
from lazyneuron.pages.charts import Figure, Run

Measured = Callable[..., Run]
Data = Callable[..., list[dict[str, Any]]]
CHARTS = [
    measure_charts.shares_by_layer,
    measure_charts.activity_over_the_data,
    measure_charts.kinds_of_token,
    measure_charts.firing_rate,
    measure_charts.active_per_token,
]


def without(run: Run, *names: str) -> Run:
    return replace(run, records=[record for record in run.records if record.what not in names])


def encoding(figure: Figure | None, layer: int = -1, panel: int = 0) -> dict[str, Any]:
    assert figure is not None
    return figure.spec["concat"][panel]["layer"][layer]["encoding"]


def test_density_and_energy_shares_are_lines_over_the_layers_of_each_stack(measured: Measured, data: Data) -> None:
    run = measured(stacks={"encoder": 2, "decoder": 4})
    figure = measure_charts.shares_by_layer(run, "x")
    assert figure is not None
    assert [panel["title"] for panel in figure.spec["concat"]] == ["encoder", "decoder"]
    assert [len(data(figure, panel)) for panel in (0, 1)] == [2 * 4, 4 * 4]
    shown = {(row["layer"], row["counted"]): row["value"] for row in data(figure, 1)}
    assert shown[3, "are not exactly zero"] == pytest.approx(5)
    assert shown[3, "hold 90 % of the energy"] == pytest.approx(1.25)
    assert shown[3, "hold 99 % of the energy"] == pytest.approx(2.5)
    assert shown[0, "are above 1 % of the largest"] == pytest.approx(1.125)
    assert encoding(figure)["y"]["scale"]["type"] == "log"
    assert encoding(figure)["x"]["field"] == "layer"


def test_only_shares_that_were_measured_are_in_the_legend(measured: Measured, data: Data) -> None:
    run = without(measured(), "energy_90", "energy_99", "density_relative")
    figure = measure_charts.shares_by_layer(run, "x")
    assert len(data(figure)) == 3
    assert encoding(figure)["color"]["scale"]["domain"] == ["are not exactly zero"]


def test_a_layer_of_density_zero_stands_at_the_foot_and_the_caption_says_so(measured: Measured, data: Data) -> None:
    figure = measure_charts.shares_by_layer(measured(density=0.0), "x")
    assert {row["value"] for row in data(figure)} == {0.0}
    assert "'0' :" in encoding(figure)["y"]["axis"]["labelExpr"]
    assert figure is not None
    assert "A zero" in figure.caption


def test_hot_rare_and_dead_neurons_are_shares_of_the_width(measured: Measured, data: Data) -> None:
    rows = data(measure_charts.activity_over_the_data(measured(), "x"))
    assert {(row["counted"], row["value"]) for row in rows if row["layer"] == 2} == {
        ("make up 99 % of the activity", 50),
        ("make up 90 % of the activity", 25),
        ("are active at < 1 % of the tokens", 25),
        ("are never active", 12.5),
    }


def test_class_token_and_patches_are_drawn_where_they_were_measured(measured: Measured, data: Data) -> None:
    run = measured()
    assert measure_charts.kinds_of_token(run, "x") is None
    first = run.pick("density")
    both = [replace(r, what=what) for r in first for what in ("density_class_token", "density_patches")]
    rows = data(measure_charts.kinds_of_token(replace(run, records=[*run.records, *both]), "x"))
    assert [(row["layer"], row["counted"]) for row in rows] == [
        (n, k) for n in range(3) for k in ("class token", "patches")
    ]


def test_firing_rates_keep_every_neuron_and_dead_ones_lie_on_the_line_called_never(
    measured: Measured, data: Data
) -> None:
    figure = measure_charts.firing_rate(measured(), "x")
    rows = data(figure)
    assert [row["layer"] for row in rows] == [0, 1, 2]
    assert rows[0]["rank"] == [12.5 * n for n in range(9)]
    assert rows[0]["value"] == pytest.approx([80, 40, 20, 10, 5, 2.5, 1.25, 0, 0])
    assert rows[0]["never"] == "8"
    y = encoding(figure)["y"]
    assert y["scale"]["clamp"] is True
    assert y["scale"]["domain"][0] <= 1.25 / 2
    assert "'never'" in y["axis"]["labelExpr"]
    assert figure is not None
    assert "marked “never”" in figure.caption


def test_where_no_neuron_is_dead_the_axis_does_not_say_never(measured: Measured) -> None:
    run = measured()
    alive = [replace(r, value=max(r.value, 1e-4)) if r.what == "firing_rate" else r for r in run.records]
    figure = measure_charts.firing_rate(replace(run, records=alive), "x")
    assert "never" not in encoding(figure)["y"]["axis"]["labelExpr"]
    assert encoding(figure)["y"]["scale"]["domain"][0] <= 0.01
    assert figure is not None
    assert "“never”" not in figure.caption


def test_the_legend_of_many_layers_has_all_of_them_in_columns(measured: Measured) -> None:
    figure = measure_charts.firing_rate(measured(stacks={"": 48}), "x")
    color = encoding(figure)["color"]
    assert color["scale"]["domain"] == list(range(48))
    assert color["legend"]["columns"] == 4
    assert color["legend"]["symbolLimit"] == 0


def test_counts_per_token_are_a_histogram_per_layer_in_percent_of_its_neurons(measured: Measured, data: Data) -> None:
    figure = measure_charts.active_per_token(measured(d_ff=64), "x")
    rows = data(figure)
    assert [row["row"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row["percent"] == pytest.approx([0, 6.25, 12.5, 18.75]), (
            "empty bins at the end are cut, the edge is kept"
        )
        heights = [row["row"] - top for top in row["top"]]
        assert heights == pytest.approx([0.9 * 0.1 / 0.5, 0.9, 0.9 * 0.4 / 0.5, 0], abs=1e-4)
        assert (row["low"], row["median"], row["high"]) == pytest.approx((0.25, 12.5, 24.75))
        assert row["text_median"] == "8 of 64 neurons"
    x = encoding(figure, 0)["x"]
    assert x["scale"] == {"type": "sqrt", "domain": [0, 24.75], "nice": False}
    assert max(x["axis"]["values"]) <= 24.75
    assert encoding(figure, 0)["y"]["axis"]["values"] == [0, 1, 2]


@pytest.mark.parametrize("num_layers", [1, 2, 48, 64])
def test_histograms_of_many_layers_still_fit_a_screen_or_two(measured: Measured, num_layers: int) -> None:
    figure = measure_charts.active_per_token(measured(stacks={"": num_layers}), "x")
    assert figure is not None
    assert 14 * num_layers <= figure.spec["concat"][0]["height"] <= 1000


@pytest.mark.parametrize(("num_layers", "peak"), [(2, 0.9), (4, 0.9), (8, 1.2), (9, 1.6)])
def test_histograms_of_few_layers_do_not_overlap_and_are_high(
    measured: Measured, data: Data, num_layers: int, peak: float
) -> None:
    figure = measure_charts.active_per_token(measured(stacks={"": num_layers}), "x")
    assert max(row["row"] - top for row in data(figure) for top in row["top"]) == pytest.approx(peak)
    assert figure is not None
    assert figure.spec["concat"][0]["height"] >= 220
    y = encoding(figure, 0)["y"]
    assert y["scale"]["domain"][1] < -peak
    assert y["axis"]["titlePadding"] > 10


@pytest.mark.parametrize("last", [0.004, 0.3, 3.7, 19, 23, 55, 100])
def test_each_gridline_of_a_square_root_axis_has_room_for_its_label(measured: Measured, last: float) -> None:
    run = measured(d_ff=10_000)
    keep = [r for r in run.records if r.what != "token_share"]
    wide = [replace(r, value=last * 100) if r.what == "num_active_quantile" else r for r in keep]
    ticks = encoding(measure_charts.active_per_token(replace(run, records=wide), "x"), 0)["x"]["axis"]["values"]
    places = [(tick / last) ** 0.5 for tick in ticks]
    assert len(ticks) >= 4
    assert places[0] == 0
    assert min(after - before for before, after in pairwise(places)) >= 0.08


def with_positive(run: Run, layers: Sequence[int] = (0, 1, 2)) -> Run:
    more = [replace(r, what="positive", value=0.4) for r in run.pick("density") if r.layer in layers]
    return replace(run, records=[*run.records, *more])


@pytest.mark.parametrize(
    ("activation", "is_drawn"), [("gelu", True), ("silu", True), ("relu", False), ("relu^2", False), ("", True)]
)
def test_the_share_above_zero_is_drawn_of_smooth_activations_alone(
    measured: Measured, data: Data, activation: str, is_drawn: bool
) -> None:
    run = with_positive(measured(activation=activation, density=0.97))
    rows = data(measure_charts.shares_by_layer(run, "x"))
    found = [row["value"] for row in rows if row["counted"] == "are above zero"]
    assert found == [40.0] * 3 * is_drawn
    few = [replace(r, value=0.1) if r.what == "density" else r for r in run.records]
    rows = data(measure_charts.shares_by_layer(replace(run, records=few), "x"))
    assert any(row["counted"] == "are above zero" for row in rows) == (is_drawn and bool(activation))


def test_quantiles_alone_and_histograms_alone_are_drawn(measured: Measured, data: Data) -> None:
    run = measured()
    (row, *_) = data(measure_charts.active_per_token(without(run, "token_share"), "x"))
    assert (row["percent"], row["median"]) == ([], 12.5)
    (row, *_) = data(measure_charts.active_per_token(without(run, "num_active_quantile"), "x"))
    assert (len(row["percent"]), row["median"], row["text_high"]) == (4, None, "not counted")
    assert measure_charts.active_per_token(without(run, "token_share", "num_active_quantile"), "x") is None


def test_models_of_different_depth_are_compared_by_relative_depth(measured: Measured, data: Data) -> None:
    both = [measured("a", stacks={"": 5}), measured("b", stacks={"encoder": 1, "decoder": 3}, d_ff=128)]
    figure = measure_charts.compared_by_depth(both, "x")
    assert figure is not None
    titles = [panel["title"] for panel in figure.spec["concat"]]
    assert titles == [title for title, _ in measure_charts.PANELS.values()]
    rows = data(figure, 0)
    depths = {(row["model"], row["stack"]): [] for row in rows}
    for row in rows:
        depths[row["model"], row["stack"]].append(row["depth"])
    assert depths == {
        ("a", "the only one"): [0, 25, 50, 75, 100],
        ("b", "encoder"): [50],
        ("b", "decoder"): [0, 50, 100],
    }
    assert encoding(figure)["x"]["field"] == "depth"
    counts = {row["value"] for row in data(figure, 2) if row["model"] == "b"}
    assert max(counts) == pytest.approx(6.4)
    assert encoding(figure, panel=2)["y"]["scale"]["domain"][1] == 10
    assert encoding(figure)["color"]["scale"]["domain"] == ["a", "b"]


def test_models_of_one_depth_are_compared_by_layer(measured: Measured) -> None:
    figure = measure_charts.compared_by_depth([measured("a"), measured("b", d_ff=256)], "x")
    assert encoding(figure)["x"]["field"] == "layer"
    assert encoding(figure)["shape"]["legend"] is None


def test_a_comparison_has_a_panel_only_for_what_was_measured(measured: Measured) -> None:
    runs = [without(measured(label), "energy_90", "overlap") for label in "ab"]
    figure = measure_charts.compared_by_depth(runs, "x")
    assert figure is not None
    assert [panel["title"] for panel in figure.spec["concat"]] == ["not exactly zero", "active neurons per token"]


@pytest.mark.parametrize("chart", CHARTS)
def test_no_records_give_no_figure(measured: Measured, chart: Callable[..., Figure | None]) -> None:
    run = replace(measured(), records=[])
    assert chart(run, "x") is None
    assert measure_charts.compared_by_depth([run, run], "x") is None


@pytest.mark.parametrize("chart", CHARTS)
def test_density_alone_gives_its_chart_and_no_other(measured: Measured, chart: Callable[..., Figure | None]) -> None:
    run = measured(keep=lambda record: record.what in ("density", "num_active"))
    assert (chart(run, "x") is not None) == (chart is measure_charts.shares_by_layer)
