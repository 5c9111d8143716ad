"""All recipes by name, in the order of the paper."""

from collections.abc import Callable, Iterable

from lazyneuron.record import UsageError
from lazyneuron.reproduce.recipe import Recipe, Scale
from lazyneuron.reproduce.recipes.fig1 import fig1
from lazyneuron.reproduce.recipes.fig2ab import fig2ab
from lazyneuron.reproduce.recipes.theorem31 import theorem31
from lazyneuron.reproduce.recipes.topk_accuracy import topk_accuracy

RECIPES: dict[str, Callable[[Scale], Recipe]] = {
    "fig1": fig1,
    "fig2ab": fig2ab,
    "topk-accuracy": topk_accuracy,
    "theorem31": theorem31,
}
SHORT = ("fig1", "fig2ab", "theorem31")
"""What runs if no recipe is named: together about ten minutes at scale quick."""


def find_recipes(names: Iterable[str], scale: Scale) -> list[Recipe]:
    """The recipes of these names at a scale, or those of `SHORT` if no name is given."""
    names = list(names)
    for name in names:
        if name not in RECIPES:
            raise UsageError(f"no recipe {name!r}: choose from {', '.join(RECIPES)}")
    return [RECIPES[name](scale) for name in dict.fromkeys(names or SHORT)]
