"""Theorem 3.1: at initialisation the expected gradient pushes every active pre-activation down."""

from dataclasses import replace

from lazyneuron.reproduce.claims import THEORY_CLAIMS
from lazyneuron.reproduce.recipe import MLPTask, Recipe, Scale, Theory, Training
from lazyneuron.reproduce.recipes.fig1 import t5
from lazyneuron.reproduce.recipes.fig2ab import DIGITS, vit

_DRAWS = {"smoke": (12_000, 8), "quick": (150_000, 256), "laptop": (1_000_000, 256), "paper": (1_000_000, 256)}


def mlp(scale: Scale) -> Training:
    """A 2-layer ReLU MLP on the digits: the network of which the theorem speaks."""
    return replace(vit(scale), name="mlp", task=MLPTask(d_ff=512, augmentation=DIGITS))


def theorem31(scale: Scale) -> Recipe:
    """Theorem 3.1 by Monte Carlo, and at step 0 of a 2-layer MLP, a ViT and a T5 (at most quick's shapes)."""
    num_draws, num_initialisations = _DRAWS[scale]
    shapes: Scale = "smoke" if scale == "smoke" else "quick"
    theory = Theory(
        num_draws=num_draws,
        num_initialisations=num_initialisations,
        networks=(mlp(shapes), vit(shapes), t5(shapes)),
    )
    return Recipe(
        name="theorem31",
        title="The first gradient step makes active neurons less active",
        figure="Theorem 3.1",
        expected="positive for every active neuron",
        runs=(theory,),
        claims=THEORY_CLAIMS,
    )
