"""Trackers: each gets the numbers under their step, and one that cannot be had says so at once."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from lazyneuron.errors import UsageError
from lazyneuron.measure.trackers import Trackers


def test_misuse_is_refused_in_one_line(tmp_path: Path) -> None:
    """A name that is none, and a name where a list of them belongs."""
    with pytest.raises(UsageError, match="no tracker 'tensorbord': choose from tensorboard, trackio, wandb"):
        Trackers(["tensorbord"], tmp_path)
    with pytest.raises(UsageError, match=r"trackers are a list: trackers=\['wandb'\]"):
        Trackers("wandb", tmp_path)


@pytest.mark.parametrize("package", ["tensorboard", "trackio", "wandb"])
def test_a_missing_tracker_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Before training begins, with the line that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"^tracker {package} is not installed: pip install {package}$"):
        Trackers([package], tmp_path)


def test_tensorboard_opens_at_the_first_number(tmp_path: Path) -> None:
    """No file before it; then one right in the folder, with every number under its step."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "mine"
    trackers = Trackers(["tensorboard"], folder)
    assert not folder.exists()
    trackers.log({"density/mean": 0.5}, 0)
    trackers.log({"density/mean": 0.25}, 300)
    trackers.finish()
    found = events.EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("density/mean")] == [(0, 0.5), (300, 0.25)]
    trackers.finish()


def test_an_accelerator_passes_the_numbers_on(tmp_path: Path) -> None:
    """Its trackers get them and stay open; one without trackers is told what to call."""
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

    class Kept(GeneralTracker):
        name, requires_logging_directory, tracker = "kept", False, None

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int | None, dict[str, float]]] = []

        def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
            self.seen.append((step, values))

        def finish(self) -> None:
            raise AssertionError("it is the user's")

    kept = Kept()
    accelerator = Accelerator(cpu=True, log_with=kept)
    with pytest.raises(UsageError, match=r"call accelerator\.init_trackers"):
        Trackers(accelerator, tmp_path).log({}, 0)
    accelerator.init_trackers("mine")
    trackers = Trackers(accelerator, tmp_path)
    trackers.log({"density/mean": 0.5}, 7)
    trackers.finish()
    assert kept.seen == [(7, {"density/mean": 0.5})]


@pytest.mark.parametrize("package", ["trackio", "wandb"])
def test_an_open_run_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """What the Trainer has open gets our numbers with its own x axis, never a step that may lie behind its count."""
    seen: list[tuple[Any, ...]] = []
    run = types.SimpleNamespace(log=lambda *values: seen.append(values))
    fake, contexts = types.ModuleType(package), types.ModuleType("trackio.context_vars")
    fake.__dict__["run"] = run
    contexts.__dict__["current_run"] = types.SimpleNamespace(get=lambda: run)
    monkeypatch.setitem(sys.modules, package, fake)
    monkeypatch.setitem(sys.modules, "trackio.context_vars", contexts)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == package)
    trackers = Trackers([package], tmp_path)
    trackers.log({"density/mean": 0.5}, 100)
    trackers.finish()
    assert seen == [({"density/mean": 0.5, "train/global_step": 100},)]
