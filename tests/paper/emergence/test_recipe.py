"""Claims on one training's densities can hold, fail, and say that they cannot tell."""

import pytest

from lazyneuron.paper import density_claims as claims
from lazyneuron.paper.emergence import recipe
from lazyneuron.paper.table1.recipe import table1
from lazyneuron.records.record import Record
from tests.paper.records import density, run, verdict

HALF = [0.5, 0.49, 0.51, 0.5]


def emerges(name, **options):
    return claims.sparsity_emerges(name, "emerges", "Sparsity emerges.", "Fig. 5", **options)


def number(what, value, split="", step=None):
    return Record(what=what, value=value, unit="", recipe="vit", seed=0, split=split, step=step)


def seen(epochs=10, train=0.92, held_out=0.9, loss=0.3, held_out_loss=0.4):
    """What a training recorded of how often it saw its data, and of its generalisation gap, early and at its end."""
    return [
        number("epochs", epochs),
        *(number("accuracy", value, split, 0) for split, value in (("train", 0.9), ("eval", 0.1))),
        *(number("accuracy", value, split, 100) for split, value in (("train", train), ("eval", held_out))),
        *(
            number(what, value, split, 100)
            for what, split, value in (("probe_loss", "train", loss), ("loss", "eval", held_out_loss))
        ),
        *(number("loss", 9.0, "train", step) for step in (25, 100)),
    ]


SEEN = seen(train=0.93)


def train_like_eval(name):
    return recipe.train_like_eval(name, recipe.gap(name, "accuracy", 0.02))


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
        (train_like_eval, [*run(HALF, [0.1] * 4, [0.1, 0.1, 0.1, 0.105]), *SEEN], "holds", 0.05),
        (train_like_eval, [*run(HALF, [0.1] * 4, [0.1, 0.1, 0.1, 0.2]), *SEEN], "does not hold", 1.0),
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
    train_like_eval,
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


@pytest.mark.parametrize(
    ("what", "records", "reason"),
    [
        ("accuracy", seen(epochs=10, train=0.93), ""),
        ("accuracy", seen(epochs=9.6, train=0.93), "the training data were seen 9.6 times only"),
        ("accuracy", seen(train=0.913), "no generalisation gap: 1.3 points"),
        ("accuracy", seen(train=0.87), "no generalisation gap: -3.0 points"),
        ("accuracy", SEEN[1:], "the records do not have how often the training data were seen"),
        ("accuracy", SEEN[:1], "the records do not have accuracy on training and on held-out data"),
        ("loss", seen(held_out_loss=0.41), ""),
        ("loss", seen(held_out_loss=0.35), "no generalisation gap: 0.05 nats"),
        ("loss", seen(held_out_loss=0.2), "no generalisation gap: -0.10 nats"),
    ],
)
def test_splits_are_compared_after_many_epochs_and_with_a_generalisation_gap(what, records, reason):
    claim = recipe.train_like_eval("vit", recipe.gap("vit", what, {"accuracy": 0.02, "loss": 0.1}[what]))
    found = verdict(claim, {"vit": [*run(HALF, [0.1] * 4), *records]})
    assert found.verdict == ("cannot tell" if reason else "holds")
    assert found.value == 0
    assert found.reason.startswith(reason)


def test_few_images_and_a_part_of_the_text_are_seen_at_least_ten_times():
    runs = recipe.fig2b("laptop").runs
    assert [run.name for run in runs] == ["t5-few", "vit-few"]
    assert runs[1] in table1("laptop").runs
    assert [run.name for run in recipe.fig2b("quick").runs] == ["t5", "vit"]


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
