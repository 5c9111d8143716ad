"""Run recipes in parallel, each run in a process and a folder of its own, then judge the claims."""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from lazyneuron.errors import LazyneuronError, StoppedError, UsageError, explained_imports
from lazyneuron.paper.jobs import Job, jobs_of, next_job, say_costs
from lazyneuron.paper.options import Options, num_cores
from lazyneuron.paper.progress import Display, Progress
from lazyneuron.paper.registry import EXPERIMENTS, find_recipes
from lazyneuron.paper.runs import RunSpec, Training
from lazyneuron.records.folder import RunFolder, cache_folder
from lazyneuron.records.record import Verdict
from lazyneuron.training.stop import stop_signals

_PRELOADED = [
    "transformers.models.t5.modeling_t5",
    "transformers.models.vit.modeling_vit",
    "lazyneuron.paper.train",
]


@dataclass(frozen=True)
class Outcome:
    """The verdicts on all runs in the folder, and the errors of those that failed."""

    folder: Path
    verdicts: list[Verdict]
    failures: list[LazyneuronError]


def reproduce(options: Options, console: Console) -> Outcome:
    """Run what is not done yet and judge the claims.

    Raises `UsageError` if another argument or file is needed, and `StoppedError` after Ctrl-C: finished runs are
    judged, and the same call resumes the others. If a run fails otherwise, the others finish and the outcome has its
    error.
    """
    recipes = find_recipes(EXPERIMENTS if options.all else options.names, options.scale)
    parent = RunFolder(options.folder, options.config())
    jobs = jobs_of(recipes, options)
    seeds = {recipe.name: options.seeds_of(recipe.num_seeds) for recipe in recipes}
    todo = [job for job in jobs if not (parent.path / job.name / "done").exists()]
    say_costs(recipes, jobs, todo, options, console)
    run_them = _run_here if "LOCAL_RANK" in os.environ else _run_all
    try:
        failures = run_them(todo, parent.path, options, console)
    except StoppedError:
        if is_first_process():
            judge(parent, seeds)
        raise
    for failure in failures:
        if isinstance(failure, UsageError):
            raise failure
    return Outcome(parent.path, judge(parent, seeds) if is_first_process() else [], failures)


def judge(parent: RunFolder, asked: Mapping[str, Sequence[int]] = MappingProxyType({})) -> list[Verdict]:
    """Judge every claim whose runs are done in a folder; write verdicts and recipes there and return the verdicts.

    A claim is judged on all seeds that have its runs. A recipe is skipped if all of its finished runs belong to earlier
    recipes: nobody asked for it. `asked` has the seeds asked for now, by recipe; the folder keeps them beside earlier.
    """
    by_seed: dict[int, dict[str, Any]] = {}
    for member in filter(RunFolder.is_done, parent.members()):
        by_seed.setdefault(member.config["seed"], {})[member.config["name"]] = member.records()
    verdicts: dict[tuple[str, str], Verdict] = {}
    present = {name for runs in by_seed.values() for name in runs}
    recipes, before = find_recipes(EXPERIMENTS, parent.config["scale"]), set[str]()
    for recipe in recipes:
        own = {run.name for run in recipe.runs} - before
        before |= own
        if own and not own & present:
            continue
        for claim in recipe.claims:
            there = {seed: runs for seed, runs in sorted(by_seed.items()) if set(claim.runs) <= runs.keys()}
            if there:
                found = claim.verdict(recipe.name, there)
                verdicts.setdefault((found.claim, found.on), found)
    parent.write_verdicts(verdicts.values())
    seeds = {recipe["name"]: recipe.get("seeds", []) for recipe in parent.recipes()}
    for name, more in asked.items():
        seeds[name] = sorted({*seeds.get(name, ()), *more})
    parent.write_recipes(recipe.to_dict() | {"seeds": seeds.get(recipe.name, [])} for recipe in recipes)
    return list(verdicts.values())


@dataclass(frozen=True)
class _Ended:
    """How a run ended; `is_stopped` if it was asked to stop and saved its state."""

    name: str
    failure: str = ""
    is_stopped: bool = False
    is_usage: bool = False
    trace: str = ""

    def error(self) -> LazyneuronError:
        error = (UsageError if self.is_usage else LazyneuronError)(self.failure)
        error.add_note(self.trace)
        return error


def _context() -> Any:
    """Processes forked from a server with the imports they share, or new ones where forking is not available."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _run_all(todo: Sequence[Job], path: Path, options: Options, console: Console) -> list[LazyneuronError]:
    """Run each job in a process of its own, some at a time; return the failures.

    A `UsageError` stops the others, which save their state. After any other failure they finish, except those that
    need the failed run's model.
    """
    context = _context()
    messages: Any = context.Queue()
    waiting, failures = list(todo), []
    working: dict[str, tuple[Job, Any]] = {}
    missing, lost = {job.name for job in todo}, set()
    with stop_signals() as stop, Display(console) as display:
        while working or (waiting and not stop):
            while not stop and (
                job := next_job(waiting, [own for own, _ in working.values()], missing, options.jobs_at_a_time)
            ):
                waiting.remove(job)
                arguments = (job, path / job.name, options, messages)
                process = context.Process(target=_work, args=arguments)
                working[job.name] = job, process
                with _ignored_interrupt():
                    process.start()
                display.update(Progress(job.name, 0, getattr(job.run, "num_steps", 1), note="starting"))
            if not working:
                break
            for _, process in working.values() if stop else ():
                process.terminate()
            message = _message(messages, working)
            if isinstance(message, Progress):
                display.update(message)
            elif isinstance(message, _Ended) and message.name in working:
                working.pop(message.name)[1].join()
                if message.is_stopped and stop:
                    continue
                if message.failure:
                    failures.append(message.error())
                    lost.add(message.name)
                    stop += [0] * message.is_usage
                else:
                    missing.discard(message.name)
                    display.done(message.name, len(todo) - len(missing), len(todo))
    if stop and not failures:
        raise StoppedError("stopped; finished work is saved. The same command resumes from there")
    for job in waiting if not stop else ():
        failures.append(LazyneuronError(f"{job.name} waits for {', '.join(sorted(job.needs & lost))}: run again"))
    return failures


def _message(messages: Any, working: dict[str, tuple[Job, Any]]) -> Any:
    """The next message of the children, None if there is none for a while; a child that died silently has ended."""
    try:
        return messages.get(timeout=0.5)
    except queue.Empty:
        dead = [name for name, (_, process) in working.items() if not process.is_alive()]
    try:
        return messages.get(timeout=0.1)
    except queue.Empty:
        return _Ended(dead[0], f"{dead[0]}: its process died: run again", is_stopped=True) if dead else None


def _run_here(todo: Sequence[Job], path: Path, options: Options, console: Console) -> list[LazyneuronError]:
    """Under torchrun: all processes share each training, one after the other; then the first does the rest alone.

    The first failure ends everything, because the other processes cannot learn of it.
    """
    with Display(console) as display:
        for job in sorted(todo, key=lambda job: not isinstance(job.run, Training)):
            if is_first_process() or isinstance(job.run, Training):
                report = display.update if is_first_process() else lambda progress: None
                execute(job.run, path / job.name, job.seed, options, report)
    return []


def is_first_process() -> bool:
    """Whether this process writes and shows results: the only one, or torchrun's rank 0."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _ignored_interrupt() -> Iterator[None]:
    """Child processes started here ignore Ctrl-C; their parent passes it on to them as SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def _work(job: Job, path: Path, options: Options, messages: Any) -> None:
    """The body of a child process: one run, its progress and its end sent as messages."""
    name = job.name

    def report(progress: Progress) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os.kill(os.getpid(), signal.SIGTERM)
        messages.put(replace(progress, name=name))

    try:
        execute(job.run, path, job.seed, options, report)
        ended = _Ended(name)
    except LazyneuronError as error:
        is_stopped = isinstance(error, StoppedError)
        text = f"{name} was stopped from outside: run again to resume" if is_stopped else str(error)
        ended = _Ended(name, text, is_stopped, isinstance(error, UsageError), traceback.format_exc())
        if is_stopped and (path / "done").exists():
            ended = _Ended(name)
    except OSError as error:
        text = f"{name}: {error.strerror or error} ({error.filename or path}): fix that, then run again to resume"
        ended = _Ended(name, text, trace=traceback.format_exc())
    except Exception as error:
        first = str(error).partition("\n")[0]
        text = f"{name} failed: {type(error).__name__}: {first} (--debug shows where)"
        ended = _Ended(name, text, trace=traceback.format_exc())
    messages.put(ended)


@explained_imports("reproduce", extra="paper")
def execute(run: RunSpec, path: Path, seed: int, options: Options, report: Callable[[Progress], None]) -> None:
    """Carry out one run in this process, in the folder `path`, resuming it if it was begun."""
    import torch

    if run.num_threads is None:
        torch.set_num_threads(num_cores() if run.is_timed else options.threads_per_run)
    run.execute(path, seed, cache_folder(), report, options.device or "", options.shard)
