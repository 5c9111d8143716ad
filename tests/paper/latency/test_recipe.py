"""Claims on the time of a decoded token and on skipping inactive neurons."""

import math

import numpy as np
import pytest

from lazyneuron.paper.latency import recipe
from tests.paper.records import case, verdict

LARGER = recipe.larger_gains_more("s", "small", "base", 128)
SMALLER_K = recipe.smaller_k_gains_more("s", "base", 32, 512)


def speeds(size, k, ratios, threads=None):
    """Speed-ups by round; over dense on our threads they are greater if nothing else is given."""
    found = [case("speedup", value, size, x=float(k), step=number) for number, value in enumerate(ratios)]
    threads = threads or [2 * value for value in ratios]
    return found + [case("speedup_threads", v, size, x=float(k), step=number) for number, v in enumerate(threads)]


FASTER, SLOWER, NOISY = [1.31, 1.3, 1.29] * 3, [0.91, 0.9, 0.89] * 3, [1.4, 1.3, 0.9] * 3
BAD_FLOPS = [case("skip_flops_share", 0.3, "t5"), case("density", 0.25, "t5")]
GOOD_FLOPS = [case("skip_flops_share", 0.25, "t5"), case("density", 0.25, "t5")]
ROUNDED = [case("skip_error", value, "t5") for value in (0.01, 1)]
BROKEN = [case("skip_error", value, "t5") for value in (0.9, 40)]
JUDGED = [
    (recipe.skipping_changes_nothing("s"), ROUNDED, "holds", 1),
    (recipe.skipping_changes_nothing("s"), BROKEN, "does not hold", 40),
    (recipe.flops_are_density("s"), GOOD_FLOPS, "holds", 0),
    (recipe.flops_are_density("s"), BAD_FLOPS, "does not hold", 0.05),
    (recipe.decoding_gains("s", "base", 128), speeds("base", 128, FASTER), "holds", 1.3),
    (recipe.decoding_gains("s", "base", 128), speeds("base", 128, SLOWER), "does not hold", 0.9),
    (recipe.decoding_gains("s", "base", 128), speeds("base", 128, NOISY), "cannot tell", 1.3),
    (recipe.decoding_gains("s", "base", 128), speeds("base", 128, FASTER[:5]), "cannot tell", 1.3),
    (recipe.decoding_gains("s", "base", 128), speeds("base", 128, FASTER, threads=SLOWER), "does not hold", 0.9),
    (recipe.decoding_gains("s", "base", 128), speeds("base", 32, FASTER), "cannot tell", None),
    (recipe.decoding_gains("s", "base", 128), speeds("small", 128, FASTER), "cannot tell", None),
    (LARGER, speeds("small", 128, SLOWER) + speeds("base", 128, FASTER), "holds", 1.3 / 0.9),
    (LARGER, speeds("small", 128, FASTER) + speeds("base", 128, SLOWER), "does not hold", 0.9 / 1.3),
    (SMALLER_K, speeds("base", 32, FASTER) + speeds("base", 512, SLOWER), "holds", 1.3 / 0.9),
    (SMALLER_K, speeds("base", 32, SLOWER) + speeds("base", 512, FASTER), "does not hold", 0.9 / 1.3),
    (SMALLER_K, speeds("base", 32, FASTER), "cannot tell", None),
]


@pytest.mark.parametrize(("claim", "records", "expected", "value"), JUDGED)
def test_a_claim_is_judged_by_the_records(claim, records, expected, value):
    found = verdict(claim, {"s": records})
    assert (found.verdict, found.value) == (expected, None if value is None else pytest.approx(value))
    assert verdict(claim, {"s": []}).verdict == "cannot tell"


def test_one_slow_round_of_nine_does_not_decide_and_two_do():
    """The interval leaves out one round at either end of nine, and none of six."""
    assert recipe.above_one([1.2] * 8 + [0.5]).verdict == "holds"
    assert recipe.above_one([1.2] * 7 + [0.5] * 2).verdict == "cannot tell"
    assert recipe.above_one([0.8] * 8 + [1.5]).verdict == "does not hold"
    assert recipe.above_one([1.2] * 6).verdict == "holds"
    assert recipe.above_one([1.2] * 5 + [0.5]).verdict == "cannot tell"
    assert recipe.above_one([1.2] * 5).verdict == "cannot tell"
    assert recipe.above_one([1.0] * 9).verdict == "does not hold"
    assert recipe.above_one([]) is None


def test_the_interval_covers_the_median_nineteen_times_in_twenty():
    """Over draws from a skewed distribution whose median is 1, it is wrong on either side together at most 5 %."""
    draws = np.random.default_rng(0).exponential(1 / math.log(2), (4000, 9))
    wrong = sum(recipe.above_one(list(row)).verdict != "cannot tell" for row in draws)
    assert 0.02 < wrong / len(draws) < 0.05


def test_ratios_pair_rounds():
    """In each round the larger model gains more, although the machine slows down by a factor of two."""
    small, base = [2.0, 1.8, 1.6, 1.4, 1.2, 1.0], [2.1, 1.9, 1.7, 1.5, 1.3, 1.1]
    assert verdict(LARGER, {"s": speeds("small", 128, small) + speeds("base", 128, base)}).verdict == "holds"


def test_a_layer_without_an_active_neuron_is_no_division_by_zero():
    records = [case("skip_flops_share", 0, "t5"), case("density", 0, "t5")]
    assert verdict(recipe.flops_are_density("s"), {"s": records}).verdict == "holds"
