"""Less text, fewer images, fewer classes, random labels or random pixels (arXiv 2210.06313, Figures 2c and 5)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lazyneuron.data.images import ImageData, Images
from lazyneuron.data.text import TextData
from lazyneuron.errors import UsageError

_SHARE, _LABELS, _PIXELS = 3, 4, 5  # apart from the streams of batches, which begin with 0, 1 or 2

_PIECE = 1024


@dataclass(frozen=True)
class Chosen:
    """The images at `chosen` of others, with labels of their own."""

    images: Images
    chosen: np.ndarray
    labels: np.ndarray

    def get(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels, _ = self.images.get(self.chosen[indices])
        return pixels, torch.from_numpy(self.labels[indices])


@dataclass(frozen=True)
class NoiseImages:
    """Images of i.i.d. uniform pixels, uint8 [N, *shape]; the pixels of image i depend on (seed, i) alone."""

    shape: tuple[int, int, int]
    labels: np.ndarray
    seed: int

    def get(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        drawn = [
            np.random.default_rng((_PIXELS, self.seed, int(i))).integers(0, 256, self.shape, np.uint8) for i in indices
        ]
        return torch.from_numpy(np.stack(drawn)), torch.from_numpy(self.labels[indices])


def first_classes(data: ImageData, num_classes: int) -> ImageData:
    """The images of the first `num_classes` classes, in both parts."""
    if not 2 <= num_classes <= data.num_classes:
        raise UsageError(f"num_classes must be between 2 and the data's {data.num_classes}; got {num_classes}")
    parts = [_kept(part, np.flatnonzero(part.labels < num_classes)) for part in (data.train, data.evaluation)]
    return replace(data, train=parts[0], evaluation=parts[1], num_classes=num_classes)


def with_share(data: ImageData, share: float, seed: int) -> ImageData:
    """A random `share` of the training images; all held-out images stay."""
    count = len(data.train.labels)
    kept = np.random.default_rng((_SHARE, seed)).permutation(count)[: max(1, round(share * count))]
    return replace(data, train=_kept(data.train, np.sort(kept)))


def with_share_of_text(data: TextData, share: float) -> TextData:
    """A `share` of the training text, in evenly spaced pieces of 1,024 tokens; all held-out text stays."""
    starts = np.arange(0, len(data.train), _PIECE)
    chosen = starts[(np.arange(max(1, round(share * len(starts)))) / share).astype(int)]
    return replace(data, train=np.concatenate([data.train[start : start + _PIECE] for start in chosen]))


def with_random_labels(data: ImageData, share: float, seed: int) -> ImageData:
    """A `share` of the training labels redrawn, uniformly over all classes (some of them get the right one again)."""
    rng = np.random.default_rng((_LABELS, seed))
    labels = data.train.labels.copy()
    redrawn = rng.permutation(len(labels))[: round(share * len(labels))]
    labels[redrawn] = rng.integers(0, data.num_classes, len(redrawn))
    return replace(data, train=Chosen(data.train, np.arange(len(labels)), labels))


def with_random_pixels(data: ImageData, image_size: int, seed: int) -> ImageData:
    """Every image replaced by i.i.d. uniform pixels, held-out ones do not depend on the seed."""
    shape = (data.num_channels, image_size, image_size)
    train = NoiseImages(shape, data.train.labels, seed + 1)
    return replace(data, train=train, evaluation=NoiseImages(shape, data.evaluation.labels, 0))


def _kept(images: Images, chosen: np.ndarray) -> Chosen:
    return Chosen(images, chosen, images.labels[chosen])
