"""All recipes by name, in the order of the paper."""

from collections.abc import Callable

from lazyneuron.record import UsageError
from lazyneuron.reproduce.recipe import Recipe, Scale
from lazyneuron.reproduce.recipes.fig1 import fig1
from lazyneuron.reproduce.recipes.fig2ab import fig2ab
from lazyneuron.reproduce.recipes.theorem31 import theorem31

RECIPES: dict[str, Callable[[Scale], Recipe]] = {"fig1": fig1, "fig2ab": fig2ab, "theorem31": theorem31}


def find_recipes(names: list[str], scale: Scale) -> list[Recipe]:
    """The recipes of these names at a scale, or all of them if no name is given."""
    for name in names:
        if name not in RECIPES:
            raise UsageError(f"no recipe {name!r}: choose from {', '.join(RECIPES)}")
    return [RECIPES[name](scale) for name in dict.fromkeys(names or RECIPES)]
