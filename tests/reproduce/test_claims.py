"""Each claim can hold, fail, and say that it cannot tell."""

import pytest

from lazyneuron.record import Record
from lazyneuron.reproduce.claims import CLAIMS, THEORY_CLAIMS, TRAINING_CLAIMS
from lazyneuron.reproduce.theory import bonferroni_z
from lazyneuron.reproduce.topk_claims import TOPK_CLAIMS


def density(step, values, split="eval", stack=""):
    return [
        Record(
            what="density",
            value=value,
            unit="fraction",
            recipe="vit",
            seed=0,
            step=step,
            split=split,
            stack=stack,
            layer=layer,
        )
        for layer, value in enumerate(values)
    ]


def run(start, end, end_train=None):
    return density(0, start) + density(100, end) + density(100, end_train or end, "train")


def case(what, value, name, error=None):
    return Record(what=what, value=value, unit="", recipe="theorem31", seed=0, case=name, error=error)


HALF = [0.5, 0.49, 0.51, 0.5]


@pytest.mark.parametrize(
    ("claim", "records", "verdict", "value"),
    [
        ("half-active-at-start", density(0, HALF), "holds", 0.49),
        ("half-active-at-start", density(0, [0.5, 0.3]), "does not hold", 0.3),
        ("every-layer-sparser", run(HALF, [0.2, 0.1, 0.1, 0.25]), "holds", 0.5),
        ("every-layer-sparser", run(HALF, [0.45, 0.1, 0.1, 0.1]), "does not hold", 0.9),
        ("few-percent-active", run(HALF, [0.12, 0.08, 0.08, 0.1]), "holds", 0.095),
        ("few-percent-active", run(HALF, [0.2] * 4), "does not hold", 0.2),
        ("every-stack-sparse", run(HALF, [0.45, 0.1, 0.1, 0.1]), "holds", 0.375),
        ("every-stack-sparse", run(HALF, [0.45] * 4), "does not hold", 0.9),
        ("train-like-eval", run(HALF, [0.1] * 4, [0.1, 0.1, 0.1, 0.105]), "holds", 0.05),
        ("train-like-eval", run(HALF, [0.1] * 4, [0.1, 0.1, 0.1, 0.2]), "does not hold", 1.0),
        ("ends-denser-than-middle", run(HALF, [0.2, 0.1, 0.1, 0.15]), "holds", 1.5),
        ("ends-denser-than-middle", run(HALF, [0.2, 0.1, 0.1, 0.05]), "does not hold", 0.5),
        ("ends-denser-than-middle", run([0.5, 0.5], [0.2, 0.1]), "cannot tell", None),
    ],
)
def test_a_training_claim_is_judged_by_the_records(claim, records, verdict, value):
    found = CLAIMS[claim].verdict("vit", 7, records)
    assert (found.verdict, found.recipe, found.seed) == (verdict, "vit", 7)
    assert found.value == (None if value is None else pytest.approx(value))
    assert found.reason


def test_the_worst_stack_decides():
    records = []
    for step, encoder, decoder in ((0, 0.5, 0.5), (100, 0.05, 0.4)):
        records += density(step, [encoder] * 3, stack="encoder") + density(step, [decoder] * 3, stack="decoder")
    found = CLAIMS["every-stack-sparse"].verdict("t5", 0, records)
    assert (found.verdict, found.value) == ("does not hold", pytest.approx(0.8))
    assert "decoder 0.80" in found.reason


@pytest.mark.parametrize("claim", CLAIMS)
def test_without_records_a_claim_cannot_tell(claim):
    found = CLAIMS[claim].verdict("vit", 0, [])
    assert (found.verdict, found.value) == ("cannot tell", None)


@pytest.mark.parametrize("claim", [name for name in TRAINING_CLAIMS if name != "half-active-at-start"])
def test_a_run_that_stopped_at_step_0_cannot_tell(claim):
    assert CLAIMS[claim].verdict("vit", 0, density(0, HALF)).verdict == "cannot tell"


@pytest.mark.parametrize(("min_z", "verdict"), [(9.0, "holds"), (2.0, "cannot tell"), (-9.0, "does not hold")])
def test_the_sign_needs_every_neuron_beyond_the_corrected_level(min_z, verdict):
    records = [case("gradient_min_z", 30.0, "a"), case("gradient_min_z", min_z, "b")]
    records += [case("num_active_neurons", 32, name) for name in "ab"]
    found = CLAIMS["theorem-sign"].verdict("theorem31", 0, records)
    assert (found.verdict, found.value) == (verdict, min_z)
    assert f"{bonferroni_z(64):.1f}" in found.reason


@pytest.mark.parametrize(("seen", "verdict"), [(1.02, "holds"), (1.5, "does not hold")])
def test_the_closed_form_may_differ_by_noise_alone(seen, verdict):
    records = [case("gradient", seen, "a", 0.03), case("gradient_closed_form", 1.0, "a", 0.04)]
    found = CLAIMS["theorem-closed-forms"].verdict("theorem31", 0, records)
    assert (found.verdict, found.value) == (verdict, pytest.approx((seen - 1) / 0.05))


@pytest.mark.parametrize(("value", "verdict"), [(-0.5, "holds"), (0.0, "holds"), (0.5, "does not hold")])
def test_controls_must_lose_the_sign(value, verdict):
    records = [case("gradient_control", -1.0, "a", 0.1), case("gradient_control", value, "b", 0.1 if value else 0.0)]
    assert CLAIMS["theorem-controls"].verdict("theorem31", 0, records).verdict == verdict


@pytest.mark.parametrize(
    ("scores", "verdict"), [([5.0, 4.0], "holds"), ([5.0, 0.1], "cannot tell"), ([5.0, -6.0], "does not hold")]
)
def test_step_0_is_judged_apart_for_the_mlp_and_for_transformers(scores, verdict):
    records = [case("gradient_step0", score / 100, "vit", 0.01) for score in scores]
    records.append(case("gradient_step0", 0.1, "mlp", 0.01))
    assert CLAIMS["theorem-step0-transformer"].verdict("theorem31", 0, records).verdict == verdict
    assert CLAIMS["theorem-step0-mlp"].verdict("theorem31", 0, records).verdict == "holds"


def topk(max_active, natural, kept, budget=10):
    place = {"recipe": "vit", "seed": 0, "site": "mlp", "split": "eval", "step": 0, "num_tokens": 7}
    values = {"max_active": max_active, "natural_density": natural, "density": kept, "budget": budget}
    return [Record(what=what, value=value, unit="", **place) for what, value in values.items()]


@pytest.mark.parametrize(
    ("claim", "records", "verdict"),
    [
        ("topk-at-most-k", topk(10, 0.5, 0.1), "holds"),
        ("topk-at-most-k", topk(11, 0.5, 0.1), "does not hold"),
        ("topk-at-most-k", [], "cannot tell"),
        ("topk-sparse-from-start", topk(10, 0.5, 0.1), "holds"),
        ("topk-sparse-from-start", topk(10, 0.1, 0.2), "does not hold"),
        ("topk-sparse-from-start", topk(10, 0.5, 0.5), "cannot tell"),
        ("topk-sparse-from-start", [], "cannot tell"),
    ],
)
def test_top_k_is_judged_by_its_budget_and_its_start(claim, records, verdict):
    assert CLAIMS[claim].verdict("vit", 0, records).verdict == verdict


def test_training_theory_and_topk_claims_are_all_claims():
    groups = [set(TRAINING_CLAIMS), set(THEORY_CLAIMS), {claim.name for claim in TOPK_CLAIMS}]
    assert set().union(*groups) == set(CLAIMS)
    assert sum(map(len, groups)) == len(CLAIMS)
