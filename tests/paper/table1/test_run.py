"""Accuracy under corruptions: all models on the same images, drawn by the seed, relative to the first model."""

import pytest

from lazyneuron.paper.table1.run import Robustness
from lazyneuron.records.folder import RunFolder


def run_of(runs, name="robustness", **changes):
    models = (runs["vit"], runs["vit-top8"])
    fields = {"corruptions": ("gaussian_noise", "contrast"), "constants": "CIFAR-10-C", "num_images": 60}
    return Robustness(name=name, of=models, **fields | changes)


def test_each_model_corruption_and_severity_has_its_accuracy(trained, studied):
    _, runs = trained
    records = studied(run_of(runs))
    accuracy = {(r.case, r.x): r.value for r in records if r.what == "accuracy"}
    cases = {f"{run} {name}" for run in ("vit", "vit-top8") for name in ("gaussian_noise", "contrast")}
    assert accuracy.keys() == {(c, float(s)) for c in cases for s in range(1, 6)} | {
        ("vit clean", 0),
        ("vit-top8 clean", 0),
    }
    assert {r.num_tokens for r in records if r.what == "accuracy"} == {60}
    assert all(0 <= r.value <= 1 for r in records if r.what in ("accuracy", "ece"))
    assert {r.x for r in records if r.what == "ece"} == {0, 1, 2, 3, 4, 5}
    errors = {r.case: r.value for r in records if r.what == "corruption_error"}
    assert errors["vit contrast"] == errors["vit gaussian_noise"] == 1
    expected = sum(1 - accuracy["vit-top8 contrast", s] for s in range(1, 6))
    expected /= sum(1 - accuracy["vit contrast", s] for s in range(1, 6))
    assert errors["vit-top8 contrast"] == pytest.approx(expected)
    mce = {r.case: r.value for r in records if r.what == "mce"}
    assert mce["vit-top8"] == pytest.approx((errors["vit-top8 contrast"] + errors["vit-top8 gaussian_noise"]) / 2)


def test_clean_accuracy_is_that_of_the_training(trained, studied):
    folder, runs = trained
    records = studied(run_of(runs, name="clean", num_images=runs["vit"].test_examples))
    test = {r.what: r.value for r in RunFolder(folder / "vit-seed0").records() if r.split == "test" and r.x is None}
    clean = next(r.value for r in records if r.what == "accuracy" and r.case == "vit clean")
    assert clean == test["accuracy"]


def test_images_are_corrupted_at_the_severity_that_is_recorded(trained, studied, monkeypatch):
    """With images that are blank at severity 3 and clean at the others, accuracy differs there alone."""

    def blank_at_3(pixels, corruption, severity, indices, seed, constants):
        return pixels * (severity != 3)

    monkeypatch.setattr("lazyneuron.paper.table1.run.corrupt", blank_at_3)
    _, runs = trained
    records = studied(run_of(runs, name="severity"))
    found = {r.x: r.value for r in records if r.what == "ece" and r.case == "vit contrast"}
    clean = next(r.value for r in records if r.what == "ece" and r.case == "vit clean")
    assert {severity for severity, value in found.items() if value == clean} == {1, 2, 4, 5}


def test_the_constants_that_are_recorded_are_used(trained, studied, monkeypatch):
    used = []

    def recorded(pixels, corruption, severity, indices, seed, constants):
        used.append(constants)
        return pixels

    monkeypatch.setattr("lazyneuron.paper.table1.run.corrupt", recorded)
    folder, runs = trained
    for constants in ("ImageNet-C", "CIFAR-10-C"):
        used.clear()
        run = run_of(runs, name=f"constants{constants}", constants=constants)
        studied(run)
        assert set(used) == {constants}
        assert RunFolder(folder / f"{run.name}-seed0").config["constants"] == constants


def test_imagenet_cs_constants_are_stronger_on_small_images(trained, studied):
    _, runs = trained
    by_set = {}
    for constants in ("ImageNet-C", "CIFAR-10-C"):
        records = studied(run_of(runs, name=f"strength{constants}", constants=constants, num_images=360))
        by_set[constants] = sum(r.value for r in records if r.what == "accuracy" and r.case == "vit gaussian_noise")
    assert by_set["ImageNet-C"] < by_set["CIFAR-10-C"]
