"""ImageNet-C's weather (arXiv 1903.12261): uint8 pixels [N, C, H, W] and a generator per image to values in [0, 1].

Snow and fog are grey, so grey images stay grey; brightness keeps hue and saturation.
"""

import math

import numpy as np

from lazyneuron.paper.corruptions.blurs import magnify, smear
from lazyneuron.paper.corruptions.noises import Generators
from lazyneuron.paper.corruptions.severities import Constants, constant, length_scale

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_FROST_TINT = np.array([0.93, 1.0, 1.06], dtype=np.float32)
_LATTICE = 16  # places after which the noise of the needles repeats
_NEXT_WEIGHT = 0.85  # of needles half as wide
_RIDGE_MEAN, _RIDGE_STD = 0.51, 0.275


def snow(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image whitened, below two layers of smeared flakes, the second being the first turned by half a turn."""
    mean, spread, zoom, threshold, radius, sigma, keep = constant(
        pixels.shape,
        severity,
        of,
        cifar=(
            (0.1, 0.2, 1.0, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        imagenet=(
            (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    )
    scale = length_scale(pixels.shape, of)
    zoom = max(1.0, zoom * scale)
    coarse = [math.ceil(side / zoom) + 1 for side in pixels.shape[-2:]]
    draws = [(rng.uniform(-135, -45), rng.standard_normal((1, *coarse), dtype=np.float32)) for rng in rngs]
    flakes = np.float32(mean) + np.float32(spread) * np.stack([normal for _, normal in draws])
    flakes = magnify(flakes, zoom, pixels.shape[-2:])
    flakes = np.where(flakes < threshold, np.float32(0), flakes.clip(0, 1))
    flakes = smear(flakes, radius * scale, sigma * scale, [angle for angle, _ in draws])
    x = pixels / np.float32(255)
    white = np.maximum(x, 1.5 * _grey(x) + np.float32(0.5))
    return np.float32(keep) * x + np.float32(1 - keep) * white + flakes + flakes[..., ::-1, ::-1]


def _grey(x: np.ndarray) -> np.ndarray:
    """The luma [N, 1, H, W] of grey or coloured images."""
    if x.shape[1] == 1:
        return x
    return _LUMA[0] * x[:, :1] + _LUMA[1] * x[:, 1:2] + _LUMA[2] * x[:, 2:]


def frost(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image dimmed, plus frost: a x + b frost. This frost is not ImageNet-C's, so neither are errors under it.

    ImageNet-C adds a random cut of one of five photographs, which we may not ship; a and b are its own. Here crossing
    needles of ice are drawn, with about the brightness, the contrast and the blue tint of the photographs. With
    severity more of the image is hidden, while its distance from the clean one need not grow: a falls and b rises.
    """
    a, b = constant(
        pixels.shape,
        severity,
        of,
        cifar=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        imagenet=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    )
    tint = _FROST_TINT if pixels.shape[1] == 3 else np.ones(1, dtype=np.float32)
    ice = _needles(pixels.shape[-2:], rngs)[:, None] * tint[:, None, None]
    return np.float32(a / 255) * pixels + np.float32(b) * ice.clip(0, 1)


def _needles(size: tuple[int, ...], rngs: Generators) -> np.ndarray:
    """Brightness [N, H, W] of ice: ridges of noise, half as wide each time and stretched along a direction each."""
    widths = [width for width in (min(size) / 2**i for i in range(2, 8)) if width >= 1]
    draws = [
        (
            rng.uniform(0.45, 0.8),
            rng.uniform(0.07, 0.17),
            rng.uniform(0, math.pi, len(widths)),
            rng.random((len(widths), _LATTICE, _LATTICE), dtype=np.float32),
        )
        for rng in rngs
    ]
    mean, spread, angles, lattices = (np.stack(drawn) for drawn in zip(*draws, strict=True))
    weights = _NEXT_WEIGHT ** np.arange(len(widths))
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    ice = np.zeros((len(draws), *size), dtype=np.float32)
    for i, width in enumerate(widths):
        cos, sin = (turn(angles[:, i])[:, None, None].astype(np.float32) for turn in (np.cos, np.sin))
        noise = _lattice_noise(lattices[:, i], (y * cos - x * sin) / width, (y * sin + x * cos) / (4 * width))
        ice += np.float32(weights[i]) * (1 - abs(2 * noise - 1)) ** 2
    standard = (ice - _RIDGE_MEAN * weights.sum()) / (_RIDGE_STD * np.sqrt((weights**2).sum()))
    return (mean[:, None, None] + spread[:, None, None] * standard).astype(np.float32)


def _lattice_noise(lattice: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The values [N, G, G] of each image at places [N, H, W], bilinear; the lattice repeats."""
    top, left = np.floor(y), np.floor(x)
    down, right = y - top, x - left
    top, left = top.astype(np.int64) % _LATTICE, left.astype(np.int64) % _LATTICE
    bottom, beside = (top + 1) % _LATTICE, (left + 1) % _LATTICE
    flat = lattice.reshape(len(lattice), -1)

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        place = (row * _LATTICE + column).reshape(len(flat), -1)
        return np.take_along_axis(flat, place, axis=1).reshape(y.shape)

    upper = at(top, left) * (1 - right) + at(top, beside) * right
    lower = at(bottom, left) * (1 - right) + at(bottom, beside) * right
    return upper * (1 - down) + lower * down


def fog(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image plus c times a plasma fractal, rescaled to the brightest value it had."""
    c, decay = constant(
        pixels.shape,
        severity,
        of,
        cifar=((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
        imagenet=((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    )
    height, width = pixels.shape[-2:]
    side = 2 ** math.ceil(math.log2(max(height, width)))
    wobble = np.stack([rng.uniform(-1, 1, (side, side)).astype(np.float32) for rng in rngs])
    haze = _plasma(wobble, decay)[:, None, :height, :width]
    x = pixels / np.float32(255)
    brightest = x.max((1, 2, 3), keepdims=True)
    return (x + np.float32(c) * haze) * (brightest / (brightest + np.float32(c)))


def _plasma(wobble: np.ndarray, decay: float) -> np.ndarray:
    """Maps [N, S, S] in [0, 1] by the diamond-square algorithm on a torus, S a power of two.

    Each point is the mean of the four about it plus its own `wobble` in [-1, 1], times an amplitude that falls by
    decay^2 whenever the distance to the four halves.
    """
    heights = np.zeros_like(wobble)
    step, amplitude = wobble.shape[-1], 1.0
    while step > 1:
        half = step // 2
        corners = heights[:, ::step, ::step]
        below, beside = np.roll(corners, -1, 1), np.roll(corners, -1, 2)
        middles = (corners + below + beside + np.roll(below, -1, 2)) / 4
        middles += amplitude * wobble[:, half::step, half::step]
        tops = (corners + beside + middles + np.roll(middles, 1, 1)) / 4
        lefts = (corners + below + middles + np.roll(middles, 1, 2)) / 4
        heights[:, half::step, half::step] = middles
        heights[:, ::step, half::step] = tops + amplitude * wobble[:, ::step, half::step]
        heights[:, half::step, ::step] = lefts + amplitude * wobble[:, half::step, ::step]
        step, amplitude = half, amplitude / decay**2
    heights -= heights.min((1, 2), keepdims=True)
    return heights / heights.max((1, 2), keepdims=True)


def brightness(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """Value + c in hue, saturation and value, at most 1; so grey + c."""
    c = constant(pixels.shape, severity, of, cifar=(0.05, 0.1, 0.15, 0.2, 0.3), imagenet=(0.1, 0.2, 0.3, 0.4, 0.5))
    x = pixels / np.float32(255)
    value = x.max(1, keepdims=True)
    ratio = np.where(value > 0, x / np.where(value > 0, value, 1), np.float32(1))
    return ratio * np.minimum(value + np.float32(c), 1)
