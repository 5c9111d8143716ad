"""ImageNet-C's digital corruptions (arXiv 1903.12261): uint8 pixels [N, C, H, W] and a generator per image.

They give values in [0, 1], or bytes where Pillow made them.
"""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from lazyneuron.paper.corruptions.noises import Generators
from lazyneuron.paper.corruptions.severities import IMAGENET_SIDE, Constants, constant


def contrast(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """mean + c (x - mean), with the mean of each channel of each image."""
    c = constant(pixels.shape, severity, of, cifar=(0.75, 0.5, 0.4, 0.3, 0.15), imagenet=(0.4, 0.3, 0.2, 0.1, 0.05))
    height, width = pixels.shape[-2:]
    mean = pixels.sum((-2, -1), keepdims=True, dtype=np.int64) / (height * width)
    return ((pixels - mean) * c + mean) / 255


def elastic_transform(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image moved by a random affine map, and the result by a smoothed random field of displacements.

    As in ImageNet-C it is interpolated twice, which blurs it a little at every level.
    The constants are shares of the side: how far the field moves before it is smoothed, how widely it is smoothed, and
    how far the three points that make the affine map may move. Severity does not go with how far pixels move: in
    ImageNet-C levels 1 and 2 move the whole image far and bend it little, 3 to 5 move it little and bend it more.
    """
    shares = constant(
        pixels.shape,
        severity,
        of,
        cifar=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        imagenet=tuple(
            tuple(share * 244 / 224 for share in shares)  # the authors' 244 for 224, kept in all their images
            for shares in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
    )
    height, width = pixels.shape[-2:]
    strength, smooth, move = (share * min(height, width, IMAGENET_SIDE) for share in shares)
    decay = [np.exp(-0.5 * (smooth * np.pi * np.arange(n) / n) ** 2) for n in (height, width)]
    decay = (strength * np.outer(*decay)).astype(np.float32)
    grid = np.mgrid[:height, :width].astype(np.float32)
    middle, reach = np.array([height // 2, width // 2]), min(height, width) // 3
    points = middle + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    x = pixels / np.float32(255)
    moved = np.empty_like(x)
    for image, result, rng in zip(x, moved, rngs, strict=True):
        shifted = points + rng.uniform(-move, move, points.shape)
        back = np.linalg.solve(np.pad(shifted, ((0, 0), (0, 1)), constant_values=1), points).astype(np.float32)
        origin = [back[0, i] * grid[0] + back[1, i] * grid[1] + back[2, i] for i in range(2)]
        for channel, target in zip(image, result, strict=True):
            ndimage.map_coordinates(channel, origin, target, order=1, mode="mirror")
        if strength:
            field = rng.random((2, height, width), dtype=np.float32) * 2 - 1
            place = grid + np.asarray(fft.idctn(np.asarray(fft.dctn(field, axes=(1, 2))) * decay, axes=(1, 2)))
            for target in result:
                target[:] = ndimage.map_coordinates(target, place, order=1, mode="reflect")
    return moved


def pixelate(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image shrunk to a share c of its sides and back, each pixel a mean over its box."""
    c = constant(pixels.shape, severity, of, cifar=(0.95, 0.9, 0.85, 0.75, 0.65), imagenet=(0.6, 0.5, 0.4, 0.3, 0.25))
    height, width = pixels.shape[-2:]
    small, box = (int(width * c), int(height * c)), Image.Resampling.BOX
    return _bytes(image.resize(small, box).resize((width, height), box) for image in _images(pixels))


def jpeg_compression(pixels: np.ndarray, rngs: Generators, severity: int, of: Constants | None = None) -> np.ndarray:
    """The image written as a JPEG of quality c and read again."""
    quality = constant(pixels.shape, severity, of, cifar=(80, 65, 58, 50, 40), imagenet=(25, 18, 15, 10, 7))

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file, formats=("JPEG",))

    return _bytes(compressed(image) for image in _images(pixels))


def _images(pixels: np.ndarray) -> Iterable[Image.Image]:
    return (Image.fromarray(p[0] if len(p) == 1 else np.ascontiguousarray(p.transpose(1, 2, 0))) for p in pixels)


def _bytes(images: Iterable[Image.Image]) -> np.ndarray:
    return np.stack([np.atleast_3d(np.asarray(image)).transpose(2, 0, 1) for image in images])
