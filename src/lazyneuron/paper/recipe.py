"""Recipes: what an experiment of the paper runs at a scale, and which claims those runs check.

A recipe is a function of the scale that returns a frozen `Recipe`. Recipes share runs: two that name the same run use
one folder.
"""

from dataclasses import dataclass
from typing import Any

from lazyneuron.paper.claim import Claim
from lazyneuron.paper.experiment import Experiment
from lazyneuron.paper.options import Scale
from lazyneuron.paper.runs import RunSpec

SCALES: tuple[Scale, ...] = ("smoke", "quick", "laptop", "paper")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The runs of an experiment and the claims that they check.

    `settings` names, for each run, the setting that the figure compares, in words or as a number on `setting`'s axis.
    `num_seeds` is how many seeds it has at scales laptop and paper: enough to detect the paper's effect where that can
    be paid for. A run that recipes share has the most that any of them asks for.
    """

    experiment: Experiment
    runs: tuple[RunSpec, ...]
    claims: tuple[Claim, ...]
    setting: str = ""
    settings: tuple[str | float, ...] = ()
    num_seeds: int = 3

    def __post_init__(self) -> None:
        if self.settings and len(self.settings) != len(self.runs):
            raise ValueError(f"{self.name}: {len(self.runs)} runs but {len(self.settings)} settings")

    @property
    def name(self) -> str:
        return self.experiment.name

    def to_dict(self) -> dict[str, Any]:
        """What a result folder keeps of it, for the page."""
        e = self.experiment
        kept = {"name": e.name, "title": e.title, "figure": e.figure, "expected": e.expected}
        kept |= {"runs": [run.name for run in self.runs]}
        return kept | {"setting": self.setting, "settings": list(self.settings)}
