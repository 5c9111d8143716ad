"""The power law of densities is found from its own values, and what it is fitted to and checked on is kept apart."""

import pytest

from lazyneuron.paper.long_run.power_law import (
    ALL,
    NOT_FIRST,
    Extrapolation,
    PowerLaw,
    extrapolate,
    fit,
    mean_densities,
)
from lazyneuron.paper.runs import probe_steps
from tests.paper.records import density

STEPS = [step for step in probe_steps(100_000, 120) if step]


@pytest.mark.parametrize(
    ("floor", "c", "alpha"), [(0.03, 1.5, 0.3), (0.0, 2.0, 0.2), (0.1, 5.0, 0.7), (0.004, 0.4, 1.5)]
)
def test_the_law_is_found_from_its_values(floor, c, alpha):
    law = PowerLaw(floor=floor, c=c, alpha=alpha)
    found = fit({step: law.at(step) for step in STEPS if step >= 1000})
    assert (found.alpha, found.c) == (pytest.approx(alpha, rel=1e-3), pytest.approx(c, rel=1e-2))
    assert found.floor == pytest.approx(floor, abs=1e-5)


def test_what_is_predicted_is_not_fitted():
    law = PowerLaw(floor=0.03, c=1.5, alpha=0.3)
    densities = {0: 0.5} | {step: law.at(step) for step in STEPS}
    early = {step: 0.5 if step < 1000 else value for step, value in densities.items()}
    late = {step: 0.9 if step > 66_667 else value for step, value in densities.items()}
    for changed in (early, late):
        found = extrapolate(changed)
        assert found is not None
        assert found.law.alpha == pytest.approx(0.3, rel=1e-3)
        assert (min(found.fitted), max(found.fitted)) == (min(s for s in STEPS if s >= 1000), max(_two_thirds()))
        assert list(found.checked) == [step for step in STEPS if step > 66_667]
        assert found.error_fitted < 1e-6


def _two_thirds():
    return [step for step in STEPS if step <= 66_667]


def test_errors_are_relative_and_the_largest_counts():
    found = Extrapolation(
        law=PowerLaw(floor=0.1, c=1.0, alpha=1.0), fitted={10: 0.25, 20: 0.15}, checked={100: 0.1, 50: 0.125}
    )
    assert found.error_fitted == pytest.approx(0.2)
    assert found.error == pytest.approx(0.1)
    assert found.error_unchanged == pytest.approx(0.5)


def test_a_density_of_zero_is_not_fitted_and_never_predicted():
    densities = {step: 0.5 for step in STEPS}
    found = extrapolate(densities | {STEPS[-10]: 0.0, STEPS[-1]: 0.0})
    assert found is not None
    assert STEPS[-10] not in found.fitted
    assert found.error == float("inf")


@pytest.mark.parametrize(
    ("steps", "is_fitted"),
    [
        ([0, 10, 20, 30, 40, 50, 100], True),
        ([0, 20, 30, 40, 50, 100], False),
        ([0, 10, 20, 30, 40, 50], False),
        ([0], False),
        ([], False),
    ],
)
def test_without_five_probes_to_fit_there_is_no_law(steps, is_fitted):
    assert (extrapolate({step: 0.5 / (1 + step) for step in steps}) is not None) == is_fitted


def test_densities_are_means_over_layers_with_the_first_of_the_encoder_or_without_it():
    records = density(0, [0.5, 0.4], stack="encoder") + density(0, [0.3], stack="decoder")
    records += density(10, [0.4, 0.2], stack="encoder") + density(10, [0.3], stack="decoder")
    records += density(10, [0.9], stack="encoder", split="train") + density(10, [0.9], what="never_fired")
    assert mean_densities(records, ALL) == {0: pytest.approx(0.4), 10: pytest.approx(0.3)}
    assert mean_densities(records, NOT_FIRST) == {0: pytest.approx(0.35), 10: pytest.approx(0.25)}
