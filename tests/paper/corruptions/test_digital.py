"""Contrast and elastic deformation by what they keep; pixelation and JPEG are Pillow's."""

import io

import numpy as np
import pytest
from PIL import Image

from lazyneuron.paper.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate
from tests.paper.corruptions.pictures import flat, generators, natural_images


@pytest.mark.parametrize(("side", "constants"), [(32, (0.75, 0.5, 0.4, 0.3, 0.15)), (70, (0.4, 0.3, 0.2, 0.1, 0.05))])
def test_contrast_shrinks_about_the_mean_of_each_channel(side, constants):
    image = natural_images(2, 3, side, side)
    mean = image.mean((2, 3), keepdims=True) / 255
    for severity, c in enumerate(constants, 1):
        np.testing.assert_allclose(contrast(image, [], severity) - mean, c * (image / 255 - mean), atol=1e-6)


def test_a_flat_image_has_nothing_to_deform():
    for severity in range(1, 6):
        np.testing.assert_allclose(
            elastic_transform(flat(90, 1, 3, 24, 30), generators(1), severity) * 255, 90, rtol=1e-5
        )


def test_the_mildest_deformation_of_a_small_image_is_affine():
    ramp = np.broadcast_to(np.arange(0, 128, 4, dtype=np.uint8), (5, 1, 32, 32))
    moved = elastic_transform(ramp, generators(5), 1)[..., 8:24, 8:24]
    for axis in (-2, -1):
        np.testing.assert_allclose(np.diff(moved, 2, axis=axis), 0, atol=1e-5)
    assert moved.std(0).mean() > 0.01, "each image has its own map"


@pytest.mark.parametrize(("side", "move"), [(32, 0.08 * 32), (16, 0.08 * 16), (224, 0.1 * 244)])
def test_three_points_moved_alike_move_the_image(side, move):
    class Largest:
        """A generator whose uniform draws are the upper end, and whose field has no displacement."""

        def uniform(self, low, high, shape):
            assert low == -high
            return np.full(shape, high)

        def random(self, shape, dtype):
            return np.full(shape, 0.5, dtype)

    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8), (1, 1, side, side))
    inside = slice(int(move) + 1, side - 1)
    moved = elastic_transform(ramp, [Largest()], 1)[0, 0, inside, inside] * 255
    np.testing.assert_allclose(moved, ramp[0, 0, inside, inside] - move, atol=1e-3)


@pytest.mark.parametrize("side", [32, 224])
def test_deformation_bends_more_with_severity(side):
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8), (6, 1, side, side))

    def bending(severity: int) -> float:
        moved = elastic_transform(ramp, generators(6), severity) * 255
        return float(np.median(abs(np.diff(moved, 2, axis=-2))))

    bends = [bending(severity) for severity in range(1, 6)]
    assert bends == sorted(bends)
    assert bends[4] > max(0.1, 2 * bends[1])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "shares"), [((28, 32), (0.95, 0.9, 0.85, 0.75, 0.65)), ((70, 90), (0.6, 0.5, 0.4, 0.3, 0.25))]
)
def test_pixelate_is_a_box_filter_down_and_up(channels, size, shares):
    image = natural_images(1, channels, *size)
    picture = Image.fromarray(image[0].transpose(1, 2, 0).squeeze())
    for severity, share in enumerate(shares, 1):
        small = picture.resize((int(size[1] * share), int(size[0] * share)), Image.Resampling.BOX)
        expected = np.atleast_3d(np.asarray(small.resize(size[::-1], Image.Resampling.BOX))).transpose(2, 0, 1)
        assert np.array_equal(pixelate(image, [], severity)[0], expected)


def test_pixelate_by_halves_is_the_mean_of_two_by_two():
    image = natural_images(1, 1, 80, 80)
    blocks = image.reshape(40, 2, 40, 2).mean((1, 3))
    pixelated = pixelate(image, [], 2)[0, 0]
    assert abs(pixelated - np.kron(blocks, np.ones((2, 2)))).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "qualities"), [(28, (80, 65, 58, 50, 40)), (70, (25, 18, 15, 10, 7))])
def test_jpeg_is_pillows_at_that_quality(channels, side, qualities):
    image = natural_images(1, channels, side, side)
    picture = Image.fromarray(image[0].transpose(1, 2, 0).squeeze())
    for severity, quality in enumerate(qualities, 1):
        picture.save(file := io.BytesIO(), "JPEG", quality=quality)
        expected = np.atleast_3d(np.asarray(Image.open(file))).transpose(2, 0, 1)
        assert np.array_equal(jpeg_compression(image, [], severity)[0], expected)
