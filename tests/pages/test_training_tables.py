"""Tables of trainings have one row per layer, with nothing invented where records are missing."""

from dataclasses import replace

import pytest

from lazyneuron.pages import training_tables
from lazyneuron.pages.charts import Run


def test_density_rows_give_start_end_and_count_of_each_layer(runs: dict[str, Run]) -> None:
    rows = training_tables.density_rows(runs["t5"])
    assert [(row["stack"], row["layer"]) for row in rows] == [(s, n) for s in ("encoder", "decoder") for n in range(4)]
    first = rows[0]
    assert first["start"] == 0.5
    assert first["train"] < first["eval"] < 0.1
    assert first["num_active"] == pytest.approx(512 * first["eval"])


def test_the_table_of_a_training_has_a_row_for_each_layer(runs: dict[str, Run]) -> None:
    first, *_, last = training_tables.density_table(runs["t5"]).texts()
    assert (first[0], last[0]) == ("encoder 0", "decoder 3")
    assert first[1] == "50\u00a0%"
    assert first[-1].startswith("encoder.")
    assert training_tables.density_table(runs["vit"]).texts()[5][0] == "5"


def test_density_rows_average_over_seeds(runs: dict[str, Run]) -> None:
    doubled = [replace(record, seed=1, value=3 * record.value) for record in runs["t5"].records]
    one, two = (
        training_tables.density_rows(runs["t5"]),
        training_tables.density_rows(replace(runs["t5"], records=runs["t5"].records + doubled)),
    )
    assert [row["train"] for row in two] == pytest.approx([2 * row["train"] for row in one])


def test_the_summary_puts_the_paper_beside_the_run(runs: dict[str, Run]) -> None:
    text = " ".join(training_tables.density_summary(runs["t5"])).replace("\u00a0", " ")
    assert "2.7 to 3.0 % (T5-Base)" in text
    assert "num_steps 2048" in text
    assert "6.3 % (ViT-B/16)" in " ".join(training_tables.density_summary(runs["vit"])).replace("\u00a0", " ")
    assert training_tables.density_summary(replace(runs["t5"], records=[])) == []


def test_an_interrupted_run_says_so(runs: dict[str, Run]) -> None:
    assert training_tables.progress(runs["t5"]) is None
    cut = replace(runs["t5"], records=[r for r in runs["t5"].records if (r.step or 0) <= 64])
    assert training_tables.progress(cut) == "This run is not finished: its last record is of step 64 of 2,048."
