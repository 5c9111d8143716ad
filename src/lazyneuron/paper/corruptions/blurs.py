"""ImageNet-C's four blurs (arXiv 1903.12261): uint8 pixels [N, C, H, W] and a generator per image to values in [0, 1].

The channels of an image are blurred alike, so grey stays grey.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

from lazyneuron.paper.corruptions.noises import Generators
from lazyneuron.paper.corruptions.severities import Constants, constant, length_scale


def defocus_blur(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image convolved with a disc whose edge is smoothed, mirrored at its borders."""
    radius, edge = constant(
        pixels.shape,
        severity,
        of,
        cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
        imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    )
    radius *= length_scale(pixels.shape, of)
    taps = np.exp(-0.5 * (np.arange(-1, 2) / edge) ** 2)
    sums, area = _disc_sums(pixels, radius, margin=1)
    for axis in (-2, -1):
        sums = ndimage.correlate1d(sums, taps / taps.sum(), axis, mode="nearest")
    return sums[..., 1:-1, 1:-1] / (255 * area)


def _disc_sums(pixels: np.ndarray, radius: float, margin: int) -> tuple[np.ndarray, int]:
    """The sum of the pixels no further than `radius` from each, [N, C, H + 2 margin, W + 2 margin], and their number.

    A row of the disc is a difference of two running sums, which are integers: exact, and independent of the radius in
    its time per row.
    """
    reach = int(radius)
    around = reach + margin
    padded = np.pad(pixels, ((0, 0), (0, 0), (around, around), (around, around)), mode="reflect").astype(np.int32)
    running = np.pad(padded.cumsum(-1, dtype=np.int32), ((0, 0), (0, 0), (0, 0), (1, 0)))
    height, width = (side + 2 * margin for side in pixels.shape[-2:])
    sums = np.zeros((*pixels.shape[:2], height, width), dtype=np.int32)
    area = 0
    for dy in range(-reach, reach + 1):
        half = int(math.sqrt(radius**2 - dy**2))
        row = running[..., reach + dy : reach + dy + height, :]
        sums += row[..., reach + half + 1 :][..., :width] - row[..., reach - half :][..., :width]
        area += 2 * half + 1
    return sums.astype(np.float32), area


def glass_blur(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image blurred, its pixels moved about locally, and blurred again.

    ImageNet-C's code means to swap each pixel with one near it; as its pixels are views of one array, what it does is
    to copy that one. Its published images are made of copies, and so are ours.
    """
    sigma, reach, times = constant(
        pixels.shape,
        severity,
        of,
        cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        imagenet=((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    )
    scale = length_scale(pixels.shape, of)
    sigma, reach = sigma * scale, max(1, round(reach * scale))
    height, width = pixels.shape[-2:]
    inner = (height - 2 * reach, width - 2 * reach)
    steps = np.stack([rng.integers(-reach, reach, (times, 2, *inner), dtype=np.int8) for rng in rngs])
    x = _gaussian(pixels / np.float32(255), sigma)
    for dy, dx in steps.transpose(1, 2, 0, 3, 4):
        origin = _origins(dy, dx, (height, width), reach)
        flat = x.reshape(*x.shape[:2], -1)
        x = np.take_along_axis(flat, origin[:, None], axis=-1).reshape(x.shape)
    return _gaussian(x, sigma)


def _origins(dy: np.ndarray, dx: np.ndarray, size: tuple[int, int], reach: int) -> np.ndarray:
    """Where each pixel comes from once all are done, as flat places [N, H W].

    From the last pixel to the first (but for a frame `reach` wide), each becomes a copy of the one (dy, dx) away, as
    that one is by then. So a pixel that copies a later one takes what that one took: links are followed to their end,
    all of them at once, the length followed doubling each time.
    """
    height, width = size
    place = np.arange(height * width).reshape(size)
    inner = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    source = np.broadcast_to(place, (len(dy), *size)).copy()
    source[:, *inner] += dy * np.int64(width) + dx
    origin = source.reshape(len(dy), -1)
    ends = np.ones(size, dtype=bool)
    ends[inner] = False
    follow = np.where((origin > place.ravel()) & ~ends.ravel()[origin], origin, place.ravel())
    while True:
        further = np.take_along_axis(follow, follow, axis=-1)
        if np.array_equal(further, follow):
            return np.take_along_axis(origin, follow, axis=-1)
        follow = further


def _gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, sigma, axes=(-2, -1), mode="nearest")


def motion_blur(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image smeared to one side along a line at up to 45 degrees from the horizontal."""
    radius, sigma = constant(
        pixels.shape,
        severity,
        of,
        cifar=((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
        imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    )
    scale = length_scale(pixels.shape, of)
    angles = [rng.uniform(-45, 45) for rng in rngs]
    return smear(pixels / np.float32(255), radius * scale, sigma * scale, angles)


def smear(x: np.ndarray, radius: float, sigma: float, degrees: Sequence[float]) -> np.ndarray:
    """float [N, C, H, W] averaged over the places 0 to 2 radius away at an angle per image, the nearest most.

    The weights are half a Gaussian's, as in ImageMagick's motion blur; beyond the border its last pixel goes on.
    """
    distance = np.arange(2 * round(radius) + 1)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    reach = len(distance) - 1
    height, width = x.shape[-2:]
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    smeared = np.zeros_like(x)
    for image, result, angle in zip(padded, smeared, np.deg2rad(degrees), strict=True):
        rows = reach + np.rint(distance * math.sin(angle)).astype(int)
        columns = reach + np.rint(distance * math.cos(angle)).astype(int)
        for weight, row, column in zip(weights, rows, columns, strict=True):
            result += weight * image[:, row : row + height, column : column + width]
    return smeared


def zoom_blur(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The mean of the image and of itself magnified about its centre, by 1, 1 + step, 1 + 2 step and so on."""
    count, step = constant(
        pixels.shape,
        severity,
        of,
        cifar=((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)),
        imagenet=((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
    )
    x = pixels / np.float32(255)
    total = x.copy()
    for i in range(count):
        total += magnify(x, 1 + i * step, pixels.shape[-2:])
    return total / (count + 1)


def magnify(x: np.ndarray, zoom: float, size: Iterable[int]) -> np.ndarray:
    """The centre of float [..., h, w] magnified to [..., H, W] with bilinear interpolation."""
    for axis, side in zip((-2, -1), size, strict=True):
        place = (x.shape[axis] - 1) / 2 + (np.arange(side) - (side - 1) / 2) / zoom
        below = np.clip(place.astype(int), 0, x.shape[axis] - 2)
        shape = (-1, 1) if axis == -2 else (-1,)
        share = (place - below).astype(np.float32).reshape(shape)
        low = np.take(x, below, axis)
        x = low + share * (np.take(x, below + 1, axis) - low)
    return x
