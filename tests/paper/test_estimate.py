"""Costs grow with what is done, and are said in words that fit their size."""

from dataclasses import replace

import pytest

from lazyneuron.paper.estimate import costs, in_words
from lazyneuron.paper.registry import EXPERIMENTS, find_recipes
from lazyneuron.paper.trainings import t5, vit


@pytest.mark.parametrize("base", [t5("quick"), vit("laptop")])
def test_twice_the_steps_cost_twice(base):
    one, two = replace(base, name="one"), replace(base, name="two", num_steps=2 * base.num_steps)
    found = costs([one, two])
    assert 1.7 < found["two"] / found["one"] < 2.1


def test_wider_costs_more():
    base = t5("laptop")
    wide = replace(base, name="wide", task=replace(base.task, d_ff=2048))
    found = costs([base, wide])
    assert 1.5 < found["wide"] / found["t5"] < 4


TWICE = {
    "t5": "num_steps",
    "theorem31": "num_draws",
    "firing": "num_tokens",
    "robustness": "num_images",
    "skipping": "num_batches",
    "latency": "num_rounds",
    "statistical": "num_rows",
}


@pytest.mark.parametrize(("name", "field"), TWICE.items())
def test_every_kind_of_run_costs_about_twice_for_twice_the_work(name, field):
    run = next(run for recipe in find_recipes(EXPERIMENTS, "laptop") for run in recipe.runs if run.name == name)
    doubled = replace(run, **{field: 2 * getattr(run, field)})
    assert 1.2 < doubled.seconds() / run.seconds() < 2.1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (4, "about 10 s"),
        (42, "about 40 s"),
        (600, "about 10 min"),
        (4 * 3600, "about 4.0 h"),
        (1e6, "about 12 days: this scale wants GPUs"),
    ],
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words
