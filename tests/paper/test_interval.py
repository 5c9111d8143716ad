"""Intervals of a mean: deterministic, right on known samples; what so many seeds detect is what simulation says."""

import numpy as np
import pytest

from lazyneuron.paper.interval import detectable, mean_interval, seeds_for, student_interval


def test_three_values_give_their_range():
    assert mean_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_equal_values_give_a_point():
    assert mean_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


def test_the_same_values_give_the_same_interval_and_leave_the_generator_alone():
    values = np.random.default_rng(0).normal(size=20).tolist()
    before = np.random.get_state()[1].tolist()
    assert mean_interval(values) == mean_interval(values)
    assert np.random.get_state()[1].tolist() == before


def test_many_values_come_near_the_normal_interval():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = mean_interval(values.tolist())
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_it_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = sum(low <= 0 <= high for low, high in (mean_interval(rng.normal(size=25).tolist()) for _ in range(200)))
    assert 0.87 <= hits / 200 <= 0.99


def test_students_interval_of_three_values_is_known():
    low, high = student_interval([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 2.4841, abs=1e-4), pytest.approx(2 + 2.4841, abs=1e-4))
    rng = np.random.default_rng(3)
    hits = sum(low <= 0 <= high for low, high in (student_interval(rng.normal(size=3).tolist()) for _ in range(400)))
    assert 0.92 <= hits / 400 <= 0.98


def test_students_interval_of_equal_values_is_a_point_of_exactly_that_value():
    assert student_interval([0.1, 0.1, 0.1]) == (0.1, 0.1)


def test_what_is_detectable_is_known_for_few_seeds():
    assert detectable(1, 2) == pytest.approx((12.7062 + 1.3764) / 2**0.5, rel=1e-4)
    assert detectable(2, 4) == pytest.approx(3.1824 + 0.9785, rel=1e-4)


@pytest.mark.parametrize("num_seeds", [5, 10])
def test_a_detectable_mean_is_detected_about_four_times_in_five(num_seeds):
    rng, mean = np.random.default_rng(4), detectable(1, num_seeds)
    hits = sum(student_interval(rng.normal(mean, 1, num_seeds).tolist())[0] > 0 for _ in range(600))
    assert 0.74 <= hits / 600 <= 0.87


@pytest.mark.parametrize(("effect", "deviation"), [(2.69, 0.85), (5.45, 7.5), (0.5, 0.84), (1, 1e-9)])
def test_the_seeds_for_an_effect_are_the_fewest_that_detect_it(effect, deviation):
    needed = seeds_for(effect, deviation)
    assert detectable(deviation, needed) <= effect
    assert needed == 2 or detectable(deviation, needed - 1) > effect
    assert seeds_for(effect, deviation) == {2.69: 3, 5.45: 17, 0.5: 25, 1: 2}[effect]


def test_seeds_that_detect_nothing_are_refused():
    with pytest.raises(ValueError, match="effect of 0"):
        seeds_for(0, 1)
