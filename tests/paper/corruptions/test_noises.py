"""Each noise has the distribution that it names, at both sets of constants."""

import numpy as np
import pytest

from lazyneuron.paper.corruptions.noises import gaussian_noise, impulse_noise, shot_noise
from tests.paper.corruptions.pictures import flat, generators


@pytest.mark.parametrize(
    ("side", "constants"), [(32, (0.04, 0.06, 0.08, 0.09, 0.10)), (224, (0.08, 0.12, 0.18, 0.26, 0.38))]
)
def test_gaussian_noise_has_its_standard_deviation_and_no_bias(side, constants):
    pixels = flat(128, 60000 // side**2 + 1, 3, side, side)
    for severity, c in enumerate(constants, 1):
        noise = gaussian_noise(pixels, generators(len(pixels)), severity) - 128 / 255
        assert noise.std() == pytest.approx(c, rel=0.01)
        assert abs(noise.mean()) < 4 * c / noise.size**0.5
        assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(("side", "constants"), [(32, (500, 250, 100, 75, 50)), (224, (60, 25, 12, 5, 3))])
def test_shot_noise_counts_poisson_photons(side, constants):
    pixels = flat(102, 60000 // side**2 + 1, 3, side, side)
    for severity, c in enumerate(constants, 1):
        photons = shot_noise(pixels, generators(len(pixels)), severity).astype(np.float64) * c
        np.testing.assert_allclose(photons, photons.round(), atol=1e-4)
        assert photons.mean() == pytest.approx(0.4 * c, rel=0.01)
        assert photons.var() == pytest.approx(0.4 * c, rel=0.03)


def test_shot_noise_leaves_black_alone():
    assert not shot_noise(flat(0, 2, 1, 32, 32), generators(2), 5).any()


@pytest.mark.parametrize(
    ("side", "constants"), [(32, (0.01, 0.02, 0.03, 0.05, 0.07)), (224, (0.03, 0.06, 0.09, 0.17, 0.27))]
)
def test_impulse_noise_hits_its_share_half_salt_half_pepper(side, constants):
    pixels = flat(128, 60000 // side**2 + 1, 3, side, side)
    for severity, c in enumerate(constants, 1):
        values = impulse_noise(pixels, generators(len(pixels)), severity)
        tolerance = 4 * (c / values.size) ** 0.5
        assert (values == 1).mean() == pytest.approx(c / 2, abs=tolerance)
        assert (values == 0).mean() == pytest.approx(c / 2, abs=tolerance)
        assert np.isin(values, np.float32([0, 1, 128 / 255])).all()
