"""Whether a task needs its MLPs: by the interval over paired seeds, by a stated difference for one."""

import pytest

from lazyneuron.paper.comparison_claims import if_mlps_are_used
from lazyneuron.paper.density_claims import few_active
from lazyneuron.paper.mlps_used import final_quality, why_unused
from lazyneuron.paper.trainings import t5, vit
from tests.paper.records import at_the_end, density, run, verdict


def seeds(*pairs, what="accuracy", control="vit-nomlp"):
    return [{"vit": [at_the_end(what, a)], control: [at_the_end(what, b)]} for a, b in pairs]


@pytest.mark.parametrize(
    ("pairs", "what", "is_used"),
    [
        ([(0.91, 0.90)], "accuracy", True),
        ([(0.909, 0.90)], "accuracy", False),
        ([(0.90, 0.95)], "accuracy", False),
        ([(3.85, 3.90)], "loss", True),
        ([(3.86, 3.90)], "loss", False),
        ([(3.95, 3.85)], "loss", False),
        ([(0.905, 0.90), (0.906, 0.90), (0.907, 0.90)], "accuracy", True),
        ([(0.95, 0.90), (0.99, 0.90), (0.90, 0.90)], "accuracy", False),
        ([(0.90, 0.90), (0.90, 0.90)], "accuracy", False),
        ([(3.80, 3.90), (3.81, 3.90), (3.82, 3.90)], "loss", True),
        ([(3.90, 3.80), (3.90, 3.81), (3.90, 3.82)], "loss", False),
    ],
)
def test_the_difference_has_to_be_clear_and_in_the_right_direction(pairs, what, is_used):
    assert (why_unused("vit", "vit-nomlp", what, seeds(*pairs, what=what)) == "") == is_used


def test_the_reason_has_both_means_and_names_the_control_in_words():
    why = why_unused("vit", "vit-nomlp", "accuracy", seeds((0.88, 0.88), (0.888, 0.884)))
    assert why == "the MLPs are not used: dense 0.884, without MLPs 0.882"
    other = seeds((0.884, 0.882), control="vit-quarter")
    assert why_unused("vit", "vit-quarter", "accuracy", other).endswith("with MLPs a quarter as wide 0.882")


def test_only_seeds_that_both_have_are_compared():
    both = seeds((0.91, 0.9))
    lacking = [{"vit": [at_the_end("accuracy", 0.1)]}, {"vit-nomlp": [at_the_end("accuracy", 0.99)]}]
    assert why_unused("vit", "vit-nomlp", "accuracy", both + lacking) == ""
    assert why_unused("vit", "vit-nomlp", "accuracy", lacking).endswith("the control vit-nomlp has no records")


def test_claims_on_quality_are_judged_where_the_dense_model_beats_the_same_without_mlps():
    (claim,) = if_mlps_are_used(vit("laptop"), few_active("vit"))
    assert (claim.control, claim.control_by) == (("vit", "vit-nomlp"), "accuracy")
    records = {"vit": [*run([0.5], [0.1]), at_the_end("accuracy", 0.9)], "vit-nomlp": [at_the_end("accuracy", 0.8)]}
    assert verdict(claim, records).verdict == "holds"
    assert verdict(claim, records | {"vit-nomlp": [at_the_end("accuracy", 0.895)]}).verdict == "cannot tell"
    assert if_mlps_are_used(t5("laptop"), few_active("t5"))[0].control_by == "loss"


def test_quality_is_that_of_all_held_out_data_in_order():
    records = [*density(100, [0.1]), at_the_end("loss", 2.0), at_the_end("accuracy", 0.7)]
    assert (final_quality(records, "accuracy"), final_quality(records, "ece")) == (0.7, None)
