"""Controls: T5 and ViT without MLPs and with MLPs a quarter as wide, against the dense models.

Where attention alone does as well, a claim that sparse MLPs cost no quality is empty: a model may lose all its MLPs.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from lazyneuron.paper.claim import Claim
from lazyneuron.paper.comparison_claims import comparison, difference, tested
from lazyneuron.paper.controls import CONTROLS
from lazyneuron.paper.mlps_used import CLEAR
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.runs import T5Task, Training
from lazyneuron.paper.trainings import quarter_wide, t5, vit, without_mlps

_CLAIMS = (
    ("dense-beats-no-mlps", "The dense model beats the same model without MLPs."),
    ("dense-beats-quarter", "The dense model beats one with MLPs a quarter as wide."),
)


def controls(scale: Scale) -> Recipe:
    """Costs two trainings each of T5 and of ViT, at scale quick those without MLPs alone.

    A model without MLPs is trained like the dense one, at its rate.
    """
    settings = ["", " without MLPs", ", a quarter as wide"][: 2 if scale == "quick" else 3]
    runs, claims, names = [], [], []
    for name, dense in (("ViT", vit(scale)), ("T5", t5(scale))):
        own = [dense, without_mlps(dense), quarter_wide(dense)][: len(settings)]
        runs += own
        claims += dense_beats(*own)
        names += [name + setting for setting in settings]
    return Recipe(experiment=CONTROLS, runs=tuple(runs), claims=tuple(claims), setting="MLPs", settings=tuple(names))


def dense_beats(dense: Training, *controls: Training) -> Sequence[Claim]:
    """That the dense model beats each of its controls: a T5 by its loss, a ViT by its accuracy."""
    is_text = isinstance(dense.task, T5Task)
    what, unit = ("loss", " (nats)") if is_text else ("accuracy", "")
    return [
        replace(
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
            ),
            clear=CLEAR[what],
        )
        for control, (name, text) in zip(controls, _CLAIMS, strict=False)
    ]
