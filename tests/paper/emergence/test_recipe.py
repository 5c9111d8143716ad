"""Claims on one training's densities can hold, fail, and say that they cannot tell."""

import pytest

from lazyneuron.paper import density_claims as claims
from lazyneuron.paper.emergence import recipe
from tests.paper.records import density, run, verdict

HALF = [0.5, 0.49, 0.51, 0.5]


def emerges(name, **options):
    return claims.sparsity_emerges(name, "emerges", "Sparsity emerges.", "Fig. 5", **options)


@pytest.mark.parametrize(
    ("claim", "records", "expected", "value"),
    [
        (claims.half_active_at_start, density(0, HALF), "holds", 0.01),
        (claims.half_active_at_start, density(0, [0.5, 0.3]), "does not hold", 0.2),
        (recipe.every_layer_sparser, run(HALF, [0.2, 0.1, 0.1, 0.25]), "holds", 0.5),
        (recipe.every_layer_sparser, run(HALF, [0.45, 0.1, 0.1, 0.1]), "does not hold", 0.9),
        (claims.few_active, run(HALF, [0.3, 0.2, 0.2, 0.3]), "holds", 0.5),
        (claims.few_active, run(HALF, [0.26] * 4), "does not hold", 0.52),
        (recipe.every_stack_sparse, run(HALF, [0.45, 0.1, 0.1, 0.1]), "holds", 0.375),
        (recipe.every_stack_sparse, run(HALF, [0.45] * 4), "does not hold", 0.9),
        (emerges, run(HALF, [0.45, 0.1, 0.1, 0.1]), "holds", 0.375),
        (emerges, run(HALF, [0.45] * 4), "does not hold", 0.9),
        (recipe.train_like_eval, run(HALF, [0.1] * 4, [0.1, 0.1, 0.1, 0.105]), "holds", 0.05),
        (recipe.train_like_eval, run(HALF, [0.1] * 4, [0.1, 0.1, 0.1, 0.2]), "does not hold", 1.0),
        (recipe.ends_denser, run(HALF, [0.2, 0.1, 0.1, 0.15]), "holds", 1.5),
        (recipe.ends_denser, run(HALF, [0.2, 0.1, 0.1, 0.05]), "does not hold", 0.5),
        (recipe.ends_denser, run([0.5, 0.5], [0.2, 0.1]), "cannot tell", None),
    ],
)
def test_a_claim_is_judged_by_the_records(claim, records, expected, value):
    found = verdict(claim("vit"), {"vit": records})
    assert (found.verdict, found.on) == (expected, "vit")
    assert found.value == (None if value is None else pytest.approx(value))
    assert found.reason


ALL = [
    claims.half_active_at_start,
    recipe.every_layer_sparser,
    claims.few_active,
    recipe.every_stack_sparse,
    recipe.train_like_eval,
    recipe.ends_denser,
    emerges,
]


@pytest.mark.parametrize("claim", ALL)
def test_without_records_a_claim_cannot_tell(claim):
    found = verdict(claim("vit"), {"vit": []})
    assert (found.verdict, found.value) == ("cannot tell", None)


@pytest.mark.parametrize("claim", ALL[1:])
def test_a_run_that_stopped_at_step_0_cannot_tell(claim):
    assert verdict(claim("vit"), {"vit": density(0, HALF)}).verdict == "cannot tell"


def test_the_worst_stack_decides():
    records = []
    for step, encoder, decoder in ((0, 0.5, 0.5), (100, 0.05, 0.4)):
        records += density(step, [encoder] * 3, stack="encoder") + density(step, [decoder] * 3, stack="decoder")
    found = verdict(recipe.every_stack_sparse("t5"), {"t5": records})
    assert (found.verdict, found.value) == ("does not hold", pytest.approx(0.8))
    assert "decoder 0.80" in found.reason


def test_sites_can_be_chosen_by_name():
    records = density(0, [0.5, 0.5]) + density(100, [0.45, 0.1])
    assert verdict(emerges("mixer", sites="1"), {"mixer": records}).value == pytest.approx(0.2)
    assert claims.middle_density(run(HALF, [0.9, 0.1, 0.3, 0.9])) == pytest.approx(0.2)


def test_starts_on_both_sides_of_half_do_not_average_out():
    seeds = [{"vit": density(0, [value])} for value in (0.4, 0.6, 0.4, 0.6)]
    assert verdict(claims.half_active_at_start("vit"), *seeds).verdict == "does not hold"
