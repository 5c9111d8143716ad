"""Tables of measured models give what was recorded; sentences say what is wrong with it, and how to read it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lazyneuron.pages import measure_sentences, measure_tables
from lazyneuron.pages.charts import Run
from lazyneuron.records.record import Record
from lazyneuron.records.table import Table

Measured = Callable[..., Run]


def plain(texts: list[str]) -> str:
    return " ".join(texts).replace("\u00a0", " ").replace("\n", " ")


def titles_of(table: Table) -> list[str]:
    return [plain([column.title]) for column in table.columns]


def with_positive(run: Run, value: float = 0.4) -> Run:
    return replace(
        run, records=[*run.records, *(replace(r, what="positive", value=value) for r in run.pick("density"))]
    )


def changed(run: Run, what: str, value: float, layer: int | None = None) -> Run:
    records = [replace(r, value=value) if r.what == what and layer in (None, r.layer) else r for r in run.records]
    return replace(run, records=records)


def test_each_layer_has_a_row_with_all_that_was_measured_and_the_means_below(measured: Measured) -> None:
    table = measure_tables.by_layer(measured())
    assert titles_of(table) == [
        "layer", "density (%)", "active, mean", "active, median", "active, 99th pct", "never active",
        "90 % of energy (%)", "99 % of energy (%)", "above 1 % of top (%)", "overlap (%)", "site",
    ]  # fmt: skip
    assert table.texts()[2] == ["2", "5.00", "3.2", "8", "16", "8", "1.25", "2.50", "4.50", "25.0", "model.2.mlp"]
    (foot,) = table.texts(table.foot)
    assert foot[:3] == ["mean", "3.33", "2.13"]
    assert foot[-2:] == ["25.0", ""]
    assert [column.title for column in table.columns if column.form is None] == ["layer", "site"]
    assert max(column.title.count("\n") for column in table.columns) == 1


def test_the_spread_of_the_activity_has_a_table_of_its_own(measured: Measured) -> None:
    run = measured()
    table = measure_tables.spread_by_layer(run)
    assert titles_of(table) == [
        "layer", "never active", "active at <1 % of tokens", "90 % of activity (%)", "99 % of activity (%)",
        "shared by halves (%)", "site",
    ]  # fmt: skip
    assert table.texts()[2] == ["2", "8", "16", "25.0", "50.0", "80.0", "model.2.mlp"]
    assert table.texts(table.foot) == [["mean", "8", "16", "25.0", "50.0", "80.0", ""]]
    assert len(table.notes) == 4
    old = replace(run, records=[r for r in run.records if not r.what.startswith(("hot", "rarely"))])
    assert measure_tables.spread_by_layer(old).rows == []


def test_what_all_layers_share_is_said_once_and_what_they_do_not_has_a_column(measured: Measured) -> None:
    run = measured()
    table = measure_tables.by_layer(run)
    assert table.notes[0] == "In every layer the activation is relu, d_ff is 64 and 4,096 tokens were counted."
    sites = [site | {"d_ff": 64 + n, "is_gated": n == 1} for n, site in enumerate(run.config["sites"])]
    table = measure_tables.by_layer(replace(run, config=run.config | {"sites": sites}))
    assert table.notes[0] == "In every layer 4,096 tokens were counted."
    assert [row[1:3] for row in table.texts()] == [["relu", "64"], ["gated relu", "65"], ["relu", "66"]]
    assert "In every layer" not in measure_tables.by_layer(measured(stacks={"": 1})).notes[0]


@pytest.mark.parametrize(("activation", "is_shown"), [("gelu", True), ("relu", False)])
def test_the_share_above_zero_is_shown_of_smooth_activations(
    measured: Measured, activation: str, is_shown: bool
) -> None:
    run = with_positive(measured(activation=activation, density=0.97))
    table = measure_tables.by_layer(run)
    assert ("positive (%)" in titles_of(table)) == is_shown
    assert ("the neurons that ReLU would keep" in plain(table.notes)) == is_shown
    assert (
        "40 % of the neurons are above zero: those that ReLU would keep." in plain(measure_sentences.summary(run))
    ) == is_shown
    if is_shown:
        assert {row[titles_of(table).index("positive (%)")] for row in table.texts()} == {"40.0"}
        gated = [site | {"is_gated": True} for site in run.config["sites"]]
        said = plain(measure_sentences.summary(replace(run, config=run.config | {"sites": gated})))
        assert "above zero. " in said


def test_stacks_have_a_column_and_means_of_their_own(measured: Measured) -> None:
    table = measure_tables.by_layer(measured(stacks={"encoder": 2, "decoder": 3}))
    names = [row[0] for row in table.texts()]
    assert names == [f"encoder {n}" for n in range(2)] + [f"decoder {n}" for n in range(3)]
    assert [row[0] for row in table.foot] == ["encoder mean", "decoder mean"]


def test_columns_that_were_not_measured_are_left_out_and_gaps_are_named(measured: Measured) -> None:
    run = measured(keep=lambda record: record.what in ("density", "num_active"))
    table = measure_tables.by_layer(run)
    assert titles_of(table) == ["layer", "density (%)", "active, mean", "site"]
    assert table.notes[1:] == ["Active: how many neurons are not exactly zero for a token."]
    assert len(measure_tables.by_layer(measured()).notes) == 7
    gap = measure_tables.by_layer(changed(run, "density", float("nan"), layer=1))
    assert [row[1] for row in gap.texts()] == ["1.67", "n/a", "5.00"]


def test_class_token_and_patches_have_columns_where_they_were_measured(measured: Measured) -> None:
    run = measured()
    more = [replace(r, what="density_class_token", value=0.5) for r in run.pick("density")]
    table = measure_tables.by_layer(replace(run, records=[*run.records, *more]))
    assert {row[titles_of(table).index("class token (%)")] for row in table.texts()} == {"50.0"}
    assert table.notes[-1] == "Class token, patches: the density there."


def test_one_layer_needs_no_mean_and_no_record_no_row(measured: Measured) -> None:
    assert measure_tables.by_layer(measured(stacks={"": 1})).foot == []
    empty = measure_tables.by_layer(replace(measured(), records=[]))
    assert (empty.columns, empty.rows, empty.foot) == ([], [], [])


def test_models_stand_side_by_side_with_a_row_per_stack(measured: Measured) -> None:
    table = measure_tables.compared([measured("a"), measured("b", stacks={"encoder": 1, "decoder": 2}, d_ff=128)])
    titles = titles_of(table)
    rows = [dict(zip(titles, (cell.replace("\u00a0", " ") for cell in row), strict=True)) for row in table.texts()]
    assert [(row["model"], row["stack"], row["layers"]) for row in rows] == [
        ("a", "", "3"), ("b", "encoder", "1"), ("b", "decoder", "2"),
    ]  # fmt: skip
    assert rows[0]["range over layers (%)"] == "density 1.67 (0) to 5.00 (2)"
    assert rows[1]["range over layers (%)"] == "density 5.00 (0)"
    assert rows[0]["never active (%)"] == "12.5"
    assert rows[2] | {"density (%)": "3.75", "d_ff": "128", "active neurons": "4.8", "tokens": "4,096"} == rows[2]
    bare = measure_tables.compared([measured(label, keep=lambda r: r.what == "density") for label in "cd"])
    assert not any("never" in title for title in titles_of(bare))
    assert measure_tables.compared([replace(measured(), records=[])]).rows == []


def test_a_comparison_begins_with_what_tells_its_models_apart(measured: Measured) -> None:
    relu, silu = measured("relu"), with_positive(measured("silu", activation="silu", density=0.9999), 0.3)
    energy = {"energy_90": [0.1, 0.3, 0.2]}
    curved = [replace(r, value=energy[r.what][r.layer or 0]) if r.what in energy else r for r in silu.records]
    both = measure_tables.compared([relu, replace(silu, records=curved)])
    titles = titles_of(both)
    assert titles[:5] == ["model", "activation", "90 % of energy (%)", "positive (%)", "density (%)"]
    assert titles[-3:] == ["layers", "d_ff", "tokens"]
    assert [plain([row[5]]) for row in both.texts()] == ["density 1.67 (0) to 5.00 (2)", "energy 10.0 (0) to 30.0 (1)"]
    assert [row[3] for row in both.texts()] == ["n/a", "30.0"]
    titles = titles_of(measure_tables.compared([relu, with_positive(relu)]))
    assert titles[2:4] == ["density (%)", "range over layers (%)"]
    assert titles.index("90 % of energy (%)") > 3
    assert "positive (%)" not in titles
    bare = replace(silu, records=silu.pick("density"))
    assert not any("range" in title for title in titles_of(measure_tables.compared([bare, bare])))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1.0, "100"),
        (0.9999, "99.99"),
        (0.99999, ">99.99"),
        (0.09999, "10.0"),
        (0.1234, "12.3"),
        (0.000123, "0.0123"),
    ],
)
def test_shares_have_three_digits(measured: Measured, value: float, shown: str) -> None:
    record = Record(what="density", value=value, unit="fraction", recipe="measure", seed=0, layer=0)
    table = measure_tables.by_layer(replace(measured(), records=[record]))
    assert table.texts()[0][titles_of(table).index("density (%)")] == shown
