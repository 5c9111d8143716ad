"""How a claim decides: by bounds, by the interval over seeds, by the worst seed, and when it cannot tell."""

import math
from dataclasses import replace

import pytest

from lazyneuron.paper.claim import Claim, Seen
from lazyneuron.paper.interval import detectable, seeds_for

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
