"""Tables of measured models give what was recorded; sentences say what is wrong with it, and how to read it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lazyneuron.record import Record
from lazyneuron.report import measure_tables
from lazyneuron.report.charts import Run

Measured = Callable[..., Run]


def plain(texts: list[str]) -> str:
    return " ".join(texts).replace("\u00a0", " ")


def changed(run: Run, what: str, value: float, layer: int | None = None) -> Run:
    records = [replace(r, value=value) if r.what == what and layer in (None, r.layer) else r for r in run.records]
    return replace(run, records=records)


def test_each_layer_has_a_row_with_all_that_was_measured_and_the_means_below(measured: Measured) -> None:
    table = measure_tables.by_layer(measured())
    titles = [title.replace("\u00a0", " ") for title, _ in table.head]
    assert titles == [
        "layer", "activation", "d_ff", "tokens", "density", "active, mean", "active, median", "active, 99 %",
        "never active", "90 % of energy", "99 % of energy", "above 1 %", "overlap of neighbours",
        "site",
    ]  # fmt: skip
    rows = [[cell.replace("\u00a0", " ") for cell in row] for row in table.rows]
    assert rows[2] == [
        "2", "relu", "64", "4,096", "5.00 %", "3.2", "8", "16", "8", "1.25 %", "2.50 %", "4.50 %", "25.0 %",
        "model.2.mlp",
    ]  # fmt: skip
    (foot,) = [[cell.replace("\u00a0", " ") for cell in row] for row in table.foot]
    assert foot[:6] == ["mean", "", "", "", "3.33 %", "2.13"]
    assert foot[-2:] == ["25.0 %", ""]
    assert [title for title, is_number in table.head if not is_number] == ["activation", "site"]


def test_stacks_have_a_column_and_means_of_their_own(measured: Measured) -> None:
    table = measure_tables.by_layer(measured(stacks={"encoder": 2, "decoder": 3}))
    assert [row[:2] for row in table.rows] == [["encoder", str(n)] for n in range(2)] + [
        ["decoder", str(n)] for n in range(3)
    ]
    assert [row[:2] for row in table.foot] == [["encoder", "mean"], ["decoder", "mean"]]


def test_columns_that_were_not_measured_are_left_out_and_gaps_are_named(measured: Measured) -> None:
    run = measured(keep=lambda record: record.what in ("density", "num_active"))
    table = measure_tables.by_layer(run)
    titles = [title for title, _ in table.head]
    assert titles == ["layer", "activation", "d_ff", "tokens", "density", "active, mean", "site"]
    assert table.terms == ["Active: how many neurons are not exactly zero for a token."]
    assert len(measure_tables.by_layer(measured()).terms) == 6
    gap = measure_tables.by_layer(changed(run, "density", float("nan"), layer=1))
    assert [row[4].replace("\u00a0", " ") for row in gap.rows] == ["1.67 %", "n/a", "5.00 %"]


def test_class_token_and_patches_have_columns_where_they_were_measured(measured: Measured) -> None:
    run = measured()
    more = [replace(r, what="density_class_token", value=0.5) for r in run.pick("density")]
    table = measure_tables.by_layer(replace(run, records=[*run.records, *more]))
    place = [title for title, _ in table.head].index("density, class\u00a0token")
    assert {row[place] for row in table.rows} == {"50.0\u00a0%"}


def test_one_layer_needs_no_mean_and_no_record_no_row(measured: Measured) -> None:
    assert measure_tables.by_layer(measured(stacks={"": 1})).foot == []
    empty = measure_tables.by_layer(replace(measured(), records=[]))
    assert (empty.head, empty.rows, empty.foot) == ([], [], [])


def test_models_stand_side_by_side_with_a_row_per_stack(measured: Measured) -> None:
    table = measure_tables.compared([measured("a"), measured("b", stacks={"encoder": 1, "decoder": 2}, d_ff=128)])
    titles = [title.replace("\u00a0", " ") for title, _ in table.head]
    rows = [dict(zip(titles, (cell.replace("\u00a0", " ") for cell in row), strict=True)) for row in table.rows]
    assert [(row["model"], row["stack"], row["layers"]) for row in rows] == [
        ("a", "", "3"), ("b", "encoder", "1"), ("b", "decoder", "2"),
    ]  # fmt: skip
    assert rows[0]["sparsest (layer)"] == "1.67 % (0)"
    assert rows[0]["densest (layer)"] == "5 % (2)"
    assert rows[0]["never active"] == "12.5 %"
    assert rows[2] | {"density": "3.75 %", "d_ff": "128", "active neurons": "4.8", "tokens": "4,096"} == rows[2]
    bare = measure_tables.compared([measured(label, keep=lambda r: r.what == "density") for label in "cd"])
    assert "never active" not in {title for title, _ in bare.head}
    assert measure_tables.compared([replace(measured(), records=[])]).rows == []


def test_the_summary_says_mean_ends_energy_and_dead_neurons(measured: Measured) -> None:
    said = plain(measure_tables.summary(measured()))
    assert "3.33 % of the neurons are active for a token (2.13 of 64)" in said
    assert "from 1.67 % (layer 0) to 5 % (layer 2)" in said
    assert "0.833 % of the neurons hold 90 %" in said
    assert "24 of 192 neurons (12.5 %) were active for no token" in said
    alive = plain(measure_tables.summary(changed(measured(), "never_fired", 0)))
    assert "Each of the 192 neurons was active for at least one token." in alive
    stacks = plain(measure_tables.summary(measured(stacks={"encoder": 1, "decoder": 1})))
    assert "In the encoder, 5 %" in stacks
    assert "from" not in stacks
    assert measure_tables.summary(replace(measured(), records=[])) == []


def test_the_origin_names_model_device_and_data(measured: Measured) -> None:
    run = measured()
    assert (
        measure_tables.origin(run) == "Model: org/tiny-relu, in float32, on cpu. Data: Eight texts of Python's prose."
    )
    assert measure_tables.origin(replace(run, config={})) == "Model: tiny."


def test_nan_entries_are_a_warning_that_names_the_layers(measured: Measured) -> None:
    run = measured(stacks={"encoder": 3, "decoder": 3})
    assert measure_tables.warnings(run) == []
    (said,) = measure_tables.warnings(changed(run, "num_nan", 7, layer=2))
    assert said.startswith("14 entries of the activation maps are NaN, in encoder layer 2; decoder layer 2.")
    (one,) = measure_tables.warnings(changed(measured("one", stacks={"": 1}), "num_nan", 1))
    assert one.startswith("1 entry of the activation maps is NaN, in layer 0.")
    (many,) = measure_tables.warnings(changed(measured("many", stacks={"": 20}), "num_nan", 1))
    assert "layers 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more" in many


def test_layers_that_no_token_reached_are_a_warning(measured: Measured) -> None:
    (said,) = measure_tables.warnings(changed(measured(), "density", float("nan"), layer=1))
    assert said == "No density is known of layer 1: no token reached them."
    (empty,) = measure_tables.warnings(replace(measured(), records=[]))
    assert "no records yet" in empty


@pytest.mark.parametrize(
    ("activation", "density", "num_notes"),
    [
        ("relu", 0.04, 0), ("relu", 0.6, 0), ("relu^2", 0.6, 0), ("silu", 1.0, 2), ("gelu", 0.97, 1), ("gelu", 0.2, 0),
        ("leaky_relu", 1.0, 2), ("", 0.9, 1), ("pow+tanh", 0.995, 2),
    ],
)  # fmt: skip
def test_smooth_activations_come_with_a_note(
    measured: Measured, activation: str, density: float, num_notes: int
) -> None:
    said = measure_tables.notes(measured(activation=activation, density=density))
    assert len(said) == num_notes
    if said:
        assert f"({activation or 'unknown'}) hardly ever gives an exact zero" in said[0]
        assert "90 % of a token's energy" in plain(said)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.9999, "100 %"), (0.09999, "10.0 %"), (0.1234, "12.3 %"), (0.000123, "0.0123 %")],
)
def test_shares_have_three_digits(measured: Measured, value: float, shown: str) -> None:
    record = Record(what="density", value=value, unit="fraction", recipe="measure", seed=0, layer=0)
    table = measure_tables.by_layer(replace(measured(), records=[record]))
    assert shown in [cell.replace("\u00a0", " ") for cell in table.rows[0]]
