"""Claims on the time of a decoded token and on skipping inactive neurons."""

import pytest

from lazyneuron.paper.latency import recipe
from tests.paper.records import case, verdict

LARGER = recipe.larger_gains_more("s", "small", "base", 128)
SMALLER_K = recipe.smaller_k_gains_more("s", "base", 32, 512)


def speeds(**by_size):
    return [case("speedup", value, size, x=float(k)) for size, found in by_size.items() for k, value in found.items()]


BAD_FLOPS = [case("skip_flops_share", 0.3, "t5"), case("density", 0.25, "t5")]
GOOD_FLOPS = [case("skip_flops_share", 0.25, "t5"), case("density", 0.25, "t5")]
ROUNDED = [case("skip_error", value, "t5") for value in (0.01, 1)]
BROKEN = [case("skip_error", value, "t5") for value in (0.9, 40)]
JUDGED = [
    (recipe.skipping_changes_nothing("s"), ROUNDED, "holds", 1),
    (recipe.skipping_changes_nothing("s"), BROKEN, "does not hold", 40),
    (recipe.flops_are_density("s"), GOOD_FLOPS, "holds", 0),
    (recipe.flops_are_density("s"), BAD_FLOPS, "does not hold", 0.05),
    (recipe.decoding_gains("s", "base", 128), speeds(base={128: 1.3}), "holds", 1.3),
    (recipe.decoding_gains("s", "base", 128), speeds(base={128: 0.9}), "does not hold", 0.9),
    (SMALLER_K, speeds(base={32: 1.8}), "cannot tell", None),
]


@pytest.mark.parametrize(("claim", "records", "expected", "value"), JUDGED)
def test_a_claim_is_judged_by_the_records(claim, records, expected, value):
    found = verdict(claim, {"s": records})
    assert (found.verdict, found.value) == (expected, None if value is None else pytest.approx(value))
    assert verdict(claim, {"s": []}).verdict == "cannot tell"


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
    assert verdict(recipe.flops_are_density("s"), {"s": records}).verdict == "holds"
