"""ImageNet-C's noises (arXiv 1903.12261): uint8 pixels [N, C, H, W] and a generator per image to values in [0, 1].

Every channel of a pixel is drawn on its own. Values may leave [0, 1]; `corrupt` clips and rounds them.
"""

from collections.abc import Iterable

import numpy as np

from lazyneuron.paper.corruptions.severities import Constants, constant

Generators = Iterable[np.random.Generator]


def gaussian_noise(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """x + N(0, c^2)."""
    c = constant(
        pixels.shape, severity, of, cifar=(0.04, 0.06, 0.08, 0.09, 0.10), imagenet=(0.08, 0.12, 0.18, 0.26, 0.38)
    )
    noise = np.stack([rng.standard_normal(pixels.shape[1:], dtype=np.float32) for rng in rngs])
    return pixels / np.float32(255) + np.float32(c) * noise


def shot_noise(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """Poisson(c x) / c: c is the number of photons that a white pixel collects."""
    c = constant(pixels.shape, severity, of, cifar=(500, 250, 100, 75, 50), imagenet=(60, 25, 12, 5, 3))
    photons = np.stack([rng.poisson(image * (c / 255)) for image, rng in zip(pixels, rngs, strict=True)])
    return photons / np.float32(c)


def impulse_noise(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """A share c of all values becomes salt (1) or pepper (0), as often the one as the other."""
    c = constant(
        pixels.shape, severity, of, cifar=(0.01, 0.02, 0.03, 0.05, 0.07), imagenet=(0.03, 0.06, 0.09, 0.17, 0.27)
    )
    draw = np.stack([rng.random(pixels.shape[1:], dtype=np.float32) for rng in rngs])
    salted = np.where(draw < c, np.float32(1), pixels / np.float32(255))
    return np.where(draw < c / 2, np.float32(0), salted)
