"""Each blur against the loop that says what it does."""

import numpy as np
import pytest
from scipy import ndimage

from lazyneuron.paper.corruptions.blurs import (
    _origins,
    defocus_blur,
    glass_blur,
    magnify,
    motion_blur,
    smear,
    zoom_blur,
)
from tests.paper.corruptions.pictures import flat, generators, natural_images

BLURS = (defocus_blur, glass_blur, motion_blur, zoom_blur)


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("side", [9, 32, 100])
def test_a_flat_image_stays_flat(blur, side):
    for severity in range(1, 6):
        blurred = blur(flat(77, 2, 3, side, side + 5), generators(2), severity)
        np.testing.assert_allclose(blurred * 255, 77, rtol=1e-5)


@pytest.mark.parametrize(
    ("side", "severity", "radius", "edge"), [(32, 5, 1.5, 0.1), (32, 3, 0.5, 0.6), (224, 2, 4, 0.5)]
)
def test_defocus_blur_is_a_convolution_with_a_smoothed_disc(side, severity, radius, edge):
    image = natural_images(1, 1, side, side)
    y, x = np.mgrid[-6:7, -6:7]
    disc = (y**2 + x**2 <= radius**2).astype(float)
    taps = np.exp(-0.5 * (np.arange(-1, 2) / edge) ** 2)
    kernel = ndimage.convolve(disc / disc.sum(), np.outer(taps, taps) / taps.sum() ** 2, mode="constant")
    expected = ndimage.convolve(image[0, 0] / 255, kernel, mode="mirror")
    np.testing.assert_allclose(defocus_blur(image, [], severity)[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize(("size", "reach"), [((9, 12), 1), ((20, 17), 3)])
def test_pixels_are_copied_one_after_the_other(size, reach):
    rng = np.random.default_rng(0)
    inner = [side - 2 * reach for side in size]
    dy, dx = rng.integers(-reach, reach, (2, 4, *inner), dtype=np.int8)
    origins = _origins(dy, dx, size, reach)
    for i in range(4):
        place = np.arange(size[0] * size[1]).reshape(size)
        for row in range(size[0] - reach, reach, -1):
            for column in range(size[1] - reach, reach, -1):
                at = (row - reach - 1, column - reach - 1)
                place[row, column] = place[row + dy[i][at], column + dx[i][at]]
        assert origins[i].tolist() == place.ravel().tolist()


def test_glass_without_blur_moves_pixels_by_little():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8), (3, 1, 32, 32))
    glass = (glass_blur(ramp, generators(3), 1) * 255).round()
    moved = abs(glass - ramp)
    assert set(np.unique(glass)) <= set(range(32))
    assert 0.3 < (moved > 0).mean() < 0.8
    assert moved.mean() < 2


def test_smear_is_a_mean_to_one_side():
    point = np.zeros((1, 1, 9, 15), dtype=np.float32)
    point[..., 4, 9] = 1
    weights = np.exp(-0.5 * (np.arange(7) / 2) ** 2)
    expected = np.zeros((9, 15))
    expected[4, 3:10] = (weights / weights.sum())[::-1]
    np.testing.assert_allclose(smear(point, 3, 2, [0.0])[0, 0], expected, atol=1e-6)
    diagonal = smear(point, 2, 5, [45.0])[0, 0]
    assert [tuple(p) for p in np.argwhere(diagonal)] == [(1, 6), (2, 7), (3, 8), (4, 9)]
    assert diagonal[3, 8] > diagonal[4, 9] * 0.9, "two steps of 45 degrees that round to one pixel add up"


def test_smear_spares_what_runs_along():
    x = np.zeros((1, 1, 64, 64), dtype=np.float32)
    x[..., ::8, :] = 1
    np.testing.assert_allclose(smear(x, 9, 3, [0.0]), x, atol=1e-6)
    assert smear(x, 9, 3, [90.0]).std() < 0.7 * x.std()


def test_motion_blur_draws_an_angle_within_45_degrees():
    point = np.zeros((50, 1, 65, 65), dtype=np.uint8)
    point[..., 32, 32] = 255
    y, x = (motion_blur(point, generators(50), 5)[:, 0] > 0).nonzero()[1:]
    assert x.min() == 32 - 2 * 6
    assert (abs(y - 32) <= 32 - x).all()
    assert y.min() < 26
    assert y.max() > 38


def test_magnify_keeps_the_centre_and_stretches_about_it():
    ramp = np.broadcast_to(np.arange(21, dtype=np.float32), (1, 1, 15, 21))
    assert np.array_equal(magnify(ramp, 1.0, (15, 21)), ramp)
    for zoom in (1.13, 2.0, 4.5):
        np.testing.assert_allclose(magnify(ramp, zoom, (15, 21))[0, 0, 3], 10 + (np.arange(21) - 10) / zoom, rtol=1e-5)


def test_zoom_blur_is_a_mean_over_magnifications():
    image = natural_images(1, 3, 40, 32)
    x = image / np.float32(255)
    layers = [magnify(x, z, (40, 32)) for z in 1 + 0.01 * np.arange(26)]
    np.testing.assert_allclose(zoom_blur(image, [], 5), np.mean([x, *layers], axis=0), atol=1e-6)
    blurred = abs(zoom_blur(image, [], 5) - x)[0].mean(0)
    assert blurred[15:25, 11:21].mean() < 0.7 * blurred.mean(), "the centre of the zoom is sharpest"
