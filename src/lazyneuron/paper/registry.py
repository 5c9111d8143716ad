"""All experiments in the order of the paper: the command line, the estimate and the page are derived from them."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from lazyneuron.errors import UsageError
from lazyneuron.paper import (
    ablations,
    controls,
    emergence,
    firing,
    latency,
    long_run,
    scaling,
    statistical,
    table1,
    theorem31,
    topk,
)

if TYPE_CHECKING:
    from lazyneuron.paper.options import Scale
    from lazyneuron.paper.recipe import Recipe

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        emergence.FIG1,
        emergence.FIG2A,
        emergence.FIG2B,
        scaling.FIG2C,
        scaling.FIG2DEF,
        firing.FIG3,
        theorem31.THEOREM31,
        scaling.FIG4A,
        scaling.FIG4BC,
        ablations.FIG5A,
        ablations.FIG5B,
        ablations.FIG5C,
        controls.CONTROLS,
        topk.TOPK_ACCURACY,
        latency.LATENCY,
        table1.TABLE1,
        ablations.MIXER,
        ablations.MLP,
        ablations.RESNET,
        ablations.OPTIMIZERS,
        ablations.ACTIVATION,
        long_run.LONG_RUN,
        statistical.STATISTICAL_TOPK,
        table1.CORRUPTIONS,
    )
}
KINDS = {kind for experiment in EXPERIMENTS.values() for kind in experiment.kinds} | {"training"}
"""The kinds of run that a result folder of `lazyneuron reproduce` may hold."""
SHORT = ("fig1", "fig2a", "fig2b", "theorem31", "controls")
"""What runs if no experiment is named: a T5 and a ViT, both without MLPs too, and the theorem."""


def find_recipes(names: Iterable[str], scale: "Scale") -> "list[Recipe]":
    """The recipes of the experiments of these names at a scale, or those of `SHORT` if no name is given."""
    names = list(names)
    for name in names:
        if name not in EXPERIMENTS:
            near = get_close_matches(name.lower(), EXPERIMENTS, n=1, cutoff=0.8)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"no recipe {name!r}{hint}: choose from {', '.join(EXPERIMENTS)}")
    return [EXPERIMENTS[name].recipe(scale) for name in dict.fromkeys(names or SHORT)]


def table() -> str:
    """One line for each experiment: its name, what it shows, and where the paper has it."""
    width = max(map(len, EXPERIMENTS))
    return "\n".join(f"  {e.name:{width}}  {e.title} ({e.figure})" for e in EXPERIMENTS.values())
