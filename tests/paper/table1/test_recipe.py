"""Claims of Table 1: differences of a Top-k ViT from the dense one, by seed."""

import pytest

from lazyneuron.paper.table1 import recipe
from tests.paper.records import at_the_end, case, verdict


def corrupted(topk, dense, corruption="shot_noise"):
    return [
        *(case("accuracy", topk + s / 100, f"a {corruption}", x=float(s)) for s in (1, 2)),
        *(case("accuracy", dense + s / 100, f"b {corruption}", x=float(s)) for s in (1, 2)),
    ]


@pytest.mark.parametrize(("gain", "expected"), [(0.02, "holds"), (-0.02, "does not hold"), (0.0, "cannot tell")])
def test_input_noise_compares_means_over_severities(gain, expected):
    claim = recipe.topk_input_noise("s", "a", "b", "shot_noise")
    noise = [0.001, -0.001] if not gain else [0.001, 0.0012]
    found = verdict(claim, *({"s": corrupted(0.5 + gain + n, 0.5)} for n in noise))
    assert found.verdict == expected
    assert found.values == [pytest.approx(gain + n) for n in noise]
    assert verdict(claim, {"s": corrupted(0.6, 0.5, "snow")}).value is None


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
