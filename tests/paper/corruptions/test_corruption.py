"""The 15 corruptions at any size: reproducible one image at a time, stronger with severity, clear about mistakes."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from lazyneuron.errors import UsageError
from lazyneuron.paper.corruptions import corruption
from lazyneuron.paper.corruptions.corruption import (
    CORRUPTIONS,
    SEVERITIES,
    corrupt,
    corruption_error,
    mean_corruption_error,
)
from tests.paper.corruptions.pictures import natural_images

COLOURS_APART = {"gaussian_noise", "shot_noise", "impulse_noise", "frost"}
SAME_FOR_ALL = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
# Where the authors' own constants do not put every level above the last: glass blurs away what it moved, fog and motion
# keep one constant and change the other.
NOT_AT_EVERY_LEVEL = {"glass_blur", "motion_blur", "fog"}
# Where they do not go with distance at all, but with something else that a test of its own looks at: elastic_transform
# bends more but moves less, frost hides more but darkens again what it had whitened.
NOT_BY_DISTANCE = {"elastic_transform", "frost"}


def images(count: int, channels: int = 3, height: int = 28, width: int = 28) -> Tensor:
    return torch.from_numpy(natural_images(count, channels, height, width))


def distance(pixels: Tensor, name: str, severity: int) -> float:
    return (corrupt(pixels, name, severity, range(len(pixels))).float() - pixels.float()).square().mean().sqrt().item()


def test_the_names_are_imagenet_cs_in_its_order():
    assert CORRUPTIONS == (
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(8, 8), (8, 31), (28, 28), (50, 20), (65, 66), (90, 140)])
def test_any_size_grey_or_coloured_is_changed_and_keeps_its_shape(name, size):
    for channels in (1, 3):
        pixels = images(2, channels, *size)
        before = pixels.clone()
        corrupted = corrupt(pixels, name, 5, [3, 4])
        assert corrupted.dtype == torch.uint8
        assert corrupted.shape == pixels.shape
        assert corrupted.is_contiguous()
        assert torch.equal(pixels, before)
        assert all(not torch.equal(a, b) for a, b in zip(corrupted, pixels, strict=True))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (32, 29)), (3, (65, 70))])
def test_an_image_is_corrupted_alike_alone_and_in_any_batch(name, channels, size, monkeypatch):
    pixels = images(7, channels, *size)
    together = corrupt(pixels, name, 4, range(7), seed=5)
    order = torch.tensor([6, 2, 0, 5, 1, 4, 3])
    strided = pixels[order].flip(-1).contiguous().flip(-1)
    assert torch.equal(corrupt(strided, name, 4, order.numpy(), seed=5), together[order])
    monkeypatch.setattr(corruption, "_VALUES_AT_ONCE", 2 * pixels[0].numel())
    assert torch.equal(corrupt(pixels, name, 4, range(7), seed=5), together)
    for i in range(7):
        assert torch.equal(corrupt(pixels[i : i + 1], name, 4, [i], seed=5)[0], together[i])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_another_index_or_seed_is_another_draw(name):
    pixels = images(1).expand(2, -1, -1, -1)
    first, second = corrupt(pixels, name, 5, [1, 2])
    reseeded = corrupt(pixels[:1], name, 5, [1], seed=1)[0]
    assert torch.equal(first, second) == torch.equal(first, reseeded) == (name in SAME_FOR_ALL)


def test_seed_index_name_and_severity_each_change_the_draw(monkeypatch):
    draws = []

    def record(pixels, rngs, severity, of):
        draws.extend(rng.random() for rng in rngs)
        return pixels

    monkeypatch.setattr(corruption, "_FUNCTIONS", dict.fromkeys(CORRUPTIONS, record))
    for seed in range(3):
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                corrupt(images(4), name, severity, [0, 1, 7, 10**12], seed)
    assert len(set(draws)) == len(draws) == 3 * 15 * 5 * 4


def test_global_generators_are_left_alone():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    for name in CORRUPTIONS:
        corrupt(images(1), name, 5, [0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in NOT_BY_DISTANCE])
@pytest.mark.parametrize(("count", "side"), [(40, 32), (6, 224)])
def test_distance_grows_with_severity(name, count, side):
    distances = [distance(images(count, 3, side, side), name, severity) for severity in SEVERITIES]
    assert distances[0] > 2
    assert distances[-1] > distances[0]
    assert np.corrcoef(distances, SEVERITIES)[0, 1] > 0.6
    if name not in NOT_AT_EVERY_LEVEL:
        assert distances == sorted(distances)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in COLOURS_APART])
@pytest.mark.parametrize("size", [(28, 28), (70, 80)])
def test_grey_in_three_channels_is_grey_in_one(name, size):
    grey = images(3, 1, *size)
    for severity in (1, 5):
        once = corrupt(grey, name, severity, range(3))
        assert torch.equal(corrupt(grey.expand(-1, 3, -1, -1), name, severity, range(3)), once.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_images_stay_finite(name, value):
    pixels = torch.full((2, 3, 28, 28), value, dtype=torch.uint8)
    corrupted = corrupt(pixels, name, 5, [0, 1]).float()
    assert abs(corrupted.mean() - value) < 150


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [28, 70])
def test_the_constants_asked_for_are_used_and_the_sizes_own_are_the_default(name, side):
    pixels = images(2, 1, side, side)
    by_set = {c: corrupt(pixels, name, 5, range(2), constants=c) for c in ("CIFAR-10-C", "ImageNet-C")}
    assert torch.equal(corrupt(pixels, name, 5, range(2)), by_set["CIFAR-10-C" if side < 65 else "ImageNet-C"])
    assert not torch.equal(*by_set.values())


def test_imagenet_cs_noise_on_small_images_has_its_published_strength():
    """At the levels that seldom clip."""
    pixels = torch.full((40, 1, 28, 28), 128, dtype=torch.uint8)
    for severity, c in enumerate((0.08, 0.12, 0.18), 1):
        noise = corrupt(pixels, "gaussian_noise", severity, range(40), constants="ImageNet-C").float() / 255 - 128 / 255
        assert noise.std().item() == pytest.approx(c, rel=0.02)


def test_values_are_clipped_and_rounded():
    pixels = torch.tensor([0, 100, 250], dtype=torch.uint8).expand(1, 1, 32, 3).repeat(1, 1, 1, 4)
    brighter = corrupt(pixels, "brightness", 1, [0])[0, 0, 0, :3]
    assert brighter.tolist() == [round(0.05 * 255), round(100 + 0.05 * 255), 255]


def test_no_images_are_no_images():
    for name in CORRUPTIONS:
        assert corrupt(images(1)[:0], name, 1, []).shape == (0, 3, 28, 28)


@pytest.mark.parametrize(
    ("pixels", "name", "severity", "indices", "seed", "message"),
    [
        (images(1), "rain", 1, [0], 0, "no corruption 'rain': choose from gaussian_noise, shot_noise, impulse_noise,"),
        (images(1), "fog", 0, [0], 0, "no severity 0 of fog: choose from 1, 2, 3, 4 and 5"),
        (images(1), "fog", 6, [0], 0, "no severity 6 of fog"),
        (images(1).float(), "fog", 1, [0], 0, r"got torch.float32 \[1, 3, 28, 28\]: convert them first"),
        (images(1)[0], "fog", 1, [0], 0, r"got torch.uint8 \[3, 28, 28\]"),
        (images(1)[:, :2], "fog", 1, [0], 0, r"1 or 3 channels; got torch.uint8 \[1, 2, 28, 28\]"),
        (
            images(1)[..., :7],
            "fog",
            1,
            [0],
            0,
            "images of 28x7 pixels are too small to corrupt: give sides of 8 or more",
        ),
        (images(2), "fog", 1, [0], 0, "2 images came with 1 indices: give one index per image"),
        (images(2), "fog", 1, [0, -3], 0, "seeds and indices are 0 or more; got seed 0 and index -3"),
        (images(1), "fog", 1, [2], -1, "seeds and indices are 0 or more; got seed -1 and index 2"),
    ],
)
def test_mistakes_are_named(pixels, name, severity, indices, seed, message):
    with pytest.raises(UsageError, match=message):
        corrupt(pixels, name, severity, indices, seed)


def test_unknown_constants_are_named():
    with pytest.raises(UsageError, match="no constants 'CIFAR': choose from CIFAR-10-C, ImageNet-C"):
        corrupt(images(1), "fog", 1, [0], constants="CIFAR")


ERRORS = {("fog", 1): 0.2, ("fog", 2): 0.4, ("snow", 1): 0.5, ("snow", 2): 0.5}
BASELINE = {("fog", 1): 0.4, ("fog", 2): 0.8, ("snow", 1): 0.4, ("snow", 2): 0.4, ("frost", 1): 0.9}


def test_corruption_error_is_a_ratio_of_sums():
    assert corruption_error(ERRORS, BASELINE) == pytest.approx({"fog": 0.5, "snow": 1.25})
    assert mean_corruption_error(ERRORS, BASELINE) == pytest.approx(0.875)
    assert set(corruption_error(BASELINE, BASELINE).values()) == {1.0}


def test_relative_corruption_error_takes_the_clean_errors_off():
    relative = {"fog": (0.6 - 0.2) / (1.2 - 0.4), "snow": (1.0 - 0.2) / (0.8 - 0.4)}
    assert corruption_error(ERRORS, BASELINE, 0.1, 0.2) == pytest.approx(relative)
    assert mean_corruption_error(ERRORS, BASELINE, 0.1, 0.2) == pytest.approx((0.5 + 2) / 2)


@pytest.mark.parametrize(
    ("errors", "baseline", "message"),
    [
        ({("fog", 3): 0.1}, BASELINE, "the baseline has no error for fog at severity 3: measure it too"),
        ({("rain", 3): 0.1}, BASELINE, "no corruption 'rain'"),
        ({("fog", 7): 0.1}, BASELINE, "no severity 7 of fog"),
        ({("fog", 1): 0.1}, {("fog", 1): 0.0}, "the baseline's errors for fog sum to 0: choose one that errs"),
        ({}, BASELINE, "no errors were given"),
    ],
)
def test_errors_without_a_baseline_are_named(errors, baseline, message):
    with pytest.raises(UsageError, match=message):
        mean_corruption_error(errors, baseline)
