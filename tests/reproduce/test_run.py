"""Options, and a child's failures as messages of one line."""

import errno
import os
import queue
import subprocess
import sys
from pathlib import Path

import pytest

from lazyneuron.record import LazyneuronError, RunFolder, UsageError
from lazyneuron.reproduce.recipe import Theory, Training, ViTTask
from lazyneuron.reproduce.recipes import find_recipes
from lazyneuron.reproduce.run import Options, _work, cache_folder, execute, judge, with_options


def test_the_default_folder_names_scale_and_seed():
    assert Options(scale="smoke", seed=3).folder == Path("runs/smoke-seed3")
    assert Options(out=Path("x")).folder == Path("x")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", -1, "seed must be 0 or more; got -1"),
        ("steps", 0, "steps must be 1 or more"),
        ("jobs", 0, "jobs must be"),
    ],
)
def test_wrong_options_are_named(field, value, message):
    with pytest.raises(UsageError, match=message):
        Options(**{field: value})


def test_runs_share_the_cores_and_no_two_threads_share_one(monkeypatch):
    for cores, jobs, expected in (
        (1, None, (1, 1)),
        (2, None, (2, 1)),
        (16, None, (3, 5)),
        (16, 1, (1, 16)),
        (2, 8, (8, 1)),
    ):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        options = Options(jobs=jobs)
        assert (options.jobs_at_a_time, options.threads_per_run) == expected


def test_what_changes_a_result_is_in_the_config_and_the_rest_is_not():
    plain = Options().what()
    assert Options(jobs=1, out=Path("x"), names=("fig1",)).what() == plain
    for changed in (Options(seed=1), Options(scale="smoke"), Options(text="a"), Options(images="b"), Options(steps=5)):
        assert changed.what() != plain
    assert Options(text="my text").what()["command"] == ("lazyneuron reproduce --scale quick --seed 0 --text 'my text'")


def test_text_images_and_steps_replace_the_recipes_own():
    options = Options(text="book.txt", images="fashion-mnist", steps=7)
    for recipe in find_recipes([], "smoke"):
        for run in recipe.runs:
            changed = with_options(run, options)
            trainings = changed.networks if isinstance(changed, Theory) else (changed,)
            assert {getattr(t.task, "text", None) or getattr(t.task, "images", None) for t in trainings} <= {
                "book.txt",
                "fashion-mnist",
            }
            assert not isinstance(changed, Training) or changed.num_steps == 7


def test_other_images_than_the_digits_are_seen_at_their_own_size():
    run = with_options(find_recipes(["fig2ab"], "smoke")[0].runs[1], Options(images="fashion-mnist"))
    assert isinstance(run, Training)
    assert isinstance(run.task, ViTTask)
    assert (run.task.augmentation.canvas, run.task.patch_size) == (28, 7)


def test_the_cache_follows_its_variables(monkeypatch):
    monkeypatch.setenv("LAZYNEURON_CACHE", "here")
    assert cache_folder() == Path("here")
    monkeypatch.delenv("LAZYNEURON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "there")
    assert cache_folder() == Path("there/lazyneuron")


def test_a_full_disk_is_one_line_and_what_was_written_stays(small_vit, tmp_path, monkeypatch):
    written = []

    def fsync(descriptor):
        written.append(descriptor)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    messages = queue.Queue()
    _work(small_vit, tmp_path / "vit", Options(device="cpu"), messages)
    *_, ended = list(messages.queue)
    assert ended.failure.startswith("vit: No space left on device")
    assert "\n" not in ended.failure
    kept = RunFolder(tmp_path / "vit").records()
    assert kept
    monkeypatch.undo()
    _work(small_vit, tmp_path / "vit", Options(device="cpu"), messages)
    assert RunFolder(tmp_path / "vit").records()[: len(kept)] == kept
    assert RunFolder(tmp_path / "vit").is_done()


def test_an_unexpected_failure_names_itself_and_keeps_its_traceback(small_vit, tmp_path, monkeypatch):
    def broken(run, seed, cache):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("lazyneuron.reproduce.task.load_batches", broken)
    messages = queue.Queue()
    _work(small_vit, tmp_path / "vit", Options(), messages)
    ended = messages.get_nowait()
    assert ended.failure == "vit failed: RuntimeError: first line (--debug shows where)"
    assert isinstance(ended.error(), LazyneuronError)
    assert "second line" in "".join(ended.error().__notes__)


def test_only_runs_that_are_there_are_judged(small_vit, tmp_path):
    parent = RunFolder(tmp_path, Options(scale="smoke").what())
    assert judge(parent) == []
    _work(small_vit, tmp_path / "vit", Options(device="cpu"), queue.Queue())
    verdicts = judge(parent)
    assert {v.recipe for v in verdicts} == {"vit"}
    assert next(v for v in verdicts if v.claim == "half-active-at-start").value is not None
    assert parent.verdicts() == verdicts


@pytest.mark.slow
def test_two_processes_of_torchrun_give_the_numbers_of_one(corpus, tmp_path):
    options = Options(names=("fig2ab",), scale="smoke", steps=20, device="cpu", text=str(corpus))
    words = ["reproduce", "fig2ab", "--scale", "smoke", "--steps", "20", "--device", "cpu", "--text", str(corpus)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    call = [*torchrun, "-m", "lazyneuron", *words, "--out", str(tmp_path / "two")]
    two = subprocess.run(call, capture_output=True, text=True)
    assert two.returncode == 0, two.stderr
    for run in find_recipes(options.names, "smoke")[0].runs:
        execute(with_options(run, options), tmp_path / "one" / run.name, options, lambda progress: None)
    assert two.stdout.count("page:") == 1
    for name in ("t5", "vit"):
        first, second = (RunFolder(tmp_path / folder / name).records() for folder in ("one", "two"))
        keys = [[(r.what, r.split, r.layer, r.stack, r.step, r.num_tokens) for r in part] for part in (first, second)]
        assert keys[0] == keys[1]
        assert [r.value for r in second] == pytest.approx([r.value for r in first], rel=2e-2)
        start = [[r.value for r in part if r.what == "density" and r.step == 0] for part in (first, second)]
        assert start[0] == pytest.approx(start[1], rel=1e-4)
