"""Claims on what studies recorded."""

import pytest

from lazyneuron.paper.claims import studies as claims
from lazyneuron.paper.claims import timing
from tests.paper.claims.records import at_the_end, case, verdict

LARGER = timing.larger_gains_more("s", "small", "base", 128)
SMALLER_K = timing.smaller_k_gains_more("s", "base", 32, 512)
REAL_MAPS = timing.statistical_on_real_maps("s", "t5")
FIRST = {"stack": "encoder", "layer": 0, "num_tokens": 400_000}
SECOND = {"stack": "encoder", "layer": 1, "num_tokens": 400_000}


def first(what, value, **more):
    return [case(what, value, "", **FIRST, **more)]


def cases(what, name, *points):
    return [case(what, value, name, x=x) for x, value in points]


def corrupted(topk, dense, corruption="shot_noise"):
    return [
        *(case("accuracy", topk + s / 100, f"a {corruption}", x=float(s)) for s in (1, 2)),
        *(case("accuracy", dense + s / 100, f"b {corruption}", x=float(s)) for s in (1, 2)),
    ]


def speeds(**by_size):
    return [case("speedup", value, size, x=float(k)) for size, found in by_size.items() for k, value in found.items()]


BAD_FLOPS = [case("skip_flops_share", 0.3, "t5"), case("density", 0.25, "t5")]
GOOD_FLOPS = [case("skip_flops_share", 0.25, "t5"), case("density", 0.25, "t5")]
JUDGED = [
    (claims.no_neuron_dead("s"), [*first("never_fired", 0), case("never_fired", 5, "", **SECOND)], "holds", 0),
    (claims.no_neuron_dead("s"), first("never_fired", 1), "does not hold", 1),
    (claims.most_fire_seldom("s"), first("fires_below", 0.95, x=0.1), "holds", 0.95),
    (claims.most_fire_seldom("s"), first("fires_below", 0.5, x=0.1), "does not hold", 0.5),
    (claims.most_fire_seldom("s"), first("fires_below", 0.5, x=0.01), "cannot tell", None),
    (claims.skipping_changes_nothing("s"), cases("skip_error", "t5", (0, 0.01), (0, 1)), "holds", 1),
    (claims.skipping_changes_nothing("s"), cases("skip_error", "t5", (0, 0.9), (0, 40)), "does not hold", 40),
    (claims.flops_are_density("s"), GOOD_FLOPS, "holds", 0),
    (claims.flops_are_density("s"), BAD_FLOPS, "does not hold", 0.05),
    (timing.decoding_gains("s", "base", 128), speeds(base={128: 1.3}), "holds", 1.3),
    (timing.decoding_gains("s", "base", 128), speeds(base={128: 0.9}), "does not hold", 0.9),
    (SMALLER_K, speeds(base={32: 1.8}), "cannot tell", None),
    (timing.keeps_about_k("s"), cases("kept_ratio", "gaussian", (0.1, 1.01), (0.2, 0.97)), "holds", 0.03),
    (timing.keeps_about_k("s"), cases("kept_ratio", "gaussian", (0.1, 1.2)), "does not hold", 0.2),
    (timing.statistical_is_linear("s"), cases("statistical_ms", "", (1e3, 2e3), (1e4, 2e4)), "holds", 1.0),
    (timing.statistical_is_linear("s"), cases("statistical_ms", "", (1e3, 1e6), (1e4, 1e8)), "does not hold", 2.0),
    (timing.statistical_is_linear("s"), cases("statistical_ms", "", (1e3, 2e3)), "cannot tell", None),
    (REAL_MAPS, cases("kept_ratio", "t5", (0.1, 0.8), (0.2, 1.5)), "holds", 1.5),
    (REAL_MAPS, cases("kept_ratio", "t5", (0.1, 0.1), (0.2, 1.9)), "does not hold", 0.1),
    (REAL_MAPS, cases("kept_ratio", "t5", (0.1, 0.1)), "does not hold", 0.1),
]


@pytest.mark.parametrize(("claim", "records", "expected", "value"), JUDGED)
def test_a_study_is_judged_by_its_records(claim, records, expected, value):
    found = verdict(claim, {"s": records})
    assert (found.verdict, found.value) == (expected, None if value is None else pytest.approx(value))
    assert verdict(claim, {"s": []}).verdict == "cannot tell"


@pytest.mark.parametrize(("gain", "expected"), [(0.02, "holds"), (-0.02, "does not hold"), (0.0, "cannot tell")])
def test_input_noise_compares_means_over_severities(gain, expected):
    claim = claims.topk_input_noise("s", "a", "b", "shot_noise", "")
    noise = [0.001, -0.001] if not gain else [0.001, 0.0012]
    found = verdict(claim, *({"s": corrupted(0.5 + gain + n, 0.5)} for n in noise))
    assert found.verdict == expected
    assert found.values == [pytest.approx(gain + n) for n in noise]
    assert verdict(claim, {"s": corrupted(0.6, 0.5, "snow")}).value is None


def pair(what, a, b, names=("a", "b")):
    return {names[0]: [at_the_end(what, a)], names[1]: [at_the_end(what, b)]}


def test_table_1_compares_quality_by_seed():
    assert verdict(claims.topk_natural("a", "b"), *[pair("accuracy", 0.8, 0.801)] * 2).verdict == "holds"
    assert verdict(claims.topk_natural("a", "b"), *[pair("accuracy", 0.8, 0.9)] * 2).verdict == "does not hold"
    seeds = [pair("accuracy", 0.8 + d, 0.8) for d in (0.004, -0.004, 0.001)]
    assert verdict(claims.topk_natural("a", "b"), *seeds).verdict == "cannot tell"
    assert verdict(claims.topk_label_noise("a", "b", 40, ""), *[pair("accuracy", 0.8, 0.7)] * 2).verdict == "holds"
    assert verdict(claims.topk_calibration("a", "b"), *[pair("ece", 0.07, 0.08)] * 2).verdict == "holds"
    assert verdict(claims.topk_calibration("a", "b"), *[pair("ece", 0.09, 0.08)] * 2).verdict == "does not hold"
    claim = claims.topk_noise_gains_grow(("a", "b"), ("c", "d"))
    seed = pair("accuracy", 0.6, 0.5) | pair("accuracy", 0.8, 0.77, ("c", "d"))
    assert verdict(claim, seed, seed).value == pytest.approx(0.07)
    assert verdict(claim, seed, seed).verdict == "holds"


def test_the_mean_corruption_error_is_judged_against_1():
    claim = claims.topk_all_corruptions("s", "a", "b")
    better = {"s": [case("mce", 0.9, "a"), case("mce", 1.0, "b")]}
    assert verdict(claim, better, better).verdict == "holds"
    assert verdict(claim, better).verdict == "cannot tell"


@pytest.mark.parametrize(
    ("claim", "records", "expected"),
    [
        (LARGER, speeds(small={128: 1.2}, base={128: 1.8}), "holds"),
        (LARGER, speeds(small={128: 2}, base={128: 1}), "does not hold"),
        (SMALLER_K, speeds(base={32: 1.8, 512: 1.2}), "holds"),
        (SMALLER_K, speeds(base={32: 1.1, 512: 1.2}), "does not hold"),
    ],
)
def test_ratios_of_two_speedups_need_more_than_one_seed(claim, records, expected):
    assert verdict(claim, {"s": records}).verdict == "cannot tell"
    assert verdict(claim, {"s": records}, {"s": records}).verdict == expected


def test_a_layer_without_an_active_neuron_is_no_division_by_zero():
    records = [case("skip_flops_share", 0, "t5"), case("density", 0, "t5")]
    assert verdict(claims.flops_are_density("s"), {"s": records}).verdict == "holds"
