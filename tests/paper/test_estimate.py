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


@pytest.mark.parametrize("scale", ["smoke", "quick", "laptop"])
def test_every_run_has_a_cost(scale):
    runs = {run.name: run for recipe in find_recipes(EXPERIMENTS, scale) for run in recipe.runs}
    found = costs(runs.values())
    assert found.keys() == runs.keys()
    assert all(0 < seconds < 10**5 for seconds in found.values())


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
