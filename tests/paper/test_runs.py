"""Runs: their mistakes are named, and their configs tell what must be equal for one to be gone on with."""

from dataclasses import replace
from itertools import pairwise

import pytest

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import UsageError
from lazyneuron.paper.firing.run import Firing
from lazyneuron.paper.runs import ImageTask, T5Task, probe_steps, run_config
from lazyneuron.paper.trainings import t5, vit

SMALL = Augmentation(canvas=9)


def test_wrong_numbers_are_named():
    run = t5("smoke")
    with pytest.raises(UsageError, match="t5: num_steps must be 1 or more; got 0"):
        replace(run, num_steps=0)
    with pytest.raises(UsageError, match="learning_rate must be above 0; got nan"):
        replace(run, learning_rate=float("nan"))
    with pytest.raises(UsageError, match="no T5 size 'huge'"):
        T5Task(size="huge")
    with pytest.raises(UsageError, match="input_length must be 8 tokens or more; got 2"):
        T5Task(size="tiny", input_length=2)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 4000, 100_000])
def test_probe_steps_begin_at_0_end_at_the_last_and_are_log_spaced(num_steps):
    steps = probe_steps(num_steps, 24)
    assert steps[0] == 0
    assert steps[-1] == num_steps
    assert steps == sorted(set(steps))
    assert len(steps) <= 25
    late = [b / a for a, b in pairwise(steps) if a > num_steps / 10]
    assert num_steps < 100 or max(late) / min(late) < 1.2


def test_the_config_of_a_run_tells_seed_task_and_data():
    run = t5("smoke")
    config = run_config(run, 3, "abc")
    assert (config["kind"], config["seed"], config["fingerprint"]) == ("training", 3, "abc")
    assert config["task"]["size"] == "tiny"
    assert "selection" not in config
    assert run_config(replace(run, selection=TopK(k=3)), 3)["selection"] == {"kind": "topk", "k": 3}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": "huge"}, "no ViT size 'huge': choose one of vit-micro"),
        ({"size": "vit-tiny", "model": "mixer"}, "no Mixer size 'vit-tiny': choose one of mixer-tiny"),
        ({"size": "vit-tiny", "data_share": 0}, "data_share must be above 0 and at most 1; got 0"),
        ({"size": "vit-tiny", "class_share": 2}, "class_share must be above 0 and at most 1; got 2"),
        ({"size": "vit-tiny", "random_labels": 1.1}, "random_labels must be between 0 and 1; got 1.1"),
    ],
)
def test_wrong_image_tasks_are_named(wrong, message):
    with pytest.raises(UsageError, match=message):
        ImageTask(augmentation=SMALL, **wrong)


def test_a_study_needs_its_trainings_and_names_them_in_its_config():
    study = Firing(name="firing", of=(t5("smoke"), vit("smoke")))
    assert [run.name for run in study.needs] == ["t5", "vit"]
    assert t5("smoke").needs == ()
    config = run_config(study, 1)
    assert (config["kind"], config["name"], config["of"]) == ("firing", "firing", ["t5", "vit"])
