"""Verdicts become one row per claim, threshold and runs, with a cell for each folder."""

from dataclasses import replace

from lazyneuron.pages import claims_table
from lazyneuron.records.record import Verdict


def verdict(**changes: object) -> Verdict:
    fields = {"claim": "c1", "text": "t", "where": "w", "metric": "m", "expected": "e", "value": 1.0}
    fields |= {"verdict": "holds", "reason": "r", "recipe": "fig1", "on": "t5", "seeds": [0], "values": [1.0]}
    return Verdict(**fields | changes)  # type: ignore[arg-type]


def test_claims_stand_together_with_a_cell_per_folder() -> None:
    found = {
        "a": [verdict(), verdict(claim="c2", text="other"), verdict(on="vit")],
        "b": [verdict(verdict="does not hold")],
    }
    groups = claims_table.claim_groups(found)
    assert [[row.on for row in group] for group in groups] == [["t5", "vit"], ["t5"]]
    assert [[v.verdict for v in cell] for cell in groups[0][0].cells] == [["holds"], ["does not hold"]]
    assert [len(cell) for cell in groups[0][1].cells] == [1, 0]


def test_a_claim_that_was_reworded_is_still_one_row_and_another_threshold_is_not() -> None:
    found = {
        "old": [verdict(text="before")],
        "new": [verdict(text="after"), verdict(text="after", expected="at most 2")],
    }
    (group,) = claims_table.claim_groups(found)
    assert [(row.text, row.expected, [len(cell) for cell in row.cells]) for row in group] == [
        ("after", "e", [1, 1]),
        ("after", "at most 2", [0, 1]),
    ]


def test_the_note_on_intervals_goes_by_what_the_verdicts_have() -> None:
    one, three = verdict(), verdict(seeds=[0, 1, 2], values=[1.0, 1.1, 0.9], low=0.9, high=1.1)
    assert claims_table.interval_note([one]) == "There is one seed: no interval."
    old = claims_table.interval_note([one, three])
    assert "bootstrap interval" in old
    assert "With three seeds it is the range of the three values" in old
    assert "Student's 95" not in old
    assert "Where there is one seed" in old
    new = claims_table.interval_note([replace(three, student_low=0.75, student_high=1.25)])
    assert "Student's 95" in new
    assert "With three seeds" not in new
    assert "Of verdicts of earlier versions" in claims_table.interval_note([three, replace(three, student_low=0.75)])
    assert claims_table.interval_note([]) == ""
    assert claims_table.interval_note([verdict(expected="at most 2 (ours)")]).endswith("claim without a number.")


def test_students_interval_goes_before_the_bootstraps_which_stands_beside_it() -> None:
    old = verdict(seeds=[0, 1, 2], values=[1.0, 1.1, 0.9], low=0.9, high=1.1)
    new = replace(old, student_low=0.75158, student_high=1.24842)
    assert [claims_table.interval(v) for v in (verdict(), old, new)] == ["", "0.9 to 1.1", "0.7516 to 1.248"]
    assert [claims_table.bootstrap(v) for v in (verdict(), old, new)] == ["", "", "bootstrap 0.9 to 1.1"]


def test_tally_counts_in_words() -> None:
    found = [verdict(), verdict(), verdict(verdict="does not hold"), verdict(verdict="cannot tell")]
    assert claims_table.tally(found) == "2 hold, 1 does not hold, 1 cannot tell"
    assert claims_table.tally(found[1:2]) == "1 holds"
    assert claims_table.tally([]) == "no verdicts"


def test_checks_are_counted_apart_and_have_a_table_of_their_own() -> None:
    passed, failed = verdict(claim="c2", is_check=True), verdict(claim="c3", is_check=True, verdict="does not hold")
    evidence = [verdict(), verdict(on="vit", verdict="cannot tell")]
    assert claims_table.tally([*evidence, passed, passed]) == "1 holds, 1 cannot tell; 2 of 2 checks pass"
    assert claims_table.tally([*evidence, passed, failed]) == "1 holds, 1 cannot tell; 1 of 2 checks pass"
    assert claims_table.tally([passed]) == "1 of 1 check passes"
    assert claims_table.checks_tally(evidence) == ""
    claims, checks = claims_table.claim_tables({"a": [*evidence, passed], "b": [passed, failed]})
    assert (claims.slug, checks.slug, claims.one_each, checks.note != "") == ("claims", "checks", False, True)
    assert [row.on for group in claims.groups for row in group] == ["t5", "vit"]
    assert [[len(cell) for cell in group[0].cells] for group in checks.groups] == [[1, 1], [0, 1]]
    (alone,) = claims_table.claim_tables({"a": evidence})
    assert alone.one_each
