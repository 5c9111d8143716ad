"""Images that look natural to a corruption: a random field whose spectrum falls as 1/f, and an edge across it."""

import functools

import numpy as np


@functools.cache
def _natural_images(count: int, channels: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    field = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((count, channels, height, width))) / frequency, (height, width)
    )
    field = (field - field.mean((2, 3), keepdims=True)) / field.std((2, 3), keepdims=True)
    turn, top, left = rng.uniform((0, 0.3, 0.3), (2 * np.pi, 0.7, 0.7), (count, 3)).T[..., None, None, None]
    y, x = np.mgrid[:height, :width]
    side = (x - width * left) * np.cos(turn) + (y - height * top) * np.sin(turn)
    return ((0.5 + 0.12 * field + 0.2 * np.sign(side)).clip(0, 1) * 255).astype(np.uint8)


def natural_images(count: int, channels: int, height: int, width: int) -> np.ndarray:
    """uint8 [count, channels, height, width]; the channels differ."""
    return _natural_images(count, channels, height, width).copy()


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(count)]


def flat(value: int, *shape: int) -> np.ndarray:
    return np.full(shape, value, dtype=np.uint8)
