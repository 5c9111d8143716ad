"""Jobs and their order, a child's failures as messages of one line, verdicts, torchrun."""

import errno
import io
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from rich.console import Console

from lazyneuron.errors import LazyneuronError, StoppedError, UsageError
from lazyneuron.paper.firing.run import Firing
from lazyneuron.paper.jobs import Job, jobs_of, next_job, say_costs, with_options
from lazyneuron.paper.options import Options
from lazyneuron.paper.recorder import Recorder
from lazyneuron.paper.registry import EXPERIMENTS, find_recipes
from lazyneuron.paper.run import _run_all, _run_here, _work, execute, judge, reproduce
from lazyneuron.records.folder import RunFolder


def test_a_full_disk_is_one_line_and_what_was_written_stays(small_vit, tmp_path, monkeypatch):
    written = []

    def fsync(descriptor):
        written.append(descriptor)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    messages = queue.Queue()
    _work(Job(small_vit, 0, ""), tmp_path / "vit", Options(device="cpu"), messages)
    *_, ended = list(messages.queue)
    assert ended.failure.startswith("vit-seed0: No space left on device")
    assert "\n" not in ended.failure
    kept = RunFolder(tmp_path / "vit").records()
    assert kept
    monkeypatch.undo()
    _work(Job(small_vit, 0, ""), tmp_path / "vit", Options(device="cpu"), messages)
    assert RunFolder(tmp_path / "vit").records()[: len(kept)] == kept
    assert RunFolder(tmp_path / "vit").is_done()


def test_an_unexpected_failure_names_itself_and_keeps_its_traceback(small_vit, tmp_path, monkeypatch):
    def broken(run, seed, cache):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("lazyneuron.paper.task.load_batches", broken)
    messages = queue.Queue()
    _work(Job(small_vit, 0, ""), tmp_path / "vit", Options(), messages)
    ended = messages.get_nowait()
    assert ended.failure == "vit-seed0 failed: RuntimeError: first line (--debug shows where)"
    assert isinstance(ended.error(), LazyneuronError)
    assert "second line" in "".join(ended.error().__notes__)


def test_only_claims_whose_runs_are_there_are_judged(small_vit, tmp_path):
    parent = RunFolder(tmp_path, Options(scale="smoke").config())
    assert judge(parent) == []
    for seed in (0, 1):
        _work(Job(small_vit, seed, ""), tmp_path / f"vit-seed{seed}", Options(device="cpu"), queue.Queue())
    verdicts = judge(parent)
    assert {v.on for v in verdicts} == {"vit"}
    start = next(v for v in verdicts if v.claim == "half-active-at-start")
    assert (start.seeds, len(start.values), start.recipe) == ([0, 1], 2, "fig2a")
    assert start.low <= start.value <= start.high
    assert parent.verdicts() == verdicts
    assert [recipe["name"] for recipe in parent.recipes()] == list(EXPERIMENTS)


def test_what_is_done_is_judged_when_the_others_are_stopped(small_vit, tmp_path, monkeypatch):
    def stopped(*rest):
        _work(Job(small_vit, 0, ""), tmp_path / "vit-seed0", Options(device="cpu"), queue.Queue())
        raise StoppedError("stopped")

    monkeypatch.setattr("lazyneuron.paper.run._run_all", stopped)
    with pytest.raises(StoppedError):
        reproduce(Options(names=("fig2a",), scale="smoke", out=tmp_path, device="cpu"), Console(quiet=True))
    assert "half-active-at-start" in {verdict.claim for verdict in RunFolder(tmp_path).verdicts()}


def test_jobs_are_each_run_once_per_seed_after_what_they_need_and_timing_last():
    jobs = jobs_of(find_recipes(EXPERIMENTS, "smoke"), Options(scale="smoke", seeds=(0, 1)))
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    assert names[:4] == ["t5-seed0", "t5-seed1", "vit-seed0", "vit-seed1"]
    assert set(names[-4:]) == {f"{name}-seed{seed}" for name in ("latency", "statistical") for seed in (0, 1)}
    for number, job in enumerate(jobs):
        assert job.needs <= set(names[:number])
    alone = jobs_of(find_recipes(["fig3"], "smoke"), Options(scale="smoke"))
    assert [job.name for job in alone] == ["t5-seed0", "firing-seed0", "vit-seed0", "firing-vit-seed0"]


def test_shared_runs_have_the_most_seeds_that_a_recipe_asks_for():
    few, many, third = find_recipes(["fig2a", "fig2c", "fig3"], "laptop")
    recipes = [replace(few, num_seeds=5), replace(many, num_seeds=7), replace(third, num_seeds=3)]
    jobs = jobs_of(recipes, Options(scale="laptop"))
    names = ("vit", "t5", "vit-tenth", "firing")
    seeds = {name: [job.seed for job in jobs if job.run.name == name] for name in names}
    assert seeds == {"vit": [*range(7)], "t5": [*range(5)], "vit-tenth": [*range(7)], "firing": [0, 1, 2]}
    assert [job.recipe for job in jobs if job.run.name == "vit"] == ["fig2a"] * 5 + ["fig2c"] * 2
    given = jobs_of(recipes, Options(scale="laptop", seeds=(7, 4)))
    assert {job.seed for job in given} == {4, 7}


def test_costs_are_of_the_seeds_that_are_left(tmp_path):
    recipes, options, said = find_recipes(["fig2b", "table1"], "laptop"), Options(scale="laptop"), io.StringIO()
    jobs = jobs_of(recipes, options)
    say_costs(recipes, jobs, [job for job in jobs if job.seed > 1], options, Console(file=said, width=200))
    for recipe in recipes:
        own = [job.seed for job in jobs if job.recipe == recipe.name]
        done = own.count(0) + own.count(1)
        assert 0 < done < len(own)
        assert f"{recipe.experiment.figure}; {len(own)} runs, {done} done" in said.getvalue()


def test_a_folder_keeps_the_seeds_that_were_asked_for(tmp_path):
    parent = RunFolder(tmp_path, Options(scale="smoke").config())
    judge(parent, {"fig1": (1, 0)})
    judge(parent, {"fig1": (4,), "fig3": (2,)})
    seeds = {recipe["name"]: recipe["seeds"] for recipe in parent.recipes()}
    assert (seeds["fig1"], seeds["fig3"], seeds["fig2a"]) == ([0, 1, 4], [2], [])


def test_a_job_waits_for_its_models_and_a_timing_for_quiet():
    jobs = {job.name: job for job in jobs_of(find_recipes(["fig3", "latency"], "smoke"), Options(scale="smoke"))}
    training, firing, timing = jobs["t5-seed0"], jobs["firing-seed0"], jobs["latency-seed0"]
    assert next_job([firing, training], [], {"t5-seed0", "firing-seed0"}, 2) == training
    at_work = [training]
    assert next_job([firing], at_work, {"t5-seed0", "firing-seed0"}, 2) is None
    assert next_job([firing], [], {"firing-seed0"}, 2) == firing
    assert next_job([timing], at_work, set(), 2) is None
    assert next_job([timing], [], set(), 2) == timing
    assert next_job([training], [timing], set(), 2) is None
    assert next_job([training], [firing, firing], set(), 2) is None


def test_a_folder_of_another_run_stops_all(tmp_path):
    RunFolder(tmp_path / "t5-seed0", {"name": "another"}).log("begun")
    options = Options(names=("fig3",), scale="smoke", out=tmp_path, steps=1, device="cpu")
    with pytest.raises(UsageError, match="t5-seed0 holds a run with another config"):
        reproduce(options, Console(quiet=True))


def test_what_needs_a_failed_run_is_named_and_the_others_go_on(small_vit, tmp_path):
    bad = replace(small_vit, name="bad", learning_rate=1e30, clip_norm=None, warmup_steps=0)
    runs = (bad, Firing(name="firing", of=(bad,)), small_vit)
    failures = _run_all([Job(run, 0, "") for run in runs], tmp_path, Options(device="cpu"), Console(quiet=True))
    assert [str(failure).partition(":")[0] for failure in failures] == ["bad", "firing-seed0 waits for bad-seed0"]
    assert RunFolder(tmp_path / "vit-seed0").is_done()


def test_a_run_with_worker_processes_runs_in_a_child(small_vit, tmp_path):
    run = replace(small_vit, num_workers=1)
    assert not _run_all([Job(run, 0, "")], tmp_path, Options(device="cpu"), Console(quiet=True))
    assert RunFolder(tmp_path / "vit-seed0").is_done()


def test_a_child_stopped_from_outside_is_a_failure_and_not_done(small_vit, tmp_path):
    run = replace(small_vit, num_steps=100_000, num_probes=2)

    def stop_it():
        while not list(tmp_path.glob("vit-seed0/checkpoint-*")):
            time.sleep(0.05)
        for child in multiprocessing.active_children():
            child.terminate()

    stopper = threading.Thread(target=stop_it)
    stopper.start()
    failures = _run_all([Job(run, 0, "")], tmp_path, Options(device="cpu"), Console(quiet=True))
    stopper.join()
    assert [str(failure) for failure in failures] == ["vit-seed0 was stopped from outside: run again to resume"]
    assert not RunFolder(tmp_path / "vit-seed0").is_done()
    assert judge_folder(tmp_path) == []


@pytest.fixture
def signal_at_end(monkeypatch):
    """A SIGTERM while a training tests its final model."""
    test = Recorder._test

    def stopped(self, step):
        test(self, step)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Recorder, "_test", stopped)


def test_a_signal_at_the_end_of_a_run_starts_no_other(small_vit, tmp_path, signal_at_end):
    jobs = [Job(small_vit, seed, "") for seed in (0, 1)]
    with pytest.raises(StoppedError, match="vit is done, then stopped"):
        _run_here(jobs, tmp_path, Options(device="cpu"), Console(quiet=True))
    assert RunFolder(tmp_path / "vit-seed0").is_done()
    assert not (tmp_path / "vit-seed1").exists()


def test_a_child_that_is_signalled_at_its_end_is_done(small_vit, tmp_path, signal_at_end):
    messages = queue.Queue()
    _work(Job(small_vit, 0, ""), tmp_path / "vit", Options(device="cpu"), messages)
    *_, ended = list(messages.queue)
    assert (ended.name, ended.failure, ended.is_stopped) == ("vit-seed0", "", False)
    assert RunFolder(tmp_path / "vit").is_done()


def judge_folder(path):
    return judge(RunFolder(path, Options(scale="smoke").config()))


@pytest.mark.slow
def test_two_processes_of_torchrun_give_the_numbers_of_one(corpus, tmp_path):
    options = Options(names=("fig2b",), scale="smoke", steps=20, device="cpu", text=str(corpus))
    words = ["reproduce", "fig2b", "--scale", "smoke", "--steps", "20", "--device", "cpu", "--text", str(corpus)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    call = [*torchrun, "-m", "lazyneuron", *words, "--out", str(tmp_path / "two")]
    two = subprocess.run(call, capture_output=True, text=True)
    assert two.returncode == 0, two.stderr
    for run in find_recipes(options.names, "smoke")[0].runs:
        execute(with_options(run, options), tmp_path / "one" / f"{run.name}-seed0", 0, options, lambda progress: None)
    assert two.stdout.count("page:") == 1
    for name in ("t5-seed0", "vit-seed0"):
        whole = [RunFolder(tmp_path / folder / name).records() for folder in ("one", "two")]
        # Rounding may move a prediction across the edge of a bin.
        binned = [sum(r.num_tokens or 0 for r in part if r.what == "reliability") for part in whole]
        assert binned[0] == binned[1] > 0
        first, second = ([r for r in part if r.what != "reliability"] for part in whole)
        keys = [[(r.what, r.split, r.layer, r.stack, r.step, r.num_tokens) for r in part] for part in (first, second)]
        assert keys[0] == keys[1]
        assert [r.value for r in second] == pytest.approx([r.value for r in first], rel=2e-2)
        start = [[r.value for r in part if r.what == "density" and r.step == 0] for part in (first, second)]
        assert start[0] == pytest.approx(start[1], rel=1e-4)
