"""Theorem 3.1: at initialisation the expected gradient pushes every active pre-activation down."""

from lazyneuron.paper.claims.theorem import theorem
from lazyneuron.paper.recipe import Recipe, Scale
from lazyneuron.paper.recipes.base import mlp_training, t5, vit
from lazyneuron.paper.runs import Theory

_DRAWS = {"smoke": (12_000, 8), "quick": (150_000, 256), "laptop": (1_000_000, 256), "paper": (1_000_000, 256)}


def theorem31(scale: Scale) -> Recipe:
    """Theorem 3.1 by Monte Carlo, and at step 0 of a 2-layer MLP, a ViT and a T5 (at most quick's shapes).

    Costs a minute at quick, five at laptop.
    """
    num_draws, num_initialisations = _DRAWS[scale]
    shapes: Scale = "smoke" if scale == "smoke" else "quick"
    theory = Theory(
        num_draws=num_draws,
        num_initialisations=num_initialisations,
        networks=(mlp_training(shapes), vit(shapes), t5(shapes)),
    )
    return Recipe(
        name="theorem31",
        title="The first gradient step makes active neurons less active",
        figure="Theorem 3.1",
        expected="positive for every active neuron",
        runs=(theory,),
        claims=theorem("theorem31"),
    )
