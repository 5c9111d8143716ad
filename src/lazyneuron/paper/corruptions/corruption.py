"""ImageNet-C's 15 common corruptions at any size, and the errors under them (arXiv 1903.12261).

    corrupted = corrupt(pixels, "fog", severity=3, indices=range(len(pixels)))

Up to 64 pixels the constants are those of CIFAR-10-C, above those of ImageNet-C, unless `constants` names a set; see
`severities`. What differs from ImageNet-C: frost is drawn, not photographed (see `weather.frost`); values are rounded,
where its code cuts them off (at most one level of 255); the images are not saved as a JPEG of quality 85 afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from lazyneuron.errors import UsageError
from lazyneuron.paper.corruptions import blurs, digital, noises, weather
from lazyneuron.paper.corruptions.severities import Constants

_FUNCTIONS = {
    function.__name__: function
    for function in (
        noises.gaussian_noise,
        noises.shot_noise,
        noises.impulse_noise,
        blurs.defocus_blur,
        blurs.glass_blur,
        blurs.motion_blur,
        blurs.zoom_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        weather.brightness,
        digital.contrast,
        digital.elastic_transform,
        digital.pixelate,
        digital.jpeg_compression,
    )
}
CORRUPTIONS = tuple(_FUNCTIONS)
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST_SIDE = 8
_VALUES_AT_ONCE = 2**18

Errors = Mapping[tuple[str, int], float]


def corrupt(
    pixels: Tensor,
    corruption: str,
    severity: int,
    indices: Sequence[int] | np.ndarray,
    seed: int = 0,
    constants: Constants | None = None,
) -> Tensor:
    """uint8 [N, C, H, W] to the same, corrupted; C is 1 or 3, and H and W are 8 or more.

    `indices` [N] number the images: what is random in an image's corruption is drawn from (seed, index, corruption,
    severity) alone, so it is the same in whatever batch and order the image comes. No global generator is touched.
    `constants` names the set that the severity is of ("CIFAR-10-C" or "ImageNet-C"); without it the size decides.
    """
    _check(corruption, severity)
    if constants not in (None, *get_args(Constants)):
        raise UsageError(f"no constants {constants!r}: choose from {', '.join(get_args(Constants))}")
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise UsageError(
            f"corrupt takes uint8 pixels [N, C, H, W] with 1 or 3 channels; got {pixels.dtype} {list(pixels.shape)}: "
            "convert them first"
        )
    if min(pixels.shape[-2:]) < SMALLEST_SIDE:
        raise UsageError(
            f"images of {pixels.shape[-2]}x{pixels.shape[-1]} pixels are too small to corrupt: "
            f"give sides of {SMALLEST_SIDE} or more"
        )
    if len(indices) != len(pixels):
        raise UsageError(f"{len(pixels)} images came with {len(indices)} indices: give one index per image")
    if seed < 0 or min(indices, default=0) < 0:
        raise UsageError(f"seeds and indices are 0 or more; got seed {seed} and index {min(indices, default=0)}")
    images = pixels.cpu().numpy()
    corrupted = np.empty_like(images, order="C")
    key = CORRUPTIONS.index(corruption)
    at_once = max(1, _VALUES_AT_ONCE // max(1, images[:1].size))
    for start in range(0, len(images), at_once):
        part = slice(start, start + at_once)
        rngs = (np.random.default_rng((seed, int(index), key, severity)) for index in indices[part])
        values = _FUNCTIONS[corruption](images[part], rngs, severity, constants)
        if values.dtype != np.uint8:
            values = np.rint(values.clip(0, 1) * 255)
        corrupted[part] = values
    return torch.from_numpy(corrupted).to(pixels.device)


def _check(corruption: str, severity: int) -> None:
    if corruption not in _FUNCTIONS:
        raise UsageError(f"no corruption {corruption!r}: choose from {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise UsageError(f"no severity {severity!r} of {corruption}: choose from 1, 2, 3, 4 and 5")


def corruption_error(
    errors: Errors, baseline: Errors, clean: float = 0.0, clean_baseline: float = 0.0
) -> dict[str, float]:
    """CE of each corruption: the errors at (corruption, severity) summed over severities, over the baseline's sum.

    1 is the baseline's robustness, and less is better. Given the two models' errors on clean images, it is the relative
    CE: of the errors in excess of those.
    """
    severities: dict[str, list[int]] = {}
    for corruption, severity in errors:
        _check(corruption, severity)
        if (corruption, severity) not in baseline:
            raise UsageError(f"the baseline has no error for {corruption} at severity {severity}: measure it too")
        severities.setdefault(corruption, []).append(severity)
    ratios = {}
    for corruption, levels in severities.items():
        ours = sum(errors[corruption, level] - clean for level in levels)
        theirs = sum(baseline[corruption, level] - clean_baseline for level in levels)
        if theirs <= 0:
            raise UsageError(f"the baseline's errors for {corruption} sum to {theirs:g}: choose one that errs")
        ratios[corruption] = ours / theirs
    return ratios


def mean_corruption_error(errors: Errors, baseline: Errors, clean: float = 0.0, clean_baseline: float = 0.0) -> float:
    """mCE: the mean of `corruption_error` over the corruptions that `errors` has; ImageNet-C's is over all 15."""
    ratios = corruption_error(errors, baseline, clean, clean_baseline)
    if not ratios:
        raise UsageError("no errors were given: measure at least one corruption")
    return sum(ratios.values()) / len(ratios)
