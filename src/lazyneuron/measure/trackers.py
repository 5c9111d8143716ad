"""Send a monitor's curves to TensorBoard, trackio and W&B, through accelerate's trackers."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

Log = Callable[[dict[str, float], int], None]
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
_PROJECT = "lazyneuron"


class Trackers:
    """The trackers of a monitor, by name or from an `Accelerator`; opened at the first `log`.

    UsageError at once, with the command that installs it, if a tracker's package is missing.
    """

    def __init__(self, wanted: "Sequence[str] | Accelerator", folder: Path) -> None:
        self._wanted, self._folder = wanted, folder
        self._logs: list[Log] | None = None
        self._own: list[Any] = []
        if isinstance(wanted, str):
            raise UsageError(f"trackers are a list: trackers=[{wanted!r}]")
        for name in wanted if isinstance(wanted, Sequence) else ():
            if name not in PACKAGES:
                raise UsageError(
                    f"no tracker {name!r}: choose from {', '.join(PACKAGES)}, or pass an Accelerator after "
                    "init_trackers"
                )
            if not any(importlib.util.find_spec(package) for package in PACKAGES[name]):
                raise UsageError(f"tracker {name} is not installed: pip install {name}")
            if importlib.util.find_spec("accelerate") is None:
                raise UsageError(f"tracker {name} needs accelerate: pip install accelerate")

    def log(self, values: dict[str, float], step: int) -> None:
        """Send numbers by name to every tracker; on rank 0 only."""
        if self._logs is None:
            self._logs = self._open()
        for log in self._logs:
            log(values, step)

    def finish(self) -> None:
        """Close the trackers that this object opened."""
        for tracker in self._own:
            tracker.finish()
        self._own, self._logs = [], None

    def _open(self) -> list[Log]:
        if isinstance(self._wanted, Sequence):
            return [self._active(name) or self._started(name) for name in self._wanted]
        accelerator = self._wanted
        if not accelerator.trackers:
            raise UsageError("the Accelerator has no tracker: call accelerator.init_trackers(project) before training")
        return [lambda values, step: accelerator.log(values, step=step)]

    def _started(self, name: str) -> Log:
        from accelerate import PartialState, tracking

        PartialState()  # accelerate's trackers ask it for the rank
        # TensorBoard's events lie in the run's own folder: `tensorboard --logdir runs` shows it under its name.
        if name == "tensorboard":
            tracker: Any = tracking.TensorBoardTracker(self._folder.name, self._folder.parent)
        else:
            kind: Any = tracking.LOGGER_TYPE_TO_CLASS[name]
            tracker = kind(_PROJECT, name=self._folder.name)
        tracker.start()
        self._own.append(tracker)
        return lambda values, step: tracker.log(values, step=step)

    @staticmethod
    def _active(name: str) -> Log | None:
        """The run that is already open in this process, such as the Trainer's."""
        run: Any = None
        if name == "wandb":
            run = importlib.import_module("wandb").run
        elif name == "trackio":
            run = importlib.import_module("trackio.context_vars").current_run.get()
        if run is None:
            return None
        # The run's own step counter may be ahead of ours; the Trainer's curves use this x axis too.
        return lambda values, step: run.log(values | {"train/global_step": step})
