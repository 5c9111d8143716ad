"""What the ablations change, and how their claims are judged."""

from dataclasses import replace

import pytest

from lazyneuron.paper.ablations import recipe
from lazyneuron.paper.ablations.rates import OPTIMIZERS
from lazyneuron.paper.recipe import SCALES
from lazyneuron.paper.runs import folder_name
from lazyneuron.paper.trainings import vit
from lazyneuron.records.folder import RunFolder
from tests.paper.records import at_the_end, run, verdict


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


def differs_in(one, other):
    """The fields of a training and of its task that two trainings differ in, apart from their names."""
    parts = [(one, other), (one.task, other.task)]
    names = {name for a, b in parts for name in a.__dataclass_fields__ if getattr(a, name) != getattr(b, name)}
    return names - {"name", "task"}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("make", "field"), [(recipe.fig5a, "random_labels"), (recipe.fig5b, "pixels"), (recipe.fig5c, "pixels")]
)
def test_figure_5_differs_from_the_shared_run_in_the_data_and_once_in_the_decay(scale, make, field):
    made = make(scale)
    runs = [one for one in made.runs if not one.name.endswith("memorised")]
    shared, *others = runs
    assert [differs_in(shared, one) for one in others[:-1]] == [{field}] * (len(others) - 1)
    assert differs_in(shared, others[-1]) == {field, "weight_decay"}
    assert differs_in(others[-2], others[-1]) == {"weight_decay"}
    assert sorted(one.weight_decay > 0 for one in (shared, others[-1])) == [False, True]
    assert not any("long" in one.name for one in made.runs)
    assert made.settings[made.runs.index(others[-1])].endswith(recipe.decay_text(others[-1]))


def test_the_other_decay_is_none_where_there_is_one():
    plain = replace(vit("smoke"), weight_decay=0.0)
    other = recipe.other_decay(plain)
    assert (other.name, other.weight_decay, recipe.decay_text(other)) == ("vit-decay", 0.1, "weight decay 0.1")
    decayed = replace(plain, weight_decay=0.3)
    other = recipe.other_decay(decayed)
    assert (other.name, other.weight_decay, recipe.decay_text(other)) == ("vit-nodecay", 0.0, "no weight decay")


@pytest.mark.parametrize(("end", "expected"), [(0.45, "holds"), (0.5, "does not hold"), (0.55, "does not hold")])
def test_the_resnets_density_has_to_fall_and_no_more(end, expected):
    (claim,) = recipe.resnet("laptop").claims
    found = verdict(claim, *({"resnet": run([0.5] * 3, [end] * 3)} for _ in range(3)))
    assert (found.verdict, found.reported) == (expected, "to some extent")


def test_a_resnet_trains_and_its_density_is_measured_in_each_block(tmp_path, cache):
    (made,) = recipe.resnet("smoke").runs
    made = replace(made, num_steps=6, num_probes=3, probe_batches=1, test_examples=20, batch_size=8)
    made.execute(tmp_path / folder_name(made.name, 0), 0, cache, device="cpu")
    records = RunFolder(tmp_path / "resnet-seed0").records()
    at_end = [r for r in records if r.what == "density" and r.split == "eval" and r.step == 6]
    assert [(r.layer, r.site) for r in at_end] == [(0, "blocks.0"), (1, "blocks.1"), (2, "blocks.2")]
    assert all(0.1 < r.value < 0.9 for r in at_end)
    assert len({r.value for r in at_end}) == 3


@pytest.mark.parametrize("scale", SCALES)
def test_each_optimizer_has_its_chosen_rate_and_one_that_is_shared_is_not_trained_twice(scale):
    made = recipe.optimizers(scale)
    for run_, how in zip(made.runs, OPTIMIZERS.values(), strict=True):
        assert (run_.optimizer, run_.learning_rate, run_.weight_decay) == (how.optimizer, how.rate, how.weight_decay)
        assert differs_in(vit(scale), run_) <= {"optimizer", "learning_rate", "weight_decay"}
        assert (run_.name == "vit") == (not differs_in(vit(scale), run_))
    assert made.settings == tuple(how.title for how in OPTIMIZERS.values())


def test_an_optimizer_like_the_shared_one_is_the_shared_run(monkeypatch):
    how = OPTIMIZERS["adamw"]
    shared = replace(vit("smoke"), learning_rate=how.rate, weight_decay=how.weight_decay)
    monkeypatch.setattr(recipe, "vit", lambda scale: shared)
    assert [one.name for one in recipe.optimizers("smoke").runs] == ["vit-adam", "vit", "vit-sgd", "vit-adafactor"]


def test_relu_is_compared_with_gelu_where_the_mlps_are_used():
    made = recipe.activation("laptop")
    assert [claim.control for claim in made.claims] == [("vit", "vit-nomlp"), ("t5", "t5-nomlp")]
    assert [claim.control_by for claim in made.claims] == ["accuracy", "loss"]
    assert {"vit-nomlp", "t5-nomlp"} <= {run.name for run in made.runs}
