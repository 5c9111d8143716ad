"""The registry: every experiment has a recipe at every scale, its kinds of run and its page, and imports no model."""

import subprocess
import sys

import pytest

from lazyneuron.errors import UsageError
from lazyneuron.paper.recipe import SCALES
from lazyneuron.paper.registry import EXPERIMENTS, KINDS, find_recipes, table
from lazyneuron.paper.runs import run_config


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_claims_are_on_runs_of_their_recipe_and_kinds_are_those_of_the_runs(name, scale):
    recipe = EXPERIMENTS[name].recipe(scale)
    assert (recipe.name, recipe.experiment) == (name, EXPERIMENTS[name])
    assert recipe.runs
    assert recipe.claims
    names = {run.name for run in recipe.runs} | {run.name for own in recipe.runs for run in own.needs}
    assert {run for claim in recipe.claims for run in claim.runs} <= names
    assert len({(claim.name, claim.on or claim.runs) for claim in recipe.claims}) == len(recipe.claims)
    assert {run_config(run, 0)["kind"] for run in recipe.runs} - {"training"} == set(EXPERIMENTS[name].kinds)
    written = recipe.to_dict()
    assert len(written["settings"]) in (0, len(written["runs"]))


def test_the_kinds_of_run_are_those_of_result_folders():
    assert KINDS == {"training", "theory", "firing", "robustness", "statistical", "skipping", "latency"}


def test_the_table_has_a_line_for_each_experiment():
    lines = table().splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert lines[5] == "  fig3              No neuron is dead, and most fire seldom (Figure 3)"


def test_the_page_of_every_experiment_is_drawn_without_a_model():
    code = """
import sys
import lazyneuron.paper.page
from lazyneuron.paper.registry import EXPERIMENTS
assert all(callable(experiment.page.add) for experiment in EXPERIMENTS.values())
print([name for name in ("torch", "transformers", "sklearn") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("scale", SCALES)
def test_runs_of_one_name_are_one_run(scale):
    runs = {}
    for recipe in find_recipes(EXPERIMENTS, scale):
        for run in recipe.runs:
            assert runs.setdefault(run.name, run) == run


def test_no_name_means_the_short_ones_and_a_name_twice_means_once():
    assert [r.name for r in find_recipes([], "smoke")] == ["fig1", "fig2a", "fig2b", "theorem31", "controls"]
    assert [r.name for r in find_recipes(EXPERIMENTS, "smoke")] == list(EXPERIMENTS)
    assert [r.name for r in find_recipes(["fig1", "fig1"], "smoke")] == ["fig1"]


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UsageError, match=r"no recipe 'fig9': choose from fig1, fig2a, .*, corruptions"):
        find_recipes(["fig9"], "smoke")


@pytest.mark.parametrize(("name", "hint"), [("Fig2A", "fig2a"), ("fig2d", "fig2d-f"), ("fig9", None), ("x", None)])
def test_a_name_that_is_nearly_a_recipes_is_answered_with_it(name, hint):
    with pytest.raises(
        UsageError, match=rf"no recipe '{name}'" + (rf" \(did you mean {hint}\?\)" if hint else ": choose")
    ):
        find_recipes([name], "smoke")
