"""Recipes at every scale are valid, and their mistakes are named."""

from dataclasses import replace
from itertools import pairwise

import pytest

from lazyneuron.record import UsageError
from lazyneuron.reproduce.claims import CLAIMS
from lazyneuron.reproduce.recipe import SCALES, T5Task, Training, probe_steps, run_config
from lazyneuron.reproduce.recipes import RECIPES, find_recipes


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_has_runs_claims_and_what_the_paper_reports(name, scale):
    recipe = RECIPES[name](scale)
    assert recipe.name == name
    assert recipe.runs
    assert recipe.claims
    assert set(recipe.claims) <= CLAIMS.keys()
    assert recipe.expected
    assert RECIPES[name].__doc__


@pytest.mark.parametrize("scale", SCALES)
def test_runs_of_one_name_are_one_run(scale):
    runs = {}
    for recipe in find_recipes(RECIPES, scale):
        for run in recipe.runs:
            assert runs.setdefault(run.name, run) == run


def test_no_name_means_the_short_ones_and_a_name_twice_means_once():
    assert [r.name for r in find_recipes([], "smoke")] == ["fig1", "fig2ab", "theorem31"]
    assert [r.name for r in find_recipes(RECIPES, "smoke")] == list(RECIPES)
    assert [r.name for r in find_recipes(["fig1", "fig1"], "smoke")] == ["fig1"]


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UsageError, match="no recipe 'fig9': choose from fig1, fig2ab, topk-accuracy, theorem31"):
        find_recipes(["fig9"], "smoke")


def test_wrong_numbers_are_named():
    run = RECIPES["fig1"]("smoke").runs[0]
    assert isinstance(run, Training)
    with pytest.raises(UsageError, match="t5: num_steps must be 1 or more; got 0"):
        replace(run, num_steps=0)
    with pytest.raises(UsageError, match="learning_rate must be above 0; got nan"):
        replace(run, learning_rate=float("nan"))
    with pytest.raises(UsageError, match="no T5 size 'huge'"):
        T5Task(size="huge")
    with pytest.raises(UsageError, match="input_length must be 8 tokens or more; got 2"):
        T5Task(size="tiny", input_length=2)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 4000, 100_000])
def test_probe_steps_begin_at_0_end_at_the_last_and_are_log_spaced(num_steps):
    steps = probe_steps(num_steps, 24)
    assert steps[0] == 0
    assert steps[-1] == num_steps
    assert steps == sorted(set(steps))
    assert len(steps) <= 25
    late = [b / a for a, b in pairwise(steps) if a > num_steps / 10]
    assert num_steps < 100 or max(late) / min(late) < 1.2


def test_the_config_of_a_run_tells_seed_task_and_data():
    run = RECIPES["fig1"]("smoke").runs[0]
    config = run_config(run, 3, "abc")
    assert (config["kind"], config["seed"], config["fingerprint"]) == ("training", 3, "abc")
    assert config["task"]["size"] == "tiny"
