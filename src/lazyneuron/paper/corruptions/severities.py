"""Which constants a corruption uses at a size: CIFAR-10-C's up to 64 pixels, ImageNet-C's above.

ImageNet-C's constants were chosen for images of 224 pixels; at 32 pixels the same noise or pixelation leaves little to
recognise, so its authors chose others for CIFAR-10-C. Both are theirs and published (arXiv 1903.12261 and its code), so
errors at either size can be set beside those of others, and nothing here is tuned. The side of an image is its shorter
one. Lengths in pixels (radii, blur widths, flakes) go with the side: they are CIFAR-10-C's up to 32 pixels, since a
blur narrower than a pixel is none, and grow with it up to 64; above 64 they are ImageNet-C's times side/224, and from
224 on as they stand. Ratios, shares and intensities (noise, brightness, contrast, zoom, quality) are never scaled.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

LARGEST_SMALL_SIDE = 64
CIFAR_SIDE = 32
IMAGENET_SIDE = 224


def constant(shape: Sequence[int], severity: int, *, cifar: Sequence[T], imagenet: Sequence[T]) -> T:
    """The constant of `severity` (1 to 5) for images of `shape` [..., H, W]."""
    return (cifar if min(shape[-2:]) <= LARGEST_SMALL_SIDE else imagenet)[severity - 1]


def length_scale(shape: Sequence[int]) -> float:
    """What a constant that is a length in pixels is multiplied with, for images of `shape` [..., H, W]."""
    side = min(shape[-2:])
    return max(1.0, side / CIFAR_SIDE) if side <= LARGEST_SMALL_SIDE else min(1.0, side / IMAGENET_SIDE)
