"""Accuracy on training labels: as they were given, as they are, and where the two differ."""

from dataclasses import replace

import numpy as np
import pytest

from lazyneuron.paper.table1.memorised import Memorised, label_accuracies
from lazyneuron.paper.task import load_batches

GIVEN, TRUE = np.array([0, 1, 2, 3, 4, 5, 6, 7]), np.array([0, 1, 2, 3, 9, 9, 9, 9])


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (GIVEN, {"given": (1, 8), "true": (0.5, 8), "wrong": (1, 4)}),
        (TRUE, {"given": (0.5, 8), "true": (1, 8), "wrong": (0, 4)}),
        (np.array([0, 8, 8, 8, 4, 5, 9, 8]), {"given": (3 / 8, 8), "true": (2 / 8, 8), "wrong": (2 / 4, 4)}),
    ],
)
def test_given_true_and_wrong_labels_are_told_apart(predicted, expected):
    assert {name: (value, count) for name, value, count in label_accuracies(predicted, GIVEN, TRUE)} == expected


def test_without_redrawn_labels_none_is_wrong():
    found = {name: value for name, value, _ in label_accuracies(GIVEN, TRUE, TRUE)}
    assert found == {"given": 0.5, "true": 0.5}


@pytest.fixture
def noisy(trained):
    """A training whose labels are half redrawn, trained long enough on few images to learn some of them."""
    folder, runs = trained
    task = replace(runs["vit"].task, augmentation=replace(runs["vit"].task.augmentation, rotation=0, noise=0))
    task = replace(task, random_labels=0.5, data_share=1 / 24)
    run = replace(runs["vit"], name="vit-half", task=task, num_steps=400, learning_rate=3e-3)
    run.execute(folder / "vit-half-seed0", 0, folder / "cache", device="cpu")
    return run


def test_a_training_on_wrong_labels_learns_them_and_not_the_true_ones(noisy, studied, trained):
    folder, _ = trained
    count = len(load_batches(noisy, 0, folder / "cache").data.train.labels)
    records = studied(Memorised(name="memorised", of=(noisy,), num_images=1000))
    found = {r.case: (r.value, r.num_tokens) for r in records}
    assert found.keys() == {"vit-half given", "vit-half true", "vit-half wrong"}
    assert found["vit-half given"][1] == found["vit-half true"][1] == count == 60
    assert found["vit-half wrong"][1] == pytest.approx(0.45 * count, abs=8)
    assert found["vit-half given"][0] > 0.9
    assert found["vit-half wrong"][0] > 0.85
    assert found["vit-half true"][0] == pytest.approx(0.55, abs=0.15)
    assert {(r.what, r.split) for r in records} == {("accuracy", "train")}


def test_no_more_images_are_looked_at_than_asked_for(noisy, studied):
    records = studied(Memorised(name="memorised-some", of=(noisy,), num_images=20))
    assert {r.num_tokens for r in records if "wrong" not in r.case} == {20}
