"""The bootstrap interval of a mean: deterministic, within the values, right on known samples."""

import numpy as np
import pytest

from lazyneuron.paper.interval import mean_interval, student_interval


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
