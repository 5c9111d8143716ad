"""How a claim decides: by bounds, by the interval over seeds, by the worst seed, and when it cannot tell."""

import math
from dataclasses import replace

import pytest

from lazyneuron.paper.claim import Claim, Condition, Grade, Seen
from lazyneuron.paper.interval import detectable, seeds_for
from tests.paper.records import at_the_end

AT_MOST_HALF = Claim(
    name="c", text="t", where="w", metric="m", expected="at most 0.5", runs=("vit",),
    see=lambda records: records["vit"], at_most=0.5,
)  # fmt: skip


def judged(claim, *values):
    """The verdict on seeds that show these values (None: the seed has no such record)."""
    seen = {n: {"vit": v if v is None or isinstance(v, Seen) else Seen(v, f"seed {n}")} for n, v in enumerate(values)}
    return claim.verdict("fig1", seen)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.5,), "holds"),
        ((0.51,), "does not hold"),
        ((0.1, 0.2, 0.3), "holds"),
        ((0.1, 0.2, 0.5), "cannot tell"),
        ((0.8, 0.81, 0.82), "does not hold"),
        ((0.6, 0.7, 0.8), "cannot tell"),
        ((0.4, 0.45, 0.6), "cannot tell"),
        ((), "cannot tell"),
        ((None, None), "cannot tell"),
        ((math.nan,), "cannot tell"),
        ((0.1, math.nan, 0.2), "cannot tell"),
        ((0.1, math.inf, 0.2), "does not hold"),
        ((0.1, None, 0.11), "holds"),
        ((0.1, None, 0.2), "cannot tell"),
    ],
)
def test_the_interval_of_the_mean_decides(values, verdict):
    assert judged(AT_MOST_HALF, *values).verdict == verdict


def test_a_verdict_keeps_what_each_seed_showed_and_both_intervals():
    found = judged(AT_MOST_HALF, 0.1, 0.3, 0.2)
    assert (found.seeds, found.values, found.value) == ([0, 1, 2], [0.1, 0.3, 0.2], pytest.approx(0.2))
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert (found.student_low, found.student_high) == (pytest.approx(-0.0484138, rel=1e-5), pytest.approx(0.4484138))
    assert (found.recipe, found.on, found.expected) == ("fig1", "vit", "at most 0.5")
    alone = judged(AT_MOST_HALF, 0.1)
    assert (alone.low, alone.student_low, alone.high, alone.student_high) == (None,) * 4
    assert (alone.reason, alone.detectable) == ("seed 0", None)


@pytest.mark.parametrize(
    ("bounds", "least"),
    [
        ({"at_most": 0.5}, 1),
        ({"at_least": 0.2}, 0),
        ({"above": 0.2, "below": 0.35}, 0),
        ({"above": 0.1, "below": 0.3}, 1),
    ],
)
def test_several_seeds_are_explained_by_the_one_that_speaks_least_for_the_claim(bounds, least):
    claim = replace(AT_MOST_HALF, **({"at_most": math.inf} | bounds))
    assert judged(claim, 0.1, 0.4, 0.25).reason == f"seed {least}: seed {least}"


def test_a_comparison_needs_more_than_one_seed():
    claim = replace(AT_MOST_HALF, compares=True)
    assert judged(claim, 0.1).verdict == "cannot tell"
    assert "one seed" in judged(claim, 0.1).reason
    assert judged(claim, 0.1, 0.1).verdict == "holds"


def test_a_comparison_has_the_difference_that_its_seeds_would_have_detected():
    claim = replace(AT_MOST_HALF, at_most=math.inf, above=0, compares=True, unit="points", effect=0.027)
    values = (0.01, -0.01, 0.03)
    found = judged(claim, *values)
    assert (found.verdict, found.detectable) == ("cannot tell", pytest.approx(detectable(0.02, 3)))
    assert found.reason == (
        "seed 1: seed 1; 3 seeds could have detected 6.2 points; the paper's effect is 2.7 points, "
        f"for which {seeds_for(0.027, 0.02)} seeds are needed"
    )
    assert judged(replace(claim, effect=0.07), *values).reason.endswith("the paper's effect is 7 points")
    assert judged(replace(claim, effect=None, unit=""), *values).reason.endswith("could have detected 0.062")
    clear = judged(claim, 0.03, 0.031, 0.032)
    assert (clear.verdict, clear.detectable) == ("holds", pytest.approx(detectable(0.001, 3)))
    assert "detected" not in clear.reason
    assert judged(replace(claim, compares=False), *values).detectable is None


@pytest.mark.parametrize(("values", "verdict"), [((0.1, 0.2), "holds"), ((0.1, 0.1, 0.6), "does not hold")])
def test_where_every_seed_counts_the_worst_decides(values, verdict):
    assert judged(replace(AT_MOST_HALF, every_seed=True), *values).verdict == verdict


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        (("holds", "holds"), "holds"),
        (("holds", "cannot tell"), "cannot tell"),
        (("cannot tell", "does not hold"), "does not hold"),
    ],
)
def test_the_seeds_own_verdicts_go_before_bounds(own, verdict):
    found = judged(AT_MOST_HALF, *(Seen(9.0, name, name) for name in own))
    assert (found.verdict, found.reason) == (verdict, verdict)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"at_least": 1}, (1, 2), (0.9,)),
        ({"above": 1}, (1.1,), (1, 0)),
        ({"at_most": 1}, (1, 0), (1.1,)),
        ({"below": 1}, (0.9,), (1, 2)),
        ({"at_least": 1, "at_most": 2}, (1, 1.5, 2), (0.9, 2.1)),
    ],
)
def test_bounds_include_or_exclude_their_ends(bounds, inside, outside):
    claim = replace(AT_MOST_HALF, **({"at_most": math.inf} | bounds))
    assert all(claim.admits(value) for value in inside)
    assert not any(claim.admits(value) for value in outside)
    assert judged(claim, *outside[:1] * 3).verdict == "does not hold"
    assert judged(claim, inside[0], outside[0]).verdict == "cannot tell"


GRADED = replace(
    AT_MOST_HALF,
    grades=(
        Grade(name="falls", below=1),
        Grade(name="halves", at_most=0.5),
        Grade(name="a tenth", at_most=0.1, of_density=True),
        Grade(name="the paper's", at_most=0.027, of_density=True),
    ),
)


def graded(*pairs):
    return judged(GRADED, *(Seen(ratio, "", density=density) for ratio, density in pairs))


@pytest.mark.parametrize(
    ("ratio", "density", "grade"),
    [
        (1.0, 0.5, ""),
        (0.999, 0.5, "falls"),
        (0.501, 0.05, "falls"),
        (0.5, 0.101, "halves"),
        (0.2, 0.1, "a tenth"),
        (0.05, 0.0271, "a tenth"),
        (0.05, 0.027, "the paper's"),
        (1.0, 0.01, ""),
        (math.nan, 0.01, ""),
        (0.1, None, "halves"),
    ],
)
def test_one_seed_has_the_highest_grade_whose_bounds_and_those_below_its_values_keep(ratio, density, grade):
    found = graded((ratio, density))
    assert found.grade == grade
    assert (found.density, found.density_low) == (density, None)


def test_a_grade_needs_the_whole_interval_and_stands_beside_the_verdict():
    found = graded((0.2, 0.09), (0.21, 0.1), (0.22, 0.095))
    assert (found.verdict, found.grade) == ("holds", "halves")
    assert (found.density, found.density_low) == (pytest.approx(0.095), pytest.approx(0.095 - 0.0124207, rel=1e-4))
    assert found.density_high == pytest.approx(0.095 + 0.0124207, rel=1e-4)
    assert graded((0.2, 0.09), (0.21, 0.091), (0.22, 0.092)).grade == "a tenth"
    wide = graded((0.4, 0.02), (0.45, 0.02), (0.6, 0.02))
    assert (wide.verdict, wide.grade) == ("cannot tell", "falls")
    assert graded((0.9, 0.02), (0.95, 0.02), (1.02, 0.02)).grade == ""
    assert graded((0.7, 0.4), (0.71, 0.4), (0.72, 0.4)).verdict == "does not hold"
    assert judged(AT_MOST_HALF, 0.1).grade == ""


def test_a_claim_about_quality_is_judged_only_where_the_mlps_are_used():
    claim = replace(AT_MOST_HALF, control=("dense", "dense-nomlp"))

    def seeds(*pairs):
        metric = {"vit": Seen(0.1, "seen")}
        runs = [{"dense": [accuracy(a)], "dense-nomlp": [accuracy(b)]} for a, b in pairs]
        return claim.verdict("topk", dict(enumerate(metric | own for own in runs)))

    used, unused = seeds((0.9, 0.8), (0.91, 0.8), (0.92, 0.8)), seeds((0.884, 0.882), (0.88, 0.885), (0.888, 0.879))
    assert (used.verdict, used.reason) == ("holds", "seed 0: seen")
    assert (unused.verdict, unused.value) == ("cannot tell", pytest.approx(0.1))
    assert unused.reason == "the MLPs are not used: dense 0.884, without MLPs 0.882"
    missing = claim.verdict("topk", {0: {"vit": Seen(0.1, "seen"), "dense": [accuracy(0.9)]}})
    assert (missing.verdict, "dense-nomlp has no records" in missing.reason) == ("cannot tell", True)
    assert "have not come that far" in claim.verdict("topk", {0: {"vit": None}}).reason


def test_what_a_claim_is_stands_in_its_verdict():
    assert (judged(AT_MOST_HALF, 0.1).is_check, judged(AT_MOST_HALF, 0.1).line) == (False, "")
    found = judged(replace(AT_MOST_HALF, is_check=True, line="Few are active."), 0.1)
    assert (found.is_check, found.line) == (True, "Few are active.")


def accuracy(value):
    return at_the_end("accuracy", value)


@pytest.mark.parametrize(
    ("conditions", "verdict", "reason"),
    [
        ((0.06, 0.06), "holds", "seed 1: seed 1"),
        ((0.05, 0.05), "holds", "seed 1: seed 1"),
        ((0.04, 0.07), "holds", "seed 1: seed 1"),
        ((0.04, None), "cannot tell", "calibrated already (4 %)"),
        ((0.01, 0.02), "cannot tell", "calibrated already (1.5 %)"),
        ((math.nan, 0.9), "cannot tell", "calibrated already (nan %)"),
        ((None, None), "cannot tell", "the records do not have its error"),
    ],
)
def test_a_claim_whose_condition_is_not_met_in_the_mean_cannot_tell(conditions, verdict, reason):
    needs = Condition(
        "its error", lambda records: records["need"], 0.05, lambda v: f"calibrated already ({100 * v:.2g} %)"
    )
    claim = replace(AT_MOST_HALF, needs=(needs,))
    seeds = {n: {"vit": Seen(0.1 + n / 100, f"seed {n}"), "need": value} for n, value in enumerate(conditions)}
    found = claim.verdict("fig1", seeds)
    assert (found.verdict, found.values) == (verdict, [0.1, 0.11])
    assert found.reason == reason


def test_a_claim_that_fails_cannot_tell_either_without_its_condition():
    unmet = Condition("x", lambda records: 0.0, 1.0, lambda v: "no control")
    also = Condition("y", lambda records: None, 1.0, lambda v: "never")
    seeds = {0: {"vit": Seen(0.9, "above")}}
    found = replace(AT_MOST_HALF, needs=(unmet, also)).verdict("fig1", seeds)
    assert (found.verdict, found.reason) == ("cannot tell", "no control; the records do not have y")
