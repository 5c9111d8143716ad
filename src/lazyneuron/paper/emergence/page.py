"""Figures 1, 2a and 2b: density by layer and step, and on training against evaluation data."""

from collections.abc import Sequence
from dataclasses import replace

from lazyneuron.pages.charts import Figure
from lazyneuron.pages.section import Part, unique_ids
from lazyneuron.pages.training_charts import (
    density_by_layer,
    density_over_training,
    idle_over_training,
    inputs_over_training,
)
from lazyneuron.paper.emergence import DENSEST, MEAN, SPARSEST
from lazyneuron.paper.results import Member, Results, family
from lazyneuron.paper.sweep_charts import density_by_setting, setting_text

FIG1_LEVELS = [
    (DENSEST, f"the paper's densest layer {DENSEST} %"),
    (MEAN, f"mean {MEAN} %"),
    (SPARSEST, f"sparsest {SPARSEST} %"),
]


def add(part: Part, results: Results, name: str) -> None:
    """Add density and idle neurons over the steps; for Figure 2a by layer at the end, 2b of both kinds of data."""
    layers, trained = density_by_setting(results, name), results.trained
    if results.name == "fig2b":
        stems = unique_ids([member.run.name for member in trained])
        charts = [density_by_layer([m.run], f"{name}-splits-{stems[m.run.name]}") for m in trained]
        part.figures += filter(None, charts)
    elif results.name == "fig2a":
        part.figures += layers
        part.more += over_training([member for member in trained if family(member.run) != "T5"], name)
    else:
        part.figures += over_training(trained, name, FIG1_LEVELS if results.name == "fig1" else ())
        part.more += layers


def over_training(members: Sequence[Member], name: str, levels: Sequence[tuple[float, str]] = ()) -> list[Figure]:
    """Density, idle neurons and what inputs share over the steps of each training; `levels` are of the density."""
    stems = unique_ids([member.run.name for member in members])
    found = []
    for member in members:
        run = replace(member.run, name=setting_text(member.setting))
        stem = stems[member.run.name]
        found.append(density_over_training(run, f"{name}-steps-{stem}", levels=levels))
        found.append(idle_over_training(run, f"{name}-idle-{stem}"))
        found.append(inputs_over_training(run, f"{name}-inputs-{stem}"))
    return [figure for figure in found if figure]
