"""ReLU against GELU, judged over seeds."""

import pytest

from lazyneuron.paper.ablations import recipe
from tests.paper.records import at_the_end, verdict


@pytest.mark.parametrize(
    ("claim", "what", "numbers", "expected"),
    [
        (recipe.relu_costs_little("a", "b"), "accuracy", [(0.80, 0.80), (0.79, 0.7901)], "holds"),
        (recipe.relu_costs_little("a", "b"), "accuracy", [(0.80, 0.82), (0.79, 0.81)], "does not hold"),
    ],
)
def test_a_difference_is_judged_over_seeds(claim, what, numbers, expected):
    seeds = [{"a": [at_the_end(what, a)], "b": [at_the_end(what, b)]} for a, b in numbers]
    assert verdict(claim, *seeds).verdict == expected
    assert verdict(claim, seeds[0]).verdict == "cannot tell"
    assert verdict(claim, {"a": [], "b": []}).value is None
