"""The monitor as a callback of the Hugging Face and Lightning trainers."""

import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from lazyneuron.errors import StoppedError, UsageError, explained_imports
from lazyneuron.maps.attach import eager
from lazyneuron.measure.monitor import Monitor
from lazyneuron.measure.trackers import PACKAGES
from lazyneuron.sites import SiteChoice, is_tracing

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import TrainerCallback

_LIGHTNINGS = ("lightning.pytorch", "pytorch_lightning")


def trainer_callback(
    folder: str | Path,
    *,
    every: int = 100,
    recipe: str = "train",
    seed: int | None = None,
    sites: SiteChoice = None,
    trackers: "Sequence[str] | Accelerator | None" = None,
) -> "TrainerCallback":
    """A callback of `transformers.Trainer` that records density while it trains: see `Monitor`.

    `seed` defaults to the Trainer's own, `trackers` to those of its `report_to` that `Monitor` supports. `folder` must
    not be the Trainer's `output_dir`, which has another `config.json`.

    The Trainer does not report exceptions to its callbacks: after an exception in a measured step, the hooks stay until
    the model is next called outside that training.
    """

    def make(model: nn.Module, args: Any) -> Monitor:
        if Path(args.output_dir).resolve() == Path(folder).resolve():
            raise UsageError(f"{folder} is the Trainer's output_dir: give trainer_callback another folder")
        if args.n_gpu > 1:
            raise UsageError(
                f"the Trainer runs {args.n_gpu} GPUs in threads (DataParallel), which cannot be counted: use torchrun"
            )
        known = [name for name in args.report_to if name in PACKAGES] if trackers is None else trackers
        own_seed = args.seed if seed is None else seed
        return Monitor(model, folder, every=every, recipe=recipe, seed=own_seed, sites=sites, trackers=known)

    return _trainer_callback_class()(make)


def lightning_callback(
    folder: str | Path,
    *,
    every: int = 100,
    recipe: str = "train",
    seed: int = 0,
    module: str | None = None,
    sites: SiteChoice = None,
    trackers: "Sequence[str] | Accelerator | None" = None,
) -> Any:
    """A callback of Lightning's `Trainer` (`lightning` or `pytorch_lightning`) that records density: see `Monitor`.

    `module` is the path of the module that `training_step` calls; by default the only child with weights, or else the
    `LightningModule` itself. `trackers` defaults to the Trainer's own loggers.
    """

    def make(pl_module: nn.Module, trainer: Any) -> Monitor:
        children = [child for child in pl_module.children() if any(True for _ in child.parameters())]
        only = children[0] if len(children) == 1 and not pl_module._parameters else pl_module
        model = only if module is None else pl_module.get_submodule(module)
        known: Any = trackers
        if known is None:
            known = _Loggers(trainer.loggers) if trainer.loggers else ()
        return Monitor(model, folder, every=every, recipe=recipe, seed=seed, sites=sites, trackers=known)

    return _lightning_callback_class()(make)


class _Follower:
    """A monitor that is entered and left by the callback events of another library's training loop."""

    def __init__(self, make: Callable[..., Monitor]) -> None:
        self._make = make
        self._monitor: Monitor | None = None
        self._open = ExitStack()

    def _begin(self, *made_of: Any) -> None:
        """Make a monitor for a training that starts or resumes."""
        self._drop(None)
        self._monitor = self._make(*made_of)

    def _drop(self, error: BaseException | None) -> None:
        """Leave the open step without a record."""
        error = error or StoppedError("the step did not finish")
        self._open.__exit__(type(error), error, error.__traceback__)


@functools.cache
@explained_imports("trainer_callback")
def _trainer_callback_class() -> type[Any]:
    from transformers import TrainerCallback

    class MonitorCallback(_Follower, TrainerCallback):
        """Records density while a `transformers.Trainer` trains."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._begin(kwargs["model"], args)

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._drop(None)
            monitor, model = self._monitor, kwargs["model"]
            if monitor is None:
                return
            self._open.enter_context(monitor.step(state.global_step))
            if state.global_step % monitor.every == 0:
                guard = _drop_after(self, _outermost_frame("transformers.trainer"))
                self._open.callback(model.register_forward_hook(guard, always_call=True).remove)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._open.close()

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._drop(None)
            if self._monitor is not None:
                self._monitor.close()

    return MonitorCallback


def _outermost_frame(module: str) -> types.FrameType | None:
    """The outermost stack frame that runs code of `module`."""
    found, frame = None, sys._getframe()
    while frame is not None:
        found = frame if frame.f_globals.get("__name__") == module else found
        frame = frame.f_back
    return found


def _drop_after(follower: _Follower, training: types.FrameType | None) -> Callable[..., None]:
    """A forward hook that leaves the open step once the model is called outside the stack frame `training`."""

    def guard(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        frame = sys._getframe()
        while frame is not None and frame is not training:
            frame = frame.f_back
        if frame is None and training is not None and not is_tracing():
            follower._drop(None)

    return eager(guard)


def _lightning_callback_class() -> type[Any]:
    """The callback class for the Lightning package that is imported, or else for the one that is installed."""
    installed = [name for name in _LIGHTNINGS if importlib.util.find_spec(name.partition(".")[0])]
    names = [name for name in _LIGHTNINGS if name in sys.modules] or installed[:1]
    if not names:
        raise UsageError("lightning_callback needs lightning: pip install 'lazyneuron[lightning]'")
    return _lightning_callback_class_of(tuple(names))


@functools.cache
def _lightning_callback_class_of(names: tuple[str, ...]) -> type[Any]:
    bases: list[type[Any]] = [importlib.import_module(name).Callback for name in names]

    class MonitorCallback(_Follower, *bases):
        """Records density while a Lightning `Trainer` trains."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self._begin(pl_module, trainer)

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self._drop(None)
            if self._monitor is not None:
                self._step = trainer.global_step
                self._open.enter_context(self._monitor.step(self._step, is_last=False))

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self._open.close()
            if self._monitor is not None and trainer.global_step > self._step:
                self._monitor.flush()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self._drop(None)  # still open if the module's own on_train_batch_start ended the epoch

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self._drop(exception)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if self._monitor is not None:
                self._monitor.close()

    return MonitorCallback


class _Loggers:
    """Lightning's loggers with the interface of an `Accelerator`."""

    def __init__(self, loggers: Sequence[Any]) -> None:
        self.trackers = loggers

    def log(self, values: dict[str, float], step: int) -> None:
        for logger in self.trackers:
            logger.log_metrics(values, step)
