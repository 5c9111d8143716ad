"""Runs of recipes side by side, each in a process and a folder of its own; then verdicts and the page."""

import multiprocessing
import os
import queue
import shlex
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lazyneuron.record import LazyneuronError, RunFolder, StoppedError, UsageError, Verdict
from lazyneuron.reproduce.claims import CLAIMS
from lazyneuron.reproduce.progress import Display, Progress
from lazyneuron.reproduce.recipe import Run, Scale, T5Task, Task, Theory, ViTTask, run_config
from lazyneuron.reproduce.recipes import RECIPES, find_recipes
from lazyneuron.reproduce.recipes.fig2ab import DIGITS, SMALL_IMAGES
from lazyneuron.stop import stop_signals


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to reproduce: recipe names (all if empty), scale, seed, and what replaces the recipes' own choices.

    `text` and `images` replace the data (see `data`), `steps` the number of training steps, `device` the
    automatic choice of a GPU where there is one. `jobs` is how many runs share the machine at a time.
    """

    names: tuple[str, ...] = ()
    scale: Scale = "quick"
    out: Path | None = None
    seed: int = 0
    device: str | None = None
    text: str | None = None
    images: str | None = None
    steps: int | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.device not in (None, "cpu", "cuda"):
            raise UsageError(f"device must be cpu or cuda; got {self.device!r}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or more; got {self.seed}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps must be 1 or more; got {self.steps}")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"jobs must be 1 or more; got {self.jobs}")

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"{self.scale}-seed{self.seed}"

    @property
    def jobs_at_a_time(self) -> int:
        return self.jobs or min(3, os.cpu_count() or 1)

    @property
    def threads_per_run(self) -> int:
        """Threads of a run that does not fix its own: as many as leave no two on one core."""
        return max(1, (os.cpu_count() or 1) // self.jobs_at_a_time)

    def what(self) -> dict[str, Any]:
        """What must be equal for a folder to be gone on with: everything that changes a result."""
        chosen = {"text": self.text, "images": self.images, "steps": self.steps, "device": self.device}
        given = {name: value for name, value in chosen.items() if value is not None}
        words = ["lazyneuron", "reproduce", "--scale", self.scale, "--seed", str(self.seed)]
        for name, value in given.items():
            words += [f"--{name}", str(value)]
        return {"kind": "reproduce", "scale": self.scale, "seed": self.seed, **given, "command": shlex.join(words)}


def cache_folder() -> Path:
    """Where tokenized text is kept: $LAZYNEURON_CACHE, or `lazyneuron` below the user's cache folder."""
    if named := os.environ.get("LAZYNEURON_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lazyneuron"


def _changed(task: Task, options: Options) -> Task:
    if isinstance(task, T5Task):
        return replace(task, text=options.text) if options.text else task
    if options.images in (None, task.images):
        return task
    task = replace(task, images=options.images)
    if task.augmentation != DIGITS:
        return task
    task = replace(task, augmentation=SMALL_IMAGES)
    return replace(task, patch_size=SMALL_IMAGES.canvas // 4) if isinstance(task, ViTTask) else task


def with_options(run: Run, options: Options) -> Run:
    """The run with the data and steps that the options name in place of its own."""
    if isinstance(run, Theory):
        return replace(run, networks=tuple(replace(n, task=_changed(n.task, options)) for n in run.networks))
    return replace(run, task=_changed(run.task, options), num_steps=options.steps or run.num_steps)


@dataclass(frozen=True)
class Outcome:
    """What `reproduce` came to: verdicts on all runs in the folder, and the failures of runs that did not end."""

    folder: Path
    verdicts: list[Verdict]
    failures: list[LazyneuronError]


def reproduce(options: Options, console: Console) -> Outcome:
    """Run what is not done yet and judge the claims.

    Raises `UsageError` where another argument or file is needed, and `StoppedError` after Ctrl-C (the same call goes
    on). A run that fails otherwise leaves the others to their end, and its failure in the outcome.
    """
    recipes = find_recipes(list(options.names), options.scale)
    parent = RunFolder(options.folder, options.what())
    runs = {run.name: with_options(run, options) for recipe in recipes for run in recipe.runs}
    todo = [run for name, run in runs.items() if not (parent.path / name / "done").exists()]
    for name in runs.keys() - {run.name for run in todo}:
        console.print(f"{name} is done: {parent.path / name}", highlight=False)
    if "LOCAL_RANK" in os.environ:
        failures = _run_here(todo, parent.path, options, console)
    else:
        failures = _run_all(todo, parent.path, options, console)
    for failure in failures:
        if isinstance(failure, UsageError):
            raise failure
    return Outcome(parent.path, judge(parent) if is_first_process() else [], failures)


def judge(parent: RunFolder) -> list[Verdict]:
    """Judge every claim on every run in a folder, write the verdicts there, and give them back."""
    members = {member.path.name: member for member in parent.members()}
    verdicts = []
    recipes = find_recipes(RECIPES, parent.config["scale"])
    claims_of = {run.name: recipe.claims for recipe in recipes for run in recipe.runs}
    for name, member in members.items():
        records = member.records()
        for claim in claims_of.get(name, ()):
            verdicts.append(CLAIMS[claim].verdict(name, parent.config["seed"], records))
    parent.write_verdicts(verdicts)
    return verdicts


@dataclass(frozen=True)
class _Ended:
    name: str
    failure: str = ""
    is_usage: bool = False
    trace: str = ""

    def error(self) -> LazyneuronError:
        error = (UsageError if self.is_usage else LazyneuronError)(self.failure)
        error.add_note(self.trace)
        return error


def _run_all(todo: Sequence[Run], path: Path, options: Options, console: Console) -> list[LazyneuronError]:
    """Run each in a process of its own, `jobs` at a time; the failures, if there are any.

    A `UsageError` stops the others, which save what they have; after any other failure they go on to their end.
    """
    jobs = options.jobs_at_a_time
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    waiting, failures = list(todo), []
    working: dict[str, Any] = {}
    with stop_signals() as stop, Display(console) as display:
        while working or (waiting and not stop):
            while waiting and len(working) < jobs and not stop:
                run = waiting.pop(0)
                process = context.Process(target=_work, args=(run, path / run.name, options, messages), daemon=True)
                working[run.name] = process
                with _ignored_interrupt():
                    process.start()
                display.update(Progress(run.name, 0, getattr(run, "num_steps", 1), note="starting"))
            for process in working.values() if stop else ():
                process.terminate()
            try:
                message = messages.get(timeout=0.5)
            except queue.Empty:
                dead = [name for name, process in working.items() if not process.is_alive()]
                message = _Ended(dead[0], "" if stop else f"{dead[0]}: its process died: run again") if dead else None
            if isinstance(message, Progress):
                display.update(message)
            elif isinstance(message, _Ended):
                working.pop(message.name).join()
                if message.failure:
                    failures.append(message.error())
                    if message.is_usage:
                        stop.append(0)
    if stop and not failures:
        raise StoppedError("stopped; what was done is saved. The same command goes on from there")
    return failures


def _run_here(todo: Sequence[Run], path: Path, options: Options, console: Console) -> list[LazyneuronError]:
    """Under torchrun: all processes share each training, one after the other; the first shows how far it is."""
    with Display(console) as display:
        for run in todo:
            if is_first_process() or not isinstance(run, Theory):
                execute(run, path / run.name, options, display.update if is_first_process() else lambda progress: None)
    return []


def is_first_process() -> bool:
    """Whether this process writes and shows results: the only one, or torchrun's rank 0."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _ignored_interrupt() -> Iterator[None]:
    """Child processes started here ignore Ctrl-C: it reaches them through their parent, as SIGTERM, in good order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def _work(run: Run, path: Path, options: Options, messages: Any) -> None:
    """The body of a child process: one run, its progress and its end sent as messages."""

    def report(progress: Progress) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os.kill(os.getpid(), signal.SIGTERM)
        messages.put(progress)

    try:
        execute(run, path, options, report)
        ended = _Ended(run.name)
    except LazyneuronError as error:
        stopped = isinstance(error, StoppedError)
        ended = _Ended(run.name, "" if stopped else str(error), isinstance(error, UsageError), traceback.format_exc())
    except OSError as error:
        text = f"{run.name}: {error.strerror or error} ({error.filename or path}): mend that, then run again to go on"
        ended = _Ended(run.name, text, False, traceback.format_exc())
    except Exception as error:
        first = str(error).partition("\n")[0]
        text = f"{run.name} failed: {type(error).__name__}: {first} (--debug shows where)"
        ended = _Ended(run.name, text, False, traceback.format_exc())
    messages.put(ended)


def execute(run: Run, path: Path, options: Options, report: Callable[[Progress], None]) -> None:
    """Carry out one run in this process, in the folder `path`, from where it was left."""
    import torch

    from lazyneuron.reproduce.task import load_batches
    from lazyneuron.reproduce.theory_run import check_theory
    from lazyneuron.reproduce.train import train

    seed, cache = options.seed, cache_folder()
    if run.num_threads is None:
        torch.set_num_threads(options.threads_per_run)
    if isinstance(run, Theory):
        check_theory(run, RunFolder(path, run_config(run, seed)), cache, seed=seed, report=report)
    else:
        batches = load_batches(run, seed, cache)
        folder = RunFolder(path, run_config(run, seed, batches.fingerprint))
        train(run, folder, batches, seed=seed, device=options.device, report=report)
