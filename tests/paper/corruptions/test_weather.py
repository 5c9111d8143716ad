"""What holds exactly of snow, frost, fog and brightness."""

import colorsys

import numpy as np
import pytest

from lazyneuron.paper.corruptions.weather import _needles, _plasma, brightness, fog, frost, snow
from tests.paper.corruptions.pictures import flat, generators, natural_images


@pytest.mark.parametrize("side", [8, 32, 100])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_snow_on_flat_ground_is_the_same_after_half_a_turn(side, severity):
    snowed = snow(flat(0, 3, 1, side, side + 6), generators(3), severity)
    np.testing.assert_allclose(snowed, snowed[..., ::-1, ::-1], atol=1e-6)
    assert (snowed >= 0).all()


def test_snow_only_brightens():
    image = natural_images(4, 3, 32, 32)
    assert (snow(image, generators(4), 3) >= image / 255 - 1e-6).all()


def test_frost_dims_and_adds_ice():
    image = natural_images(4, 1, 32, 32)
    ice = frost(flat(0, 4, 1, 32, 32), generators(4), 5)
    np.testing.assert_allclose(frost(image, generators(4), 5), 0.75 * image / 255 + ice, atol=1e-6)
    assert 0 <= ice.min() < ice.max() <= 0.45


@pytest.mark.parametrize("side", [8, 32, 224])
def test_ice_is_about_as_bright_and_varied_as_the_photographs(side):
    ice = _needles((side, side), generators(30))
    assert ice.mean() == pytest.approx(0.625, abs=0.05)
    assert 0.08 < ice.std((1, 2)).mean() < 0.16


@pytest.mark.parametrize(("count", "side"), [(40, 32), (6, 224)])
def test_frost_hides_more_of_the_image_with_severity(count, side):
    image = natural_images(count, 3, side, side)

    def hidden(severity: int) -> float:
        frosted = frost(image, generators(count), severity).clip(0, 1)
        pairs = zip(image, frosted, strict=True)
        return float(np.mean([1 - np.corrcoef(before.ravel(), after.ravel())[0, 1] for before, after in pairs]))

    levels = [hidden(severity) for severity in range(1, 6)]
    assert levels == sorted(levels)
    assert levels[-1] > 3 * levels[0]


def test_frost_is_bluish_on_colour():
    red, green, blue = frost(flat(0, 1, 3, 40, 40), generators(1), 5)[0].mean((1, 2))
    assert red < green < blue


def test_fog_keeps_the_brightest_value_as_its_scale():
    image = natural_images(3, 3, 33, 70) // 2
    fogged = fog(image, generators(3), 2)
    brightest = image.max((1, 2, 3)) / 255
    assert (fogged.max((1, 2, 3)) <= brightest + 1e-6).all()
    haze = fogged / (brightest / (brightest + 0.5))[:, None, None, None] - image / 255
    assert 0 <= haze.min() + 1e-6
    np.testing.assert_allclose(haze, np.repeat(haze[:, :1], 3, 1), atol=1e-5)


def test_plasma_fills_the_unit_interval_and_is_rougher_for_a_slower_decay():
    wobble = np.stack([rng.uniform(-1, 1, (64, 64)).astype(np.float32) for rng in generators(20)])
    smooth, rough = _plasma(wobble, 3.0), _plasma(wobble, 1.4)
    for plasma in (smooth, rough):
        assert (plasma.min((1, 2)) == 0).all()
        assert (plasma.max((1, 2)) == 1).all()
    assert abs(np.diff(smooth)).mean() < 0.5 * abs(np.diff(rough)).mean()


def test_plasma_places_each_point_between_its_neighbours():
    wobble = np.zeros((1, 8, 8), dtype=np.float32)
    wobble[0, 4, 4] = 1
    plasma = _plasma(wobble, 2.0)[0]
    assert (plasma[4, 4], plasma[0, 0]) == (1, 0)
    assert plasma[0, 4] == plasma[4, 0] == 0.5
    assert plasma[2, 2] == (plasma[0, 0] + plasma[0, 4] + plasma[4, 0] + plasma[4, 4]) / 4


def test_plasma_spreads_to_the_four_around_it():
    wobble = np.zeros((1, 16, 16), dtype=np.float32)
    wobble[0, 2, 2] = 1
    plasma = _plasma(wobble, 2.0)[0]
    assert plasma[2, 2] == 1
    assert {tuple(place) for place in np.argwhere(plasma[::2, ::2] == 0.25) * 2} == {(0, 2), (2, 0), (2, 4), (4, 2)}
    assert np.count_nonzero(plasma[::2, ::2]) == 5


@pytest.mark.parametrize(("side", "constants"), [(32, (0.05, 0.1, 0.15, 0.2, 0.3)), (70, (0.1, 0.2, 0.3, 0.4, 0.5))])
@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_adds_to_grey(side, constants, channels):
    grey = np.repeat(natural_images(2, 1, side, side), channels, 1)
    grey[..., 0] = 0
    for severity, c in enumerate(constants, 1):
        np.testing.assert_allclose(brightness(grey, [], severity), np.minimum(grey / 255 + c, 1), atol=1e-6)


def test_brightness_raises_value_and_keeps_hue_and_saturation():
    image = natural_images(1, 3, 9, 9)
    for before, after in zip(
        image[0].reshape(3, -1).T / 255, brightness(image, [], 4)[0].reshape(3, -1).T, strict=True
    ):
        h, s, v = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb(h, s, min(v + 0.2, 1)), atol=1e-5)
