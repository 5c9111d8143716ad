"""Controls: T5 and ViT without MLPs and with MLPs a quarter as wide, against the dense models.

Where attention alone does as well, a claim that sparse MLPs cost no quality is empty: a model may lose all its MLPs.
"""

import math
from collections.abc import Sequence

from lazyneuron.paper.claim import Claim
from lazyneuron.paper.comparison_claims import comparison, difference, tested
from lazyneuron.paper.controls import CONTROLS
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.runs import T5Task, Training
from lazyneuron.paper.trainings import quarter_wide, t5, vit, without_mlps


def controls(scale: Scale) -> Recipe:
    """Costs two trainings each of T5 and of ViT. A model without MLPs is trained like the dense one, at its rate."""
    families = [(run, without_mlps(run), quarter_wide(run)) for run in (vit(scale), t5(scale))]
    return Recipe(
        experiment=CONTROLS,
        runs=tuple(run for family in families for run in family),
        claims=tuple(claim for family in families for claim in dense_beats(*family)),
        setting="MLPs",
        settings=(
            "ViT",
            "ViT without MLPs",
            "ViT, a quarter as wide",
            "T5",
            "T5 without MLPs",
            "T5, a quarter as wide",
        ),
    )


def dense_beats(dense: Training, without: Training, quarter: Training) -> Sequence[Claim]:
    """That the dense model beats each of its controls: a T5 by its loss, a ViT by its accuracy."""
    is_text = isinstance(dense.task, T5Task)
    what, unit = ("loss", " (nats)") if is_text else ("accuracy", "")
    return [
        comparison(
            dense.name,
            control.name,
            tested(what),
            difference,
            name=name,
            text=text,
            where="control",
            metric=f"{what} of the dense model less that of the control, held-out{unit}",
            expected="below 0" if is_text else "above 0",
            above=-math.inf if is_text else 0,
            below=0 if is_text else math.inf,
        )
        for control, name, text in (
            (without, "dense-beats-no-mlps", "The dense model beats the same model without MLPs."),
            (quarter, "dense-beats-quarter", "The dense model beats one with MLPs a quarter as wide."),
        )
    ]
