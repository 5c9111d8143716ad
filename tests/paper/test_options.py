"""Options: what they replace, what they refuse, and what a result folder remembers of them."""

import os
from pathlib import Path

import pytest
import torch

from lazyneuron.errors import UsageError
from lazyneuron.paper.options import Options


def test_the_default_folder_names_the_scale_and_the_scale_its_seeds():
    assert Options(scale="smoke").folder == Path("runs/smoke")
    assert Options(out=Path("x")).folder == Path("x")
    assert Options(scale="quick").seeds_of(10) == Options(scale="smoke").seeds_of(10) == (0,)
    assert Options(scale="laptop").seeds_of(3) == Options(scale="paper").seeds_of(3) == (0, 1, 2)
    assert Options(scale="laptop", seeds=(5, 3, 5)).seeds_of(10) == (5, 3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seeds", (0, -1), "seeds must be 0 or more; got -1"),
        ("steps", 0, "steps must be 1 or more"),
        ("jobs", 0, "jobs must be"),
        ("seeds", (2**63,), "seeds must be below"),
        ("shard", True, "--shard splits weights over processes: start them with torchrun"),
        ("device", "tpu", "device must be cpu or cuda"),
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
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        options = Options(jobs=jobs)
        assert (options.jobs_at_a_time, options.threads_per_run) == expected


def test_a_gpu_is_not_shared_and_torchruns_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (Options().jobs_at_a_time, Options(device="cpu").jobs_at_a_time) == (1, 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert Options().threads_per_run == 2


def test_what_changes_a_result_is_in_the_config_and_the_rest_is_not():
    plain = Options().config()
    assert Options(jobs=1, out=Path("x"), names=("fig1",), seeds=(1, 2)).config() == plain
    for changed in (Options(scale="smoke"), Options(text="a"), Options(images="b"), Options(steps=5)):
        assert changed.config() != plain


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device here"):
        Options(device="cuda")
