"""Tables: one row per layer, case and claim, with nothing invented where records are missing."""

from dataclasses import replace

import pytest

from lazyneuron.pages import tables
from lazyneuron.pages.charts import Run
from lazyneuron.records.record import Verdict


def verdict(**changes: object) -> Verdict:
    fields = {"claim": "c1", "text": "t", "where": "w", "metric": "m", "expected": "e", "value": 1.0}
    fields |= {"verdict": "holds", "reason": "r", "recipe": "fig1", "on": "t5", "seeds": [0], "values": [1.0]}
    return Verdict(**fields | changes)  # type: ignore[arg-type]


def test_density_rows_give_start_end_and_count_of_each_layer(runs: dict[str, Run]) -> None:
    rows = tables.density_rows(runs["t5"])
    assert [(row["stack"], row["layer"]) for row in rows] == [(s, n) for s in ("encoder", "decoder") for n in range(4)]
    first = rows[0]
    assert first["start"] == 0.5
    assert first["train"] < first["eval"] < 0.1
    assert first["num_active"] == pytest.approx(512 * first["eval"])


def test_the_table_of_a_training_has_a_row_for_each_layer(runs: dict[str, Run]) -> None:
    first, *_, last = tables.density_table(runs["t5"]).texts()
    assert (first[0], last[0]) == ("encoder 0", "decoder 3")
    assert first[1] == "50\u00a0%"
    assert first[-1].startswith("encoder.")
    assert tables.density_table(runs["vit"]).texts()[5][0] == "5"


def test_density_rows_average_over_seeds(runs: dict[str, Run]) -> None:
    doubled = [replace(record, seed=1, value=3 * record.value) for record in runs["t5"].records]
    one, two = (
        tables.density_rows(runs["t5"]),
        tables.density_rows(replace(runs["t5"], records=runs["t5"].records + doubled)),
    )
    assert [row["train"] for row in two] == pytest.approx([2 * row["train"] for row in one])


def test_the_summary_puts_the_paper_beside_the_run(runs: dict[str, Run]) -> None:
    text = " ".join(tables.density_summary(runs["t5"])).replace("\u00a0", " ")
    assert "2.7 to 3.0 % (T5-Base)" in text
    assert "num_steps 2048" in text
    assert "6.3 % (ViT-B/16)" in " ".join(tables.density_summary(runs["vit"])).replace("\u00a0", " ")
    assert tables.density_summary(replace(runs["t5"], records=[])) == []


def test_an_interrupted_run_says_so(runs: dict[str, Run]) -> None:
    assert tables.progress(runs["t5"]) is None
    cut = replace(runs["t5"], records=[r for r in runs["t5"].records if (r.step or 0) <= 64])
    assert tables.progress(cut) == "This run is not finished: its last record is of step 64 of 2,048."


def test_claims_stand_together_with_a_cell_per_folder() -> None:
    found = {
        "a": [verdict(), verdict(claim="c2", text="other"), verdict(on="vit")],
        "b": [verdict(verdict="does not hold")],
    }
    groups = tables.claims(found)
    assert [[row.on for row in group] for group in groups] == [["t5", "vit"], ["t5"]]
    assert [[v.verdict for v in cell] for cell in groups[0][0].cells] == [["holds"], ["does not hold"]]
    assert [len(cell) for cell in groups[0][1].cells] == [1, 0]


def test_a_claim_that_was_reworded_is_still_one_row_and_another_threshold_is_not() -> None:
    found = {
        "old": [verdict(text="before")],
        "new": [verdict(text="after"), verdict(text="after", expected="at most 2")],
    }
    (group,) = tables.claims(found)
    assert [(row.text, row.expected, [len(cell) for cell in row.cells]) for row in group] == [
        ("after", "e", [1, 1]),
        ("after", "at most 2", [0, 1]),
    ]


def test_the_note_on_intervals_goes_by_the_number_of_seeds() -> None:
    one, three = verdict(), verdict(seeds=[0, 1, 2], values=[1.0, 1.1, 0.9], low=0.9, high=1.1)
    assert tables.interval_note([one]) == "There is one seed: no interval."
    note = tables.interval_note([one, three])
    assert "bootstrap interval" in note
    assert "With three seeds it is the range of the three values" in note
    assert "Where there is one seed" in note
    assert tables.interval_note([]) == ""
    assert tables.interval_note([verdict(expected="at most 2 (ours)")]).endswith("claim without a number.")
    assert (tables.interval(one), tables.interval(three)) == ("", "0.9 to 1.1")


def test_tally_counts_in_words() -> None:
    found = [verdict(), verdict(), verdict(verdict="does not hold"), verdict(verdict="cannot tell")]
    assert tables.tally(found) == "2 hold, 1 does not hold, 1 cannot tell"
    assert tables.tally(found[1:2]) == "1 holds"
    assert tables.tally([]) == "no verdicts"


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "n/a"), (float("nan"), "n/a"), (0.0, "0"), (1234567.0, "1.235e+06")]
)
def test_numbers(value: float | None, shown: str) -> None:
    assert tables.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "n/a"), (0.0, "0"), (0.1, "10"), (0.99, "99"),
        (0.9994, "99.9"), (0.9996, "99.96"), (0.99996, "over 99.99"),
        (1 - 1e-9, "over 99.99"), (1.0, "100"), (1 - 1e-15, "100"), (0.000123, "0.0123"),
    ],
)  # fmt: skip
def test_what_is_not_all_does_not_read_100_percent(value: float | None, shown: str) -> None:
    assert tables.percent(value) == (shown if value is None else f"{shown}\u00a0%")


def test_provenance_names_each_source_once(runs: dict[str, Run]) -> None:
    made = tables.provenance(runs["t5"])
    assert made["num_records"] == len(runs["t5"].records)
    assert [source.commit for source in made["sources"]] == ["0123456789ab"]
    assert made["config"]["task"] == '{"size": "tiny", "num_layers": null, "d_ff": 512}'
