"""Claims that compare two trainings pair them by seed."""

import pytest

from lazyneuron.paper.claims import comparison as claims
from tests.paper.claims.records import at_the_end, density, run, verdict

HALF = [0.5] * 3


def pairs(one, other, *values):
    """For each seed, the records of two runs."""
    return [{one: a, other: b} for a, b in values]


def of_density(*means):
    return [(run(HALF, [a] * 3), run(HALF, [b] * 3)) for a, b in means]


def of_tested(what, *numbers):
    return [([at_the_end(what, a)], [at_the_end(what, b)]) for a, b in numbers]


def of_active(*numbers):
    return [(density(100, [a], what="num_active"), density(100, [b], what="num_active")) for a, b in numbers]


@pytest.mark.parametrize(
    ("claim", "values", "expected"),
    [
        (claims.larger_sparser("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (claims.larger_sparser("b", "a"), of_density((0.3, 0.2), (0.3, 0.21)), "does not hold"),
        (claims.larger_sparser("b", "a"), of_density((0.3, 0.2), (0.2, 0.3)), "cannot tell"),
        (claims.larger_sparser("b", "a"), of_density((0.1, 0.2), (0.28, 0.3)), "cannot tell"),
        (claims.deeper_sparser("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (claims.wider_lower_fraction("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (claims.wider_higher_count("b", "a"), of_active((40, 20), (41, 20)), "holds"),
        (claims.wider_higher_count("b", "a"), of_active((10, 20), (10, 21)), "does not hold"),
        (claims.scale_of_data("b", "a", on=""), of_density((0.2, 0.205), (0.2, 0.2)), "holds"),
        (claims.scale_of_data("b", "a", on=""), of_density((0.2, 0.25), (0.2, 0.15)), "cannot tell"),
        (claims.scale_of_data("b", "a", on=""), of_density((0.2, 0.1), (0.2, 0.1)), "does not hold"),
        (claims.relu_costs_little("a", "b"), of_tested("accuracy", (0.80, 0.80), (0.79, 0.7901)), "holds"),
        (claims.relu_costs_little("a", "b"), of_tested("accuracy", (0.80, 0.82), (0.79, 0.81)), "does not hold"),
        (claims.topk_enough("a", "b", ""), of_tested("accuracy", (0.80, 0.80), (0.79, 0.7901)), "holds"),
        (claims.topk_enough("a", "b", ""), of_tested("accuracy", (0.80, 0.801), (0.79, 0.80)), "cannot tell"),
        (claims.smaller_k_costs_more("a", "b"), of_tested("loss", (0.9, 0.8), (0.8, 0.7)), "holds"),
        (claims.smaller_k_costs_more("a", "b"), of_tested("loss", (0.7, 0.8), (0.7, 0.8)), "does not hold"),
    ],
)
def test_a_difference_is_judged_over_seeds(claim, values, expected):
    assert verdict(claim, *pairs("a", "b", *values)).verdict == expected
    assert verdict(claim, *pairs("a", "b", *values)[:1]).verdict == "cannot tell"
    assert verdict(claim, {"a": [], "b": []}).value is None


def test_pairs_are_what_is_averaged():
    found = verdict(claims.larger_sparser("b", "a"), *pairs("a", "b", *of_density((0.1, 0.2), (0.3, 0.4))))
    assert found.values == [pytest.approx(0.5), pytest.approx(0.75)]


def test_all_kept_is_dense_only_if_every_number_is_the_same():
    claim, same = claims.topk_all_is_dense("a", "b"), run(HALF, [0.2] * 3)
    assert verdict(claim, {"a": same, "b": same}).verdict == "holds"
    other = run(HALF, [0.2, 0.2, 0.2000001])
    assert verdict(claim, {"a": same, "b": same}, {"a": same, "b": other}).verdict == "does not hold"


def test_a_ratio_to_zero_is_infinite_and_fails():
    found = verdict(claims.larger_sparser("b", "a"), *pairs("a", "b", *of_density((0.1, 0.0), (0.1, 0.2))))
    assert (found.verdict, found.value, found.low) == ("does not hold", None, None)
