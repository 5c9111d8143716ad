"""Claims on what statistical top-k keeps and on its time."""

import pytest

from lazyneuron.paper.statistical import recipe
from tests.paper.records import at_the_end, case, verdict

REAL_MAPS = recipe.statistical_on_real_maps("s", "t5")


def cases(what, name, *points):
    return [case(what, value, name, x=x) for x, value in points]


JUDGED = [
    (recipe.keeps_about_k("s"), cases("kept_ratio", "gaussian", (0.1, 1.01), (0.2, 0.97)), "holds", 0.03),
    (recipe.keeps_about_k("s"), cases("kept_ratio", "gaussian", (0.1, 1.2)), "does not hold", 0.2),
    (recipe.statistical_is_linear("s"), cases("statistical_ms", "", (1e3, 2e3), (1e4, 2e4)), "holds", 1.0),
    (recipe.statistical_is_linear("s"), cases("statistical_ms", "", (1e3, 1e6), (1e4, 1e8)), "does not hold", 2.0),
    (recipe.statistical_is_linear("s"), cases("statistical_ms", "", (1e3, 2e3)), "cannot tell", None),
    (REAL_MAPS, cases("kept_ratio", "t5", (0.1, 0.8), (0.2, 1.5)), "holds", 1.5),
    (REAL_MAPS, cases("kept_ratio", "t5", (0.1, 0.1), (0.2, 1.9)), "does not hold", 0.1),
    (REAL_MAPS, cases("kept_ratio", "t5", (0.1, 0.1)), "does not hold", 0.1),
]


@pytest.mark.parametrize(("claim", "records", "expected", "value"), JUDGED)
def test_a_claim_is_judged_by_the_records(claim, records, expected, value):
    found = verdict(claim, {"s": records})
    assert (found.verdict, found.value) == (expected, None if value is None else pytest.approx(value))
    assert verdict(claim, {"s": []}).verdict == "cannot tell"


@pytest.mark.parametrize(("exact", "expected"), [(0.8, "holds"), (0.82, "does not hold")])
def test_accuracy_is_compared_with_exact_topk(exact, expected):
    seed = {"a": [at_the_end("accuracy", 0.8)], "b": [at_the_end("accuracy", exact)]}
    found = verdict(recipe.statistical_is_enough("a", "b"), seed, seed)
    assert (found.verdict, found.on) == (expected, "a against b")


def test_accuracy_is_judged_where_the_mlps_are_used():
    made = recipe.statistical_topk("laptop")
    gates = {claim.name: claim.control for claim in made.claims if claim.control}
    assert gates == {"statistical-is-enough": ("vit", "vit-nomlp")}
    assert "vit-nomlp" in {run.name for run in made.runs}
