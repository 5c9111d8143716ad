"""Whose constants a corruption uses: by itself CIFAR-10-C's up to 64 pixels, ImageNet-C's above; or those asked for.

ImageNet-C's constants were chosen for images of 224 pixels; at 32 pixels the same noise or pixelation leaves less to
recognise, so its authors chose milder ones for CIFAR-10-C. Both are theirs and published (Hendrycks and Dietterich
2019, arXiv 1903.12261, and its code), so errors with either can be set beside those of others, and nothing here is
tuned. The side of an image is its shorter one. Lengths in pixels (radii, blur widths, flakes) go with the side:
CIFAR-10-C's stand up to 32 pixels, since a blur narrower than a pixel is none, and grow with the side from there;
ImageNet-C's are multiplied with side/224 below 224 pixels, and stand from there on. Ratios, shares and intensities
(noise, brightness, contrast, zoom, quality) are never scaled.
"""

from collections.abc import Sequence
from typing import Literal, TypeVar

T = TypeVar("T")

Constants = Literal["CIFAR-10-C", "ImageNet-C"]

LARGEST_SMALL_SIDE = 64
CIFAR_SIDE = 32
IMAGENET_SIDE = 224


def constants_for(shape: Sequence[int]) -> Constants:
    """The constants of images of `shape` [..., H, W] where none are asked for."""
    return "CIFAR-10-C" if min(shape[-2:]) <= LARGEST_SMALL_SIDE else "ImageNet-C"


def constant(
    shape: Sequence[int], severity: int, of: Constants | None, *, cifar: Sequence[T], imagenet: Sequence[T]
) -> T:
    """The constant of `severity` (1 to 5) in the set `of`, or else in that for images of `shape`."""
    return (cifar if (of or constants_for(shape)) == "CIFAR-10-C" else imagenet)[severity - 1]


def length_scale(shape: Sequence[int], of: Constants | None = None) -> float:
    """What a constant that is a length in pixels is multiplied with, for images of `shape` [..., H, W]."""
    side = min(shape[-2:])
    if (of or constants_for(shape)) == "CIFAR-10-C":
        return max(1.0, side / CIFAR_SIDE)
    return min(1.0, side / IMAGENET_SIDE)
