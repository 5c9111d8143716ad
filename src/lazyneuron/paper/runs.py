"""Runs: what one process does in one folder with one seed. Trainings are here, studies of them in `study`."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import Selection
from lazyneuron.errors import UsageError
from lazyneuron.paper.models import MIXER_SIZES, RESNET_SIZES, T5_SIZES, VIT_SIZES
from lazyneuron.paper.progress import Progress
from lazyneuron.records.folder import RunFolder

_IMAGE_SIZES: dict[str, Any] = {
    "vit": VIT_SIZES, "mixer": MIXER_SIZES, "mlp": {"mlp": None}, "resnet": RESNET_SIZES,
}  # fmt: skip
_MODELS = {"vit": "ViT", "mixer": "Mixer", "mlp": "MLP", "resnet": "ResNet"}


@dataclass(frozen=True, kw_only=True)
class T5Task:
    """Span corruption of `text` by a T5 v1.0, on inputs of `input_length` tokens (512 have targets of 114).

    `data_share` of the training text is used, in pieces from all over it; all held-out text stays. `mlps` "none" is a
    control: every MLP gives 0 and is not trained.
    """

    size: str
    text: str = "python"
    vocab_size: int = 4096
    input_length: int = 64
    num_layers: int | None = None
    d_ff: int | None = None
    max_text_bytes: int = 100_000_000
    data_share: float = 1.0
    hidden_act: str = "relu"
    mlps: Literal["dense", "none"] = "dense"

    def __post_init__(self) -> None:
        if self.size not in T5_SIZES:
            raise UsageError(f"no T5 size {self.size!r}: choose one of {', '.join(T5_SIZES)}")
        if self.input_length < 8:
            raise UsageError(f"input_length must be 8 tokens or more; got {self.input_length}")
        _check_share("data_share", self.data_share)


@dataclass(frozen=True, kw_only=True)
class ImageTask:
    """Classification of `images` by a ViT, an MLP-Mixer, a ResNet or a 2-layer MLP, augmented as `augmentation` says.

    The augmentation's canvas is the model's input. `data_share` of the training images are used, of the first
    `class_share` of the classes (two or more). `random_labels` is the share of training labels that are redrawn,
    uniformly over all classes. `pixels` "random" puts i.i.d. pixels, uniform in [-1, 1], in the place of every image;
    "fresh" draws pixels and labels anew for every batch, so that none is seen twice, and measures density on other
    such images (arXiv 2210.06313, Figure 5). `mlps` "none" is a control: every MLP gives 0 and is not trained.
    """

    augmentation: Augmentation
    model: Literal["vit", "mixer", "mlp", "resnet"] = "vit"
    size: str
    images: str = "digits"
    num_layers: int | None = None
    d_ff: int | None = None
    patch_size: int | None = None
    hidden_act: str = "relu"
    class_share: float = 1.0
    data_share: float = 1.0
    random_labels: float = 0.0
    pixels: Literal["real", "random", "fresh"] = "real"
    mlps: Literal["dense", "none"] = "dense"

    def __post_init__(self) -> None:
        sizes = _IMAGE_SIZES[self.model]
        if self.size not in sizes:
            raise UsageError(f"no {_MODELS[self.model]} size {self.size!r}: choose one of {', '.join(sizes)}")
        _check_share("data_share", self.data_share)
        _check_share("class_share", self.class_share)
        if not 0 <= self.random_labels <= 1:
            raise UsageError(f"random_labels must be between 0 and 1; got {self.random_labels}")


def _check_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise UsageError(f"{name} must be above 0 and at most 1; got {share}")


Task = T5Task | ImageTask
Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Show nothing."""


class RunSpec(ABC):
    """What one process does in one folder with one seed. A run that `is_timed` comes last and runs alone."""

    name: str
    num_threads: int | None
    is_timed: ClassVar[bool] = False

    @property
    def needs(self) -> "tuple[Training, ...]":
        """The trainings whose final models it reads."""
        return ()

    @abstractmethod
    def seconds(self) -> float:
        """About how long it takes on one core of this machine, its start apart."""

    @abstractmethod
    def with_trainings(self, change: "Callable[[Training], Training]") -> Self:
        """The run with each training that it does or reads changed."""

    @abstractmethod
    def execute(
        self, path: Path, seed: int, cache: Path, report: Report = silent, device: str = "", sharded: bool = False
    ) -> None:
        """Carry it out in the folder `path`, resuming it if it was begun; tokenized text is kept in `cache`."""


@dataclass(frozen=True, kw_only=True)
class Training(RunSpec):
    """One model trained from scratch, its density measured on the way.

    The optimizers are PyTorch's. "adafactor" has no momentum and scales each update by its parameter's size and by
    min(learning_rate, 1 / sqrt(step)): with 0.01 that is T5X's schedule. "sgd" has momentum 0.9, and "adamw"
    without weight decay is Adam. Matrices decay, biases and gains of norms do not. `schedule` comes on top: "constant"
    or "linear" (to 0 at `num_steps`), after `warmup_steps` of linear rise. Density is measured on
    `probe_batches` batches of training data and as many of held-out data, at about `num_probes` log-spaced steps; at
    the end quality is measured on at most `test_examples` held-out examples, in order and not augmented. `selection` is
    enforced from the first step on; the density before it is then measured too ("natural_density").
    """

    name: str
    task: Task
    num_steps: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adafactor", "adamw", "sgd"]
    schedule: Literal["constant", "linear"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    z_loss: float = 0.0
    num_probes: int = 20
    probe_batches: int = 8
    test_examples: int = 50_000
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
            "test_examples": 1,
            "log_every": 1,
            "checkpoint_every": 1,
        }
        for field, minimum in least.items():
            if getattr(self, field) < minimum:
                raise UsageError(f"{self.name}: {field} must be {minimum} or more; got {getattr(self, field)}")
        if not self.learning_rate > 0:
            raise UsageError(f"{self.name}: learning_rate must be above 0; got {self.learning_rate}")

    def seconds(self) -> float:
        from lazyneuron.paper.estimate import forward_seconds, step_seconds

        return self.num_steps * step_seconds(self) + 2 * self.num_probes * self.probe_batches * forward_seconds(self)

    def with_trainings(self, change: "Callable[[Training], Training]") -> "Training":
        return change(self)

    def execute(
        self, path: Path, seed: int, cache: Path, report: Report = silent, device: str = "", sharded: bool = False
    ) -> None:
        from lazyneuron.paper.task import load_batches
        from lazyneuron.paper.train import train

        batches = load_batches(self, seed, cache)
        folder = RunFolder(path, run_config(self, seed, batches.fingerprint))
        train(self, folder, batches, seed=seed, device=device or None, sharded=sharded, report=report)


def folder_name(run: str, seed: int) -> str:
    """The name of the folder with a run's seed."""
    return f"{run}-seed{seed}"


def run_config(run: RunSpec, seed: int, fingerprint: str = "") -> dict[str, Any]:
    """The JSON form of a run, kept in its folder: what must be equal for a run to be resumed.

    `fingerprint` tells the data's content.
    """
    return {"kind": type(run).__name__.lower(), "seed": seed, "fingerprint": fingerprint, **_written(run)}


def _written(run: Any) -> dict[str, Any]:
    """The fields of a run as JSON has them; the trainings that a study reads by name, for they have configs too."""
    found = {}
    for field in dataclasses.fields(run):
        value = getattr(run, field.name)
        if isinstance(value, Selection):
            value = value.to_dict()
        elif field.name == "of":
            value = [training.name for training in value]
        elif field.name == "networks":
            value = [_written(training) for training in value]
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        if value or field.name not in ("selection", "of"):
            found[field.name] = value
    return found


def probe_steps(num_steps: int, num_probes: int) -> list[int]:
    """Steps at which density is measured: 0, then log-spaced (about `num_probes` in all), and the last."""
    ratio = num_steps ** (1 / max(1, num_probes - 2))
    spaced = {round(ratio**i) for i in range(num_probes - 1)}
    return sorted({0, *spaced, num_steps})
