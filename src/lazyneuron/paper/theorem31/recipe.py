"""Theorem 3.1 by Monte Carlo, with controls that break its assumptions, and in real networks at step 0."""

from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.theorem31 import THEOREM31
from lazyneuron.paper.theorem31.claims import theorem
from lazyneuron.paper.theorem31.run import Theory
from lazyneuron.paper.trainings import mlp_training, t5, vit

_DRAWS = {"smoke": (12_000, 8), "quick": (150_000, 256), "laptop": (1_000_000, 256), "paper": (1_000_000, 256)}


def theorem31(scale: Scale) -> Recipe:
    """By Monte Carlo, and at step 0 of an MLP, a ViT and a T5 (at most quick's shapes). Costs a minute; laptop five."""
    num_draws, num_initialisations = _DRAWS[scale]
    shapes: Scale = "smoke" if scale == "smoke" else "quick"
    networks = (mlp_training(shapes), vit(shapes), t5(shapes))
    theory = Theory(num_draws=num_draws, num_initialisations=num_initialisations, networks=networks)
    return Recipe(experiment=THEOREM31, runs=(theory,), claims=theorem(theory.name))
