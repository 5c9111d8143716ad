"""Recipes: what an experiment of the paper runs, at which scale, and which claims it checks.

A recipe is a function of the scale that returns one frozen `Recipe`. Its runs are shared: two recipes that name the
same run use one folder.
"""

from dataclasses import dataclass, replace
from typing import Any

from lazyneuron.paper.claim import Claim
from lazyneuron.paper.options import Scale
from lazyneuron.paper.runs import Run, Training

SCALES: tuple[Scale, ...] = ("smoke", "quick", "laptop", "paper")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment: its runs, the claims it checks, and what the paper reports (arXiv 2210.06313).

    `settings` names, for each run, the setting that the figure compares, in words or as a number on `setting`'s axis.
    """

    name: str
    title: str
    figure: str
    expected: str
    runs: tuple[Run, ...]
    claims: tuple[Claim, ...]
    setting: str = ""
    settings: tuple[str | float, ...] = ()

    def __post_init__(self) -> None:
        if self.settings and len(self.settings) != len(self.runs):
            raise ValueError(f"{self.name}: {len(self.runs)} runs but {len(self.settings)} settings")

    def to_dict(self) -> dict[str, Any]:
        """What the page needs to know of it."""
        runs = [run.name for run in self.runs]
        kept = {"name": self.name, "title": self.title, "figure": self.figure, "expected": self.expected, "runs": runs}
        return kept | {"setting": self.setting, "settings": list(self.settings)}


def smoke(run: Training, num_steps: int) -> Training:
    """The run cut to seconds, with probes and checkpoints to match."""
    cut = {"num_probes": 6, "probe_batches": 4, "test_examples": 200, "log_every": 10, "checkpoint_every": 20}
    return replace(run, num_steps=num_steps, **cut)


def full_size(run: Training) -> Training:
    """The run with the cadence, workers and threads of a long one on large batches."""
    run = replace(run, num_probes=40, probe_batches=4, log_every=100, checkpoint_every=1000)
    return replace(run, num_workers=8, num_threads=None)
