"""Records become layers in order; sizes come from the config or the numbers."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lazyneuron.pages import measured_layers
from lazyneuron.pages.charts import Run

Measured = Callable[..., Run]


def test_layers_come_in_order_whatever_the_order_of_the_records(measured: Measured) -> None:
    run = measured(stacks={"encoder": 2, "decoder": 11})
    found = measured_layers.layers_of(replace(run, records=run.records[::-1]))
    places = [(layer.stack, layer.layer, layer.row) for layer in found]
    assert places == [("encoder", n, n) for n in range(2)] + [("decoder", n, n) for n in range(11)]
    assert all([x for x, _ in curve] == sorted(x for x, _ in curve) for at in found for curve in at.curves.values())


def test_a_layer_has_its_numbers_curves_and_sizes(measured: Measured) -> None:
    layer = measured_layers.layers_of(measured())[1]
    assert (layer.site, layer.activation, layer.d_ff, layer.num_tokens) == ("model.1.mlp", "relu", 64, 4096)
    assert layer.numbers["density"] == pytest.approx(0.05 * 2 / 3)
    assert layer.quantile(0.99) == pytest.approx(0.99 * 16)
    assert layer.quantile(0.33) is None
    assert layer.curves["firing_rate"][0] == (0, 0.8)
    assert len(layer.curves["firing_rate"]) == 9


def test_the_width_follows_from_the_numbers_where_the_config_lists_no_sites(measured: Measured) -> None:
    run = measured()
    bare = measured_layers.layers_of(replace(run, config={"name": "measure"}))
    assert [(layer.d_ff, layer.activation) for layer in bare] == [(64, "")] * 3
    empty = [replace(record, value=0.0) for record in run.records]
    assert measured_layers.layers_of(replace(run, config={}, records=empty))[0].d_ff is None


def test_values_that_are_not_finite_are_left_out(measured: Measured) -> None:
    run = measured()
    lost = [replace(r, value=float("nan")) if r.what in ("density", "firing_rate") else r for r in run.records]
    layer = measured_layers.layers_of(replace(run, records=lost))[0]
    assert "density" not in layer.numbers
    assert "firing_rate" not in layer.curves
    assert "num_active" in layer.numbers


def test_sites_that_share_a_layer_have_rows_of_their_own(measured: Measured) -> None:
    run = measured()
    shared = [replace(record, layer=0) for record in run.records]
    assert [(at.layer, at.row) for at in measured_layers.layers_of(replace(run, records=shared))] == [
        (0, 0),
        (0, 1),
        (0, 2),
    ]
    unnumbered = [replace(record, layer=None) for record in run.records]
    assert [at.layer for at in measured_layers.layers_of(replace(run, records=unnumbered))] == [0, 1, 2]


def test_a_measured_run_is_told_by_its_config_or_its_records(measured: Measured, runs: dict[str, Run]) -> None:
    run = measured()
    assert measured_layers.is_measured(run)
    assert measured_layers.is_measured(replace(run, config={}))
    assert measured_layers.is_measured(replace(run, records=[]))
    assert not any(measured_layers.is_measured(other) for other in runs.values())


@pytest.mark.parametrize(("density", "expected"), [(0.3, False), (0.9, False), (0.999, True), (1.0, True)])
def test_a_model_is_dense_if_every_layer_is(measured: Measured, density: float, expected: bool) -> None:
    run = measured(density=density)
    assert measured_layers.is_dense(measured_layers.layers_of(run)) == expected
    half = [replace(r, value=0.5) if r.what == "density" and r.layer == 1 else r for r in run.records]
    assert not measured_layers.is_dense(measured_layers.layers_of(replace(run, records=half)))
    assert not measured_layers.is_dense([])


def test_a_gated_activation_says_so(measured: Measured) -> None:
    run = measured(activation="silu")
    sites = [site | {"is_gated": site["name"] != "model.1.mlp"} for site in run.config["sites"]]
    found = measured_layers.layers_of(replace(run, config=run.config | {"sites": sites}))
    assert [layer.activation for layer in found] == ["gated silu", "silu", "gated silu"]
