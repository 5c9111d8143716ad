"""Claims of Table 1: differences of a Top-k ViT from the dense one, by seed."""

from dataclasses import replace

import pytest

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import TopK
from lazyneuron.paper.runs import Training
from lazyneuron.paper.table1 import recipe
from lazyneuron.paper.trainings import few_images, image_task
from tests.paper.records import at_the_end, case, verdict


def corrupted(topk, dense, clean_topk=0.9, clean_dense=0.9, corruption="shot_noise"):
    return [
        case("accuracy", clean_topk, "a clean", x=0.0),
        case("accuracy", clean_dense, "b clean", x=0.0),
        *(case("accuracy", topk + s / 100, f"a {corruption}", x=float(s)) for s in (-1, 1)),
        *(case("accuracy", dense + s / 100, f"b {corruption}", x=float(s)) for s in (-1, 1)),
    ]


@pytest.mark.parametrize(("gain", "expected"), [(0.02, "holds"), (-0.02, "does not hold"), (0.0, "cannot tell")])
def test_input_noise_compares_falls_over_severities(gain, expected):
    claim = recipe.topk_input_noise("s", "a", "b", "shot_noise")
    noise = [0.001, -0.001] if not gain else [0.001, 0.0012]
    found = verdict(claim, *({"s": corrupted(0.5 + gain + n, 0.5)} for n in noise))
    assert found.verdict == expected
    assert found.values == [pytest.approx(gain + n) for n in noise]
    assert verdict(claim, {"s": corrupted(0.6, 0.5, corruption="snow")}).value is None
    assert verdict(claim, {"s": corrupted(0.6, 0.5)[1:]}).value is None


@pytest.mark.parametrize(
    ("numbers", "value", "expected"),
    [
        ((0.5, 0.5, 0.88, 0.9), 0.02, "holds"),
        ((0.52, 0.5, 0.92, 0.9), 0.0, "cannot tell"),
        ((0.52, 0.5, 0.95, 0.9), -0.03, "does not hold"),
    ],
)
def test_a_model_that_is_better_everywhere_is_not_more_robust(numbers, value, expected):
    """From the same accuracy under noise a lower clean accuracy falls less far."""
    claim = recipe.topk_input_noise("s", "a", "b", "shot_noise")
    topk, *others = numbers
    found = verdict(claim, *({"s": corrupted(topk + n, *others)} for n in (0.0002, -0.0002)))
    assert found.value == pytest.approx(value)
    assert found.verdict == expected
    assert "accuracies under noise differ by" in found.reason


def test_the_papers_falls_and_accuracies_stand_beside_ours():
    reported = recipe.topk_input_noise("s", "a", "b", "gaussian_noise").reported
    assert reported == ("0.0277 (35.31 against 32.54 points); accuracies differ by 0.0275 (42.29 against 39.54 %)")


@pytest.mark.parametrize(
    ("errors", "expected"), [((0.06, 0.07), "holds"), ((0.014, 0.016), "cannot tell"), ((0.04, 0.07), "holds")]
)
def test_calibration_is_judged_on_a_model_that_is_overconfident(errors, expected):
    claim = recipe.topk_calibration("a", "b")
    found = verdict(claim, *(pair("ece", dense - 0.01 - n, dense) for n, dense in zip((0, 1e-4), errors, strict=True)))
    assert found.verdict == expected
    assert ("the dense model is calibrated already (1.5 %)" in found.reason) == (expected == "cannot tell")


@pytest.mark.parametrize("scale", ["smoke", "quick", "laptop", "paper"])
def test_dense_and_topk_differ_in_the_selection_alone(scale):
    runs = {run.name: run for run in recipe.table1(scale).runs}
    control = next(name for name in runs if name.endswith("-nomlp"))
    dense = [run for name, run in runs.items() if isinstance(run, Training) and not run.selection and name != control]
    assert [image_task(run).random_labels for run in dense] == [0, 0.4, 0.8]
    for run in dense:
        topk = runs[f"{run.name}-top4.17pct"]
        assert replace(topk, name=run.name, selection=None) == run
        assert topk.selection is not None
        assert topk.selection.to_dict() == {"kind": "topk", "density": 128 / 3072}
    assert runs["robustness"].constants == "ImageNet-C"
    assert runs["robustness"].of == (dense[0], runs[f"{dense[0].name}-top4.17pct"])
    assert control == f"{dense[0].name}-nomlp"
    assert {(c.control, c.control_by) for c in recipe.table1(scale).claims} == {((dense[0].name, control), "accuracy")}


def test_at_scale_laptop_few_images_are_seen_often():
    run = few_images("laptop")
    count = round(image_task(run).data_share * 13_440)
    assert 5000 <= count <= 10_000
    assert run.num_steps * run.batch_size / count >= 40
    assert recipe.table1("laptop").num_seeds >= 10
    assert run.selection is None
    assert image_task(run).augmentation == Augmentation(canvas=28)
    assert TopK(density=recipe.DENSITY).k_of(3072) == 128
    assert TopK(density=recipe.DENSITY).k_of(512) == 21


def pair(what, a, b, names=("a", "b")):
    return {names[0]: [at_the_end(what, a)], names[1]: [at_the_end(what, b)]}


def test_table_1_compares_quality_by_seed():
    assert verdict(recipe.topk_natural("a", "b"), *[pair("accuracy", 0.8, 0.801)] * 2).verdict == "holds"
    assert verdict(recipe.topk_natural("a", "b"), *[pair("accuracy", 0.8, 0.9)] * 2).verdict == "does not hold"
    seeds = [pair("accuracy", 0.8 + d, 0.8) for d in (0.004, -0.004, 0.001)]
    assert verdict(recipe.topk_natural("a", "b"), *seeds).verdict == "cannot tell"
    assert verdict(recipe.topk_label_noise("a", "b", 40), *[pair("accuracy", 0.8, 0.7)] * 2).verdict == "holds"
    assert verdict(recipe.topk_calibration("a", "b"), *[pair("ece", 0.07, 0.08)] * 2).verdict == "holds"
    assert verdict(recipe.topk_calibration("a", "b"), *[pair("ece", 0.09, 0.08)] * 2).verdict == "does not hold"
    claim = recipe.topk_noise_gains_grow(("a", "b"), ("c", "d"))
    seed = pair("accuracy", 0.6, 0.5) | pair("accuracy", 0.8, 0.77, ("c", "d"))
    assert verdict(claim, seed, seed).value == pytest.approx(0.07)
    assert verdict(claim, seed, seed).verdict == "holds"


def test_the_mean_corruption_error_is_judged_against_1():
    claim = recipe.topk_all_corruptions("s", "a", "b")
    better = {"s": [case("mce", 0.9, "a"), case("mce", 1.0, "b")]}
    assert verdict(claim, better, better).verdict == "holds"
    assert verdict(claim, better).verdict == "cannot tell"
