"""A layer that collapsed is not sparse: dead or blind on held-out data, it counts with its density at the start."""

import pytest

from lazyneuron.paper import density_claims as claims
from lazyneuron.paper.emergence import recipe
from lazyneuron.paper.scaling.recipe import larger_sparser
from lazyneuron.paper.trainings import varied
from lazyneuron.records.record import Record
from tests.paper.records import density, run, verdict

START, END = [0.5, 0.48, 0.5, 0.5], [0.1, 0.02, 0.1, 0.1]


def about(what, value, layer=1, split="test", step=100, **more):
    place = {"recipe": "vit", "seed": 0, "layer": layer, "site": str(layer), "split": split, "step": step}
    return Record(what=what, value=value, unit="fraction", **place | more)


@pytest.mark.parametrize(
    ("records", "is_collapsed"),
    [
        ([], False),
        ([about("never_fired", 0.1)], False),
        ([about("never_fired", 0.101)], True),
        ([about("input_share", 0.05)], False),
        ([about("input_share", 0.049)], True),
        ([about("never_fired", 0.5, split="train")], False),
        ([about("never_fired", 0.5, split="eval")], True),
        ([about("never_fired", 0.5, split="eval"), about("never_fired", 0.0)], False),
        ([about("never_fired", 0.5, split="eval", step=50), about("never_fired", 0.0, split="eval")], False),
        ([about("never_fired", 0.0, split="eval"), about("never_fired", 0.5, split="eval", step=50)], False),
        ([about("never_fired", 0.5, split="eval", step=0)], False),
        ([about("fires_below", 0.9, x=0.01)], False),
    ],
)
def test_a_layer_is_collapsed_by_what_held_out_data_show_at_the_end(records, is_collapsed):
    start, end, step = claims.start_and_end(run(START, END) + records)
    assert (start[("", 1)], end[("", 1)], step) == (0.48, 0.48 if is_collapsed else 0.02, 100)
    assert {layer: value for layer, value in end.items() if layer != ("", 1)} == {("", n): 0.1 for n in (0, 2, 3)}
    assert bool(claims.collapse(run(START, END) + records)) == is_collapsed


def test_the_reason_names_the_layer_and_why():
    dead = about("never_fired", 0.41, layer=2, stack="encoder")
    assert claims.collapse([dead]) == "encoder layer 2 collapsed: 41 % of its neurons never fire"
    blind = about("input_share", 0.02, layer=0)
    assert claims.collapse([blind]) == "layer 0 collapsed: only 2 % of its activity is due to the example"
    assert claims.with_collapse("a mean", [blind]) == f"a mean; {claims.collapse([blind])}"
    assert claims.with_collapse("a mean", []) == "a mean"


def test_every_claim_on_sparsity_sees_the_collapse_and_says_so():
    records = [*run(START, END), about("never_fired", 0.6)]
    for claim in (claims.few_active, recipe.every_layer_sparser, recipe.every_stack_sparse, recipe.ends_denser):
        found = verdict(claim("vit"), {"vit": records})
        assert "layer 1 collapsed: 60 % of its neurons never fire" in found.reason
    assert verdict(recipe.every_layer_sparser("vit"), {"vit": records}).value == 1
    assert claims.mean_density(records) == pytest.approx((0.3 + 0.48) / 4)
    assert claims.middle_density(records) == pytest.approx((0.48 + 0.1) / 2)
    pair = {"vit": run(START, END), "vit-mini": records}
    assert "vit-mini: layer 1 collapsed" in verdict(larger_sparser("vit", "vit-mini"), pair).reason


def test_seen_and_unseen_data_are_compared_as_they_were_measured():
    records = [*run(START, END, END), about("never_fired", 0.6)]
    claim = recipe.train_like_eval("vit", recipe.gap("vit", "accuracy", 0.02))
    assert verdict(claim, {"vit": records}).value == 0


def test_the_last_step_is_the_last_with_held_out_densities():
    assert claims.last_step(run(START, END) + density(200, END, "train")) == 100
    assert claims.last_step(density(0, START)) == claims.last_step([]) == 0


def test_the_last_grade_is_the_papers_number_for_the_kind_of_model():
    bounds = {run: [(g.name, g.at_most) for g in claims.grades(run)] for run in ("t5", "t5-long", "vit-x", "mixer")}
    assert bounds["t5"] == bounds["t5-long"]
    assert bounds["t5"][1:] == [("halves", 0.5), ("at most 10 %", 0.1), ("at most the paper's", pytest.approx(0.027))]
    assert bounds["vit-x"][-1] == ("at most the paper's", pytest.approx(0.063))
    assert bounds["mixer"] == bounds["t5"][:-1]


def test_a_training_is_graded_by_its_mean_density_and_each_layer_by_the_densest():
    records = run([0.5] * 4, [0.05, 0.06, 0.07, 0.06])
    found = verdict(claims.few_active("vit"), {"vit": records})
    assert (found.grade, found.density, found.verdict) == ("at most the paper's", pytest.approx(0.06), "holds")
    assert found.reported == "density 0.063 (ViT-B16)"
    assert verdict(claims.few_active("t5"), {"t5": records}).grade == "at most 10 %"
    assert verdict(recipe.every_layer_sparser("vit"), {"vit": records}).grade == "at most 10 %"
    layers = run([0.5] * 4, [0.05, 0.06, 0.11, 0.06])
    assert verdict(recipe.every_layer_sparser("vit"), {"vit": layers}).grade == "halves"
    assert verdict(recipe.every_layer_sparser("t5"), {"t5": layers}).grade == "at most the paper's"
    assert verdict(recipe.every_stack_sparse("t5"), {"t5": layers}).grade == "at most 10 %"


def test_claims_of_several_trainings_stand_under_one_line(small_vit):
    made = claims.sparsity_emerges_in([small_vit, varied(small_vit, "other")], "n", "t", "w", line="Always.")
    assert [(claim.runs[0], claim.line) for claim in made] == [("vit", "Always."), ("vit-other", "Always.")]
