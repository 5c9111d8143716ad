"""Claims that compare two trainings pair them by seed."""

import pytest

from lazyneuron.paper.scaling import recipe
from tests.paper.records import density, run, verdict

HALF = [0.5] * 3


def pairs(one, other, *values):
    """For each seed, the records of two runs."""
    return [{one: a, other: b} for a, b in values]


def of_density(*means):
    return [(run(HALF, [a] * 3), run(HALF, [b] * 3)) for a, b in means]


def of_active(*numbers):
    return [(density(100, [a], what="num_active"), density(100, [b], what="num_active")) for a, b in numbers]


@pytest.mark.parametrize(
    ("claim", "values", "expected"),
    [
        (recipe.larger_sparser("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (recipe.larger_sparser("b", "a"), of_density((0.3, 0.2), (0.3, 0.21)), "does not hold"),
        (recipe.larger_sparser("b", "a"), of_density((0.3, 0.2), (0.2, 0.3)), "cannot tell"),
        (recipe.larger_sparser("b", "a"), of_density((0.1, 0.2), (0.28, 0.3)), "cannot tell"),
        (recipe.deeper_sparser("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (recipe.wider_lower_fraction("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (recipe.wider_higher_count("b", "a"), of_active((40, 20), (41, 20)), "holds"),
        (recipe.wider_higher_count("b", "a"), of_active((10, 20), (10, 21)), "does not hold"),
        (recipe.scale_of_data("b", "a", on=""), of_density((0.2, 0.205), (0.2, 0.2)), "holds"),
        (recipe.scale_of_data("b", "a", on=""), of_density((0.2, 0.25), (0.2, 0.15)), "cannot tell"),
        (recipe.scale_of_data("b", "a", on=""), of_density((0.2, 0.1), (0.2, 0.1)), "does not hold"),
    ],
)
def test_a_difference_is_judged_over_seeds(claim, values, expected):
    assert verdict(claim, *pairs("a", "b", *values)).verdict == expected
    assert verdict(claim, *pairs("a", "b", *values)[:1]).verdict == "cannot tell"
    assert verdict(claim, {"a": [], "b": []}).value is None


def test_pairs_are_what_is_averaged():
    found = verdict(recipe.larger_sparser("b", "a"), *pairs("a", "b", *of_density((0.1, 0.2), (0.3, 0.4))))
    assert found.values == [pytest.approx(0.5), pytest.approx(0.75)]


def test_a_ratio_to_zero_is_infinite_and_fails():
    found = verdict(recipe.larger_sparser("b", "a"), *pairs("a", "b", *of_density((0.1, 0.0), (0.1, 0.2))))
    assert (found.verdict, found.value, found.low) == ("does not hold", None, None)
