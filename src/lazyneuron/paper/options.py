"""What to reproduce. Light: the command line reads it before anything heavy is imported."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from lazyneuron.errors import UsageError

Scale = Literal["smoke", "quick", "laptop", "paper"]
ONE_SEED: tuple[Scale, ...] = ("smoke", "quick")
"""The scales at which every recipe has one seed; at the others a recipe has as many as it asks for."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which recipes to run, at which scale and with which seeds, and what replaces the recipes' own choices."""

    names: Annotated[tuple[str, ...], "recipes (default: fig1 fig2a fig2b theorem31 controls)", "NAME"] = ()
    all: Annotated[bool, "all recipes"] = False
    scale: Annotated[Scale, "how large (see below)"] = "quick"
    out: Annotated[Path | None, "result folder (default: runs/SCALE)"] = None
    seeds: Annotated[
        tuple[int, ...], "seeds of weights and batches (default: 0; laptop, paper: the recipe's)", "N"
    ] = ()
    device: Annotated[str | None, "cpu or cuda (default: cuda if available)"] = None
    text: Annotated[str | None, "T5's text: file, folder of *.txt, hf:NAME[/CONFIG], python"] = None
    images: Annotated[
        str | None,
        "ViT's images: folder with a subfolder per class, idx folder, hf:NAME, digits, letters, dejavu, fashion-mnist",
    ] = None
    steps: Annotated[int | None, "training steps, instead of the scale's"] = None
    jobs: Annotated[int | None, "runs at a time (default: up to 3, one per core)"] = None
    shard: Annotated[bool, "under torchrun: also split the weights over the processes (FSDP2)"] = False

    def __post_init__(self) -> None:
        if self.all and self.names:
            raise UsageError(f"--all runs every recipe: leave out --all or {' '.join(self.names)}")
        if self.device not in (None, "cpu", "cuda"):
            raise UsageError(f"device must be cpu or cuda; got {self.device!r}")
        if self.device == "cuda" and not _has_gpu():
            raise UsageError("there is no CUDA device here (or PyTorch is a CPU build): use --device cpu")
        if any(seed < 0 for seed in self.seeds):
            raise UsageError(f"seeds must be 0 or more; got {min(self.seeds)}")
        if any(seed >= 2**63 for seed in self.seeds):
            raise UsageError(f"seeds must be below 2^63; got {max(self.seeds)}")
        for name in ("steps", "jobs"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} must be 1 or more; got {value}")
        if self.shard and "LOCAL_RANK" not in os.environ:
            raise UsageError("--shard splits weights over processes: start them with torchrun")

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / self.scale

    def seeds_of(self, num_seeds: int) -> tuple[int, ...]:
        """The seeds of a recipe that asks for so many: `seeds`, or else 0, 1, ..."""
        return tuple(dict.fromkeys(self.seeds)) or tuple(range(1 if self.scale in ONE_SEED else num_seeds))

    @property
    def jobs_at_a_time(self) -> int:
        """`jobs`, or else one on a GPU and up to three on a CPU, one per core."""
        return self.jobs or (1 if self.device != "cpu" and _has_gpu() else min(3, num_cores()))

    @property
    def threads_per_run(self) -> int:
        """Threads of a run that does not fix its own: as many as leave no two on one core."""
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", self.jobs_at_a_time))
        return max(1, num_cores() // processes)

    def config(self) -> dict[str, Any]:
        """Everything that changes a result: a result folder can only be resumed with the same."""
        replaced = {name: getattr(self, name) for name in ("text", "images", "steps", "device")}
        given = {name: value for name, value in replaced.items() if value is not None}
        return {"kind": "reproduce", "scale": self.scale, **given}


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
