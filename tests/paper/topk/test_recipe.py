"""Top-k is judged by its budget and its start."""

import pytest

from lazyneuron.paper.topk import recipe
from lazyneuron.records.record import Record
from tests.paper.records import at_the_end, run, verdict


def topk(max_active, natural, kept, budget=10):
    place = {"recipe": "vit", "seed": 0, "site": "mlp", "split": "eval", "step": 0, "num_tokens": 7}
    values = {"max_active": max_active, "natural_density": natural, "density": kept, "budget": budget}
    return [Record(what=what, value=value, unit="", **place) for what, value in values.items()]


@pytest.mark.parametrize(
    ("claim", "records", "expected"),
    [
        (recipe.at_most_k, topk(10, 0.5, 0.1), "holds"),
        (recipe.at_most_k, topk(11, 0.5, 0.1), "does not hold"),
        (recipe.at_most_k, [], "cannot tell"),
        (recipe.sparse_from_start, topk(10, 0.5, 0.1), "holds"),
        (recipe.sparse_from_start, topk(10, 0.1, 0.2), "does not hold"),
        (recipe.sparse_from_start, [], "cannot tell"),
    ],
)
def test_a_run_is_judged_by_its_records(claim, records, expected):
    assert verdict(claim("vit"), {"vit": records}).verdict == expected


def test_one_seed_over_its_budget_is_enough_to_fail():
    good, bad = {"vit": topk(10, 0.5, 0.1)}, {"vit": topk(11, 0.5, 0.1)}
    assert verdict(recipe.at_most_k("vit"), good, bad, good).verdict == "does not hold"


@pytest.mark.parametrize(
    ("claim", "what", "numbers", "expected"),
    [
        (recipe.topk_enough("a", "b", ""), "accuracy", [(0.80, 0.80), (0.79, 0.7901)], "holds"),
        (recipe.topk_enough("a", "b", ""), "accuracy", [(0.80, 0.801), (0.79, 0.80)], "cannot tell"),
        (recipe.topk_loss("a", "b"), "loss", [(3.84, 3.80), (3.8401, 3.80)], "holds"),
        (recipe.topk_loss("a", "b"), "loss", [(3.90, 3.80), (3.901, 3.80)], "does not hold"),
        (recipe.topk_loss("a", "b"), "loss", [(3.70, 3.80), (3.701, 3.80)], "holds"),
        (recipe.smaller_k_costs_more("a", "b"), "loss", [(0.9, 0.8), (0.8, 0.7)], "holds"),
        (recipe.smaller_k_costs_more("a", "b"), "loss", [(0.7, 0.8), (0.7, 0.8)], "does not hold"),
    ],
)
def test_a_difference_is_judged_over_seeds(claim, what, numbers, expected):
    seeds = [{"a": [at_the_end(what, a)], "b": [at_the_end(what, b)]} for a, b in numbers]
    assert verdict(claim, *seeds).verdict == expected
    assert verdict(claim, seeds[0]).verdict == "cannot tell"
    assert verdict(claim, {"a": [], "b": []}).value is None


def test_all_kept_is_dense_only_if_every_number_is_the_same():
    claim, same = recipe.topk_all_is_dense("a", "b"), run([0.5] * 3, [0.2] * 3)
    assert verdict(claim, {"a": same, "b": same}).verdict == "holds"
    other = run([0.5] * 3, [0.2, 0.2, 0.2000001])
    assert verdict(claim, {"a": same, "b": same}, {"a": same, "b": other}).verdict == "does not hold"


@pytest.mark.parametrize("scale", ["smoke", "quick", "laptop", "paper"])
def test_t5_is_judged_by_accuracy_and_by_loss_at_the_same_k(scale):
    by_name = {}
    for claim in recipe.topk_accuracy(scale).claims:
        by_name.setdefault(claim.name, []).append(claim.on)
    t5, vit = by_name["topk-is-enough"]
    assert by_name["topk-is-enough-by-loss"] == [t5]
    assert t5.endswith("against t5")
    assert vit.endswith("against vit")


def test_quality_is_judged_where_each_family_uses_its_mlps():
    made = recipe.topk_accuracy("laptop")
    gates = {(claim.name, claim.control, claim.control_by) for claim in made.claims if claim.control}
    assert gates == {
        ("topk-is-enough", ("t5", "t5-nomlp"), "loss"),
        ("topk-is-enough-by-loss", ("t5", "t5-nomlp"), "loss"),
        ("smaller-k-costs-more", ("t5", "t5-nomlp"), "loss"),
        ("topk-is-enough", ("vit", "vit-nomlp"), "accuracy"),
        ("smaller-k-costs-more", ("vit", "vit-nomlp"), "accuracy"),
    }
    assert {"t5-nomlp", "vit-nomlp"} <= {run.name for run in made.runs}
