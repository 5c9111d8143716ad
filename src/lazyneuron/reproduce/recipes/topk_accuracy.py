"""Top-k accuracy: how few neurons per token a T5 and a ViT need, when they are trained that way from the start."""

from dataclasses import replace

from lazyneuron.enforce.selection import TopK
from lazyneuron.reproduce.recipe import Recipe, Scale, Training
from lazyneuron.reproduce.recipes.fig1 import t5
from lazyneuron.reproduce.recipes.fig2ab import vit
from lazyneuron.reproduce.topk_claims import TOPK_CLAIMS

DENSITIES = (1.0, 0.5, 0.25, 0.12, 0.08, 0.04, 0.02)


def with_topk(run: Training, density: float) -> Training:
    """The run with the `density` largest entries of each activation map kept, at every step."""
    return replace(run, name=f"{run.name}-top{100 * density:g}pct", selection=TopK(density=density))


def topk_accuracy(scale: Scale) -> Recipe:
    """Top-k accuracy (section 4). Reported: k = 128 (T5) and 256 (ViT) of 3,072 do as well as dense, within 0.3 %.

    Fourteen runs: at quick about seven minutes each.
    """
    runs = [with_topk(run, density) for run in (vit(scale), t5(scale)) for density in DENSITIES]
    return Recipe(
        name="topk-accuracy",
        title="How few neurons per token are enough",
        figure="Section 4, accuracy of Top-k T5 and ViT against k",
        expected="k = 128 (4 % of 3,072) for T5, 256 (8 %) for ViT: within about 0.3 % of the dense model",
        runs=tuple(runs),
        claims=tuple(claim.name for claim in TOPK_CLAIMS),
    )
