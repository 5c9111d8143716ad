"""Rates are chosen by loss on a seed of their own."""

import math
from dataclasses import replace

import pytest

from lazyneuron.errors import LazyneuronError, StoppedError
from lazyneuron.paper.ablations import rates
from lazyneuron.paper.registry import EXPERIMENTS, find_recipes
from lazyneuron.paper.runs import Training
from lazyneuron.paper.trainings import vit
from lazyneuron.records.folder import RunFolder


def test_the_rate_of_the_lowest_loss_is_chosen():
    assert rates.choose({0.1: 0.5, 0.2: 0.4, 0.3: 0.6}) == 0.2
    assert rates.choose({0.3: 0.4, 0.1: 0.4, 0.2: 0.5}) == 0.1
    assert rates.choose({0.1: math.inf, 0.2: 9.0, 0.3: math.nan}) == 0.2
    with pytest.raises(LazyneuronError, match=r"no loss is finite at the rates 0\.1, 0\.2"):
        rates.choose({0.1: math.inf, 0.2: math.nan})


def test_every_rate_of_every_optimizer_is_tried_with_nothing_else_changed():
    base = vit("laptop")
    tried = rates.candidates(base)
    assert {name: [rate for own, rate in tried if own == name] for name in rates.OPTIMIZERS} == {
        name: list(how.rates) for name, how in rates.OPTIMIZERS.items()
    }
    assert len({run.name for run in tried.values()}) == len(tried) == 13
    for (name, rate), run in tried.items():
        how = rates.OPTIMIZERS[name]
        assert (run.learning_rate, run.optimizer, run.weight_decay) == (rate, how.optimizer, how.weight_decay)
        assert (run.num_steps, run.batch_size, run.task) == (4000, base.batch_size, base.task)


def test_the_chosen_rate_was_tried_and_the_seed_is_no_scales_own():
    assert all(how.rate in how.rates for how in rates.OPTIMIZERS.values())
    assert all(rates.SEED >= recipe.num_seeds for recipe in find_recipes(EXPERIMENTS, "laptop"))


def test_the_sweep_gives_each_runs_test_loss_and_resumes(small_vit, tmp_path):
    runs = [rates.OPTIMIZERS["sgd"].on(small_vit, f"sgd-{rate:g}", rate) for rate in (0.01, 0.3)]
    first = rates.sweep(runs, tmp_path)
    for run, loss in zip(runs, first, strict=True):
        (test,) = [
            r for r in RunFolder(tmp_path / f"{run.name}-seed100").records() if (r.what, r.split) == ("loss", "test")
        ]
        assert test.value == loss
    assert first[0] != first[1]
    assert rates.sweep(runs, tmp_path) == first


def test_a_run_that_diverges_counts_as_infinite_and_one_that_is_stopped_stops_the_sweep(
    small_vit, tmp_path, monkeypatch
):
    broken = replace(small_vit, name="vit-broken", learning_rate=1e30, optimizer="sgd", clip_norm=None, warmup_steps=0)
    assert rates.sweep([broken], tmp_path) == [math.inf]

    def stopped(*args, **more):
        raise StoppedError("stopped")

    monkeypatch.setattr(Training, "execute", stopped)
    with pytest.raises(StoppedError):
        rates.sweep([small_vit], tmp_path)
