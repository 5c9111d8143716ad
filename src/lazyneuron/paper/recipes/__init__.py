"""All recipes by name, in the order of the paper."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from lazyneuron.errors import UsageError
from lazyneuron.paper.recipe import Recipe, Scale
from lazyneuron.paper.recipes import emergence, settings, topk
from lazyneuron.paper.recipes.theorem31 import theorem31

RECIPES: dict[str, Callable[[Scale], Recipe]] = {
    "fig1": emergence.fig1,
    "fig2a": emergence.fig2a,
    "fig2b": emergence.fig2b,
    "fig2c": emergence.fig2c,
    "fig2d-f": emergence.fig2def,
    "fig3": emergence.fig3,
    "theorem31": theorem31,
    "fig4a": emergence.fig4a,
    "fig4bc": emergence.fig4bc,
    "fig5a": settings.fig5a,
    "fig5b": settings.fig5b,
    "fig5c": settings.fig5c,
    "topk-accuracy": topk.topk_accuracy,
    "latency": topk.latency,
    "table1": topk.table1,
    "mixer": settings.mixer,
    "mlp": settings.mlp,
    "optimizers": settings.optimizers,
    "activation": settings.activation,
    "statistical-topk": topk.statistical_topk,
    "corruptions": topk.corruptions,
}
SHORT = ("fig2b", "theorem31")
"""What runs if no recipe is named: one T5, one ViT and the theorem, together about ten minutes at scale quick."""


def find_recipes(names: Iterable[str], scale: Scale) -> list[Recipe]:
    """The recipes of these names at a scale, or those of `SHORT` if no name is given."""
    names = list(names)
    for name in names:
        if name not in RECIPES:
            near = get_close_matches(name.lower(), RECIPES, n=1, cutoff=0.8)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"no recipe {name!r}{hint}: choose from {', '.join(RECIPES)}")
    return [RECIPES[name](scale) for name in dict.fromkeys(names or SHORT)]
