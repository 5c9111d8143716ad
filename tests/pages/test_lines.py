"""The first table: a line for each sentence, the claims under it, and why of the one least in its favour."""

from dataclasses import replace

from lazyneuron.pages.lines import lines, seen
from tests.pages.test_claims_table import verdict

SPARSE, WIDE = "Few neurons are active.", "Wider is sparser."


def test_verdicts_stand_under_their_sentence_and_claim_in_order() -> None:
    layers = verdict(claim="c2", text="Every layer.", line=SPARSE, reported="0.24")
    found = {
        "a": [
            verdict(line=SPARSE, reported="0.027", reason="fine"),
            verdict(line=WIDE),
            verdict(),
            layers,
            verdict(line=SPARSE, on="vit", reported="0.063", verdict="cannot tell", reason="too few"),
            verdict(line=SPARSE, on="t5-long", reported="0.027", verdict="holds"),
        ],
        "b": [verdict(line=SPARSE, verdict="does not hold", reason="dense still")],
    }
    sparse, wide = lines(found)
    mean, every = sparse.claims
    assert (sparse.text, mean.reported, every.reported, wide.text) == (SPARSE, ["0.027", "0.063"], ["0.24"], WIDE)
    assert [(label, v.on) for label, v in mean.verdicts] == [("a", "t5"), ("a", "vit"), ("a", "t5-long"), ("b", "t5")]
    assert every.verdicts == [("a", layers)]
    assert [claim.text for claim in (mean, every, *wide.claims)] == ["t", "Every layer.", ""]
    assert (sparse.worst, mean.worst.reason) == (mean, "dense still")
    assert lines({"a": found["a"]})[0].worst.worst.reason == "too few"
    assert lines({"a": [found["a"][0], replace(layers, verdict="cannot tell")]})[0].worst.text == "Every layer."
    assert wide.claims[0].reported == []
    assert lines({"a": [verdict()]}) == []


def test_what_is_graded_by_density_shows_it() -> None:
    one = verdict(value=0.4)
    three = replace(one, student_low=0.3, student_high=0.5, low=0.35, high=0.45)
    assert [seen(v) for v in (one, three)] == ["0.4", "0.4 (0.3 to 0.5)"]
    assert seen(replace(one, density=0.05)) == "density 0.05"
    assert seen(replace(three, density=0.05, density_low=0.04, density_high=0.06)) == "density 0.05 (0.04 to 0.06)"
    assert seen(verdict(value=None, verdict="cannot tell")) == "n/a"
