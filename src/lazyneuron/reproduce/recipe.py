"""Recipes: what an experiment of the paper runs, at which scale, and which claims it checks.

A recipe is a function of the scale that returns one frozen `Recipe`. Its runs are shared: two recipes that name the
same run use one folder.
"""

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Literal

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import Selection
from lazyneuron.models import T5_SIZES, VIT_SIZES
from lazyneuron.record import UsageError

Scale = Literal["smoke", "quick", "laptop", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "quick", "laptop", "paper")


@dataclass(frozen=True, kw_only=True)
class T5Task:
    """Span corruption of `text` by a T5 v1.0, on inputs of `input_length` tokens (512 have targets of 114)."""

    size: str
    text: str = "python"
    vocab_size: int = 4096
    input_length: int = 64
    num_layers: int | None = None
    d_ff: int | None = None
    max_text_bytes: int = 100_000_000

    def __post_init__(self) -> None:
        if self.size not in T5_SIZES:
            raise UsageError(f"no T5 size {self.size!r}: choose one of {', '.join(T5_SIZES)}")
        if self.input_length < 8:
            raise UsageError(f"input_length must be 8 tokens or more; got {self.input_length}")


@dataclass(frozen=True, kw_only=True)
class ViTTask:
    """Classification of `images` by a ReLU ViT, augmented as `augmentation` says (its canvas is the model's input)."""

    size: str
    augmentation: Augmentation
    images: str = "digits"
    num_layers: int | None = None
    d_ff: int | None = None
    patch_size: int | None = None

    def __post_init__(self) -> None:
        if self.size not in VIT_SIZES:
            raise UsageError(f"no ViT size {self.size!r}: choose one of {', '.join(VIT_SIZES)}")


@dataclass(frozen=True, kw_only=True)
class MLPTask:
    """Classification of `images` by a 2-layer ReLU MLP (the network of Theorem 3.1)."""

    augmentation: Augmentation
    d_ff: int
    images: str = "digits"


Task = T5Task | ViTTask | MLPTask


@dataclass(frozen=True, kw_only=True)
class Training:
    """One model trained from scratch, its density measured on the way.

    The optimizers are PyTorch's. "adafactor" has no momentum and scales each update by its parameter's size and by
    min(learning_rate, 1 / sqrt(step)): with 0.01 that is T5X's schedule. `schedule` comes on top: "constant" or
    "linear" (to 0 at `num_steps`), after `warmup_steps` of linear rise. Density is measured on `probe_batches` batches
    of training data and as many of held-out data, at about `num_probes` log-spaced steps. `selection` is enforced from
    the first step on; the density before it is then measured too ("natural_density").
    """

    name: str
    task: Task
    num_steps: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adafactor", "adamw"]
    schedule: Literal["constant", "linear"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    z_loss: float = 0.0
    num_probes: int = 20
    probe_batches: int = 8
    log_every: int = 25
    checkpoint_every: int = 250
    num_workers: int = 0
    num_threads: int | None = 1
    selection: Selection | None = None

    def __post_init__(self) -> None:
        least = {
            "num_steps": 1,
            "batch_size": 1,
            "num_probes": 2,
            "probe_batches": 1,
            "log_every": 1,
            "checkpoint_every": 1,
        }
        for field, minimum in least.items():
            if getattr(self, field) < minimum:
                raise UsageError(f"{self.name}: {field} must be {minimum} or more; got {getattr(self, field)}")
        if not self.learning_rate > 0:
            raise UsageError(f"{self.name}: learning_rate must be above 0; got {self.learning_rate}")


def smoke(run: Training, num_steps: int) -> Training:
    """The run cut to seconds, with probes and checkpoints to match."""
    return replace(run, num_steps=num_steps, num_probes=6, probe_batches=4, log_every=10, checkpoint_every=20)


def full_size(run: Training) -> Training:
    """The run with the cadence, workers and threads of a long one on large batches."""
    run = replace(run, num_probes=40, probe_batches=4, log_every=100, checkpoint_every=1000)
    return replace(run, num_workers=8, num_threads=None)


@dataclass(frozen=True, kw_only=True)
class Theory:
    """Theorem 3.1 checked by Monte Carlo over `num_draws` random output weights, and in real networks at step 0.

    Each of `networks` is drawn `num_initialisations` times, with a training batch for each.
    """

    name: str = "theorem31"
    num_draws: int
    num_initialisations: int
    networks: tuple[Training, ...]
    num_threads: int | None = 1


Run = Training | Theory


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment: its runs, the claims it checks, and what the paper reports (arXiv 2210.06313)."""

    name: str
    title: str
    figure: str
    expected: str
    runs: tuple[Run, ...]
    claims: tuple[str, ...]


def run_config(run: Run, seed: int, fingerprint: str = "") -> dict[str, Any]:
    """The JSON form of a run, kept in its folder: what must be equal for a run to be resumed.

    `fingerprint` tells the data's content.
    """
    kind = "training" if isinstance(run, Training) else "theory"
    config = {"kind": kind, "seed": seed, "fingerprint": fingerprint, **dataclasses.asdict(run)}
    if isinstance(run, Training):  # folders of before there were selections have no such key
        del config["selection"]
        config |= {"selection": run.selection.to_dict()} if run.selection else {}
    for network in config.get("networks", ()):
        del network["selection"]
    return config


def probe_steps(num_steps: int, num_probes: int) -> list[int]:
    """Steps at which density is measured: 0, then log-spaced (about `num_probes` in all), and the last."""
    ratio = num_steps ** (1 / max(1, num_probes - 2))
    spaced = {round(ratio**i) for i in range(num_probes - 1)}
    return sorted({0, *spaced, num_steps})
