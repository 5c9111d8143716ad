"""What to reproduce: the options of a call, and the runs that they make of the recipes' own."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lazyneuron.errors import UsageError
from lazyneuron.paper.recipe import SEEDS, Scale
from lazyneuron.paper.recipes import RECIPES
from lazyneuron.paper.recipes.base import DIGITS, SMALL_IMAGES, t5, vit
from lazyneuron.paper.runs import Run, Study, T5Task, Task, Theory, Training


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to reproduce: recipe names, scale, seeds (the scale's own if empty), and what replaces the recipes' choices.

    `text` and `images` replace the data (see `data`), `steps` the number of training steps, `device` the
    automatic choice of a GPU where there is one. `jobs` is how many runs share the machine at a time. `shard` splits
    weights over the processes of torchrun.
    """

    names: tuple[str, ...] = ()
    scale: Scale = "quick"
    out: Path | None = None
    seeds: tuple[int, ...] = ()
    device: str | None = None
    text: str | None = None
    images: str | None = None
    steps: int | None = None
    jobs: int | None = None
    shard: bool = False

    def __post_init__(self) -> None:
        if self.device not in (None, "cpu", "cuda"):
            raise UsageError(f"device must be cpu or cuda; got {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("there is no CUDA device here (or PyTorch is a CPU build): use --device cpu")
        if any(seed < 0 for seed in self.seeds):
            raise UsageError(f"seeds must be 0 or more; got {min(self.seeds)}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps must be 1 or more; got {self.steps}")
        if any(seed >= 2**63 for seed in self.seeds):
            raise UsageError(f"seeds must be below 2^63; got {max(self.seeds)}")
        if self.shard and "LOCAL_RANK" not in os.environ:
            raise UsageError("--shard splits weights over processes: start them with torchrun")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"jobs must be 1 or more; got {self.jobs}")

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / self.scale

    @property
    def chosen_seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.seeds)) or SEEDS[self.scale]

    @property
    def jobs_at_a_time(self) -> int:
        """As asked; else up to three on a CPU, one for each core, and one on a GPU."""
        on_gpu = self.device != "cpu" and torch.cuda.is_available()
        return self.jobs or (1 if on_gpu else min(3, num_cores()))

    @property
    def threads_per_run(self) -> int:
        """Threads of a run that does not fix its own: as many as leave no two on one core."""
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", self.jobs_at_a_time))
        return max(1, num_cores() // processes)

    def what(self) -> dict[str, Any]:
        """What must be equal for a folder to be gone on with, everything that changes a result; and the command."""
        chosen = {"text": self.text, "images": self.images, "steps": self.steps, "device": self.device}
        given = {name: value for name, value in chosen.items() if value is not None}
        words = ["lazyneuron", "reproduce", "--scale", self.scale]
        words[2:2] = ["--all"] if set(self.names) == set(RECIPES) else self.names
        if self.seeds:
            words += ["--seeds", *map(str, self.seeds)]
        for name, value in given.items():
            words += [f"--{name}", str(value)]
        return {"kind": "reproduce", "scale": self.scale, **given, "command": shlex.join(words)}


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _changed(task: Task, options: Options) -> Task:
    if isinstance(task, T5Task):
        return replace(task, text=options.text) if options.text else task
    if options.images in (None, task.images):
        return task
    task = replace(task, images=options.images)
    if task.augmentation != DIGITS:
        return task
    task = replace(task, augmentation=SMALL_IMAGES)
    return task if task.model == "mlp" else replace(task, patch_size=SMALL_IMAGES.canvas // 4)


def with_options(run: Run, options: Options) -> Run:
    """The run with the data and steps that the options name in place of its own."""
    if isinstance(run, Theory):
        return replace(run, networks=tuple(replace(n, task=_changed(n.task, options)) for n in run.networks))
    if isinstance(run, Study):
        return replace(run, of=tuple(_trained(training, options) for training in run.of))
    return _trained(run, options) if isinstance(run, Training) else run


def _trained(run: Training, options: Options) -> Training:
    """Longer and shorter runs than their family's stay so: the steps given are those of its plain one."""
    run, steps = replace(run, task=_changed(run.task, options)), options.steps
    if steps is None:
        return run
    base = (t5 if isinstance(run.task, T5Task) else vit)(options.scale).num_steps
    longer = round(steps * run.num_steps / base)
    return replace(run, num_steps=longer if run.num_steps >= base else min(run.num_steps, steps))
