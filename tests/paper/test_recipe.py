"""Recipes at every scale are valid, and their mistakes are named."""

import pytest

from lazyneuron.errors import UsageError
from lazyneuron.paper.recipe import SCALES
from lazyneuron.paper.recipes import RECIPES, find_recipes
from lazyneuron.paper.runs import needs


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_has_runs_claims_and_what_the_paper_reports(name, scale):
    recipe = RECIPES[name](scale)
    assert recipe.name == name
    assert recipe.runs
    assert recipe.claims
    names = {run.name for run in recipe.runs} | {run.name for own in recipe.runs for run in needs(own)}
    assert {run for claim in recipe.claims for run in claim.runs} <= names
    assert len({(claim.name, claim.on or claim.runs) for claim in recipe.claims}) == len(recipe.claims)
    assert recipe.expected
    assert "eported" in RECIPES[name].__doc__ or recipe.figure.startswith("Beyond") or name == "theorem31"
    assert "osts" in RECIPES[name].__doc__
    written = recipe.to_dict()
    assert len(written["settings"]) in (0, len(written["runs"]))


@pytest.mark.parametrize("scale", SCALES)
def test_runs_of_one_name_are_one_run(scale):
    runs = {}
    for recipe in find_recipes(RECIPES, scale):
        for run in recipe.runs:
            assert runs.setdefault(run.name, run) == run


def test_no_name_means_the_short_ones_and_a_name_twice_means_once():
    assert [r.name for r in find_recipes([], "smoke")] == ["fig2b", "theorem31"]
    assert [r.name for r in find_recipes(RECIPES, "smoke")] == list(RECIPES)
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
