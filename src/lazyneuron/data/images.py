"""Labelled images and how they are augmented."""

import gzip
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from lazyneuron.data.glyphs import Glyphs, dejavu_letters, pillow_letters
from lazyneuron.errors import UsageError

FASHION_MNIST_FOLDERS = (Path("/usr/share/datasets/fashion-mnist"), Path("data/fashion-mnist"))
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
_HELD_OUT_SHARE = 0.2


class Images(Protocol):
    """Labelled images: `get(indices)` gives uint8 [N, C, H, W] and int64 labels [N]."""

    @property
    def labels(self) -> np.ndarray: ...

    def get(self, indices: np.ndarray) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory, uint8 [N, C, H, W]."""

    pixels: np.ndarray
    labels: np.ndarray

    def get(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.pixels[indices]), torch.from_numpy(self.labels[indices])


@dataclass(frozen=True)
class LazyImages:
    """Images decoded on demand, scaled to cover a square and cropped; `items` are files or rows of a data set."""

    items: Any
    labels: np.ndarray
    image_size: int

    def get(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels = np.stack([_square(self.items[i], self.image_size) for i in indices])
        return torch.from_numpy(pixels), torch.from_numpy(self.labels[indices])


@dataclass(frozen=True)
class ImageData:
    """Images for training, and separate ones for evaluation."""

    train: Images
    evaluation: Images
    num_classes: int
    num_channels: int
    image_size: int
    fingerprint: str


def _square(item: Any, size: int) -> np.ndarray:
    """uint8 [3, size, size] of a file, a PIL image, or a data set's row with an "image"."""
    image = item["image"] if isinstance(item, dict) else item
    try:
        image = image if isinstance(image, Image.Image) else Image.open(image)
        scale = size / min(image.size)
        shape = [max(size, round(side * scale)) for side in image.size]
        image = image.convert("RGB").resize((shape[0], shape[1]), Image.Resampling.BILINEAR)
    except OSError as error:
        raise UsageError(f"cannot read the image {item} ({error}): remove or replace it") from None
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def load_images(source: str, image_size: int) -> ImageData:
    """Load labelled images and hold some out: the source's own test split, or a fixed random fifth.

    `source` is "digits" (scikit-learn's 8x8 digits) or "letters" (62 letters and digits drawn in Pillow's typeface),
    both always available; "dejavu" (210 letters and digits drawn in the DejaVu typefaces, of which every fifth is held
    out); "fashion-mnist" (the idx files where Debian's package puts them, or below data/), a folder of idx files, a
    folder with one folder of images per class, or "hf:NAME[/CONFIG]" for a Hugging Face data set with columns "image"
    and "label". The last two are scaled to `image_size` pixels per side; the others keep their size.
    """
    if source == "digits":
        return _digits()
    if source == "letters":
        glyphs = pillow_letters()
        return _of_glyphs(glyphs, *_split(len(glyphs.labels)))
    if source == "dejavu":
        glyphs = dejavu_letters()
        is_held_out = glyphs.faces % 5 == 0
        return _of_glyphs(glyphs, np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    if source == "fashion-mnist":
        for folder in FASHION_MNIST_FOLDERS:
            if folder.is_dir():
                return _idx_folder(folder)
        raise UsageError(
            "no Fashion-MNIST on this machine: apt install dataset-fashion-mnist, or give the folder of its idx files"
        )
    if source.startswith("hf:"):
        return _hub_images(source.removeprefix("hf:"), image_size)
    path = Path(source)
    if not path.is_dir():
        raise UsageError(f"no images at {path}: give a folder, hf:NAME, digits, letters, dejavu or fashion-mnist")
    return _idx_folder(path) if list(path.glob("*-ubyte*")) else _class_folders(path, image_size)


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    flat, target = load_digits(return_X_y=True)
    pixels = np.round(np.asarray(flat).reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = np.asarray(target).astype(np.int64)
    train, held_out = _split(len(labels))
    return ImageData(
        ArrayImages(pixels[train], labels[train]),
        ArrayImages(pixels[held_out], labels[held_out]),
        num_classes=10,
        num_channels=1,
        image_size=8,
        fingerprint=_fingerprint(pixels, labels),
    )


def _of_glyphs(glyphs: Glyphs, train: np.ndarray, held_out: np.ndarray) -> ImageData:
    """Drawn letters in two parts, each in an order of chance that is always the same."""
    order = np.random.default_rng(0).permutation
    parts = (ArrayImages(glyphs.pixels[at], glyphs.labels[at]) for at in map(order, (train, held_out)))
    return ImageData(
        *parts,
        num_classes=int(glyphs.labels.max()) + 1,
        num_channels=1,
        image_size=glyphs.pixels.shape[-1],
        fingerprint=_fingerprint(glyphs.pixels, glyphs.labels),
    )


def _split(count: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(0).permutation(count)
    num_held_out = max(1, int(count * _HELD_OUT_SHARE))
    return order[num_held_out:], order[:num_held_out]


def _fingerprint(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an idx file (big-endian sizes, then bytes), gzipped or not."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        num_axes = data[3]
        if data[:3] != b"\0\0\x08" or not num_axes:
            raise ValueError("not an idx file of bytes")
        shape = np.frombuffer(data, ">u4", num_axes, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * num_axes).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise UsageError(f"cannot read {path} ({error}): fetch it again") from None


def _idx_folder(folder: Path) -> ImageData:
    arrays = []
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        files = sorted(folder.glob(f"{name}-ubyte*"))
        if not files:
            raise UsageError(f"{folder} lacks {name}-ubyte(.gz): it needs the four idx files of MNIST or Fashion-MNIST")
        arrays.append(read_idx(files[0]))
    pixels, labels, test_pixels, test_labels = arrays
    return ImageData(
        ArrayImages(pixels[:, None], labels.astype(np.int64)),
        ArrayImages(test_pixels[:, None], test_labels.astype(np.int64)),
        num_classes=int(labels.max()) + 1,
        num_channels=1,
        image_size=pixels.shape[-1],
        fingerprint=_fingerprint(*arrays),
    )


def _class_folders(path: Path, image_size: int) -> ImageData:
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir())
    if len(classes) < 2:
        raise UsageError(
            f"{path} holds {len(classes)} class folder(s): give one folder of images for each class, 2 or more"
        )
    files, labels = [], []
    for label, folder in enumerate(classes):
        found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise UsageError(f"the class folder {folder} holds no image: fill or remove it")
        files += found
        labels += [label] * len(found)
    train, held_out = _split(len(files))
    names = "\n".join(f"{file.relative_to(path)} {file.stat().st_size}" for file in files)

    def part(indices: np.ndarray) -> LazyImages:
        return LazyImages([files[i] for i in indices], np.asarray(labels)[indices], image_size)

    digest = hashlib.sha256(names.encode()).hexdigest()[:16]
    return ImageData(part(train), part(held_out), len(classes), 3, image_size, digest)


def _hub_images(name: str, image_size: int) -> ImageData:
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(f"hf:{name} needs the data set library: pip install 'lazyneuron[hub]'") from None
    path, config = (name, None) if name.count("/") < 2 else name.rsplit("/", 1)
    found = load_dataset(path, config)
    held_out = next((split for split in ("validation", "test") if split in found), None)
    if held_out is None or not {"image", "label"} <= set(found["train"].column_names):
        raise UsageError(f"hf:{name} needs columns image and label, and a validation or test split: choose another")
    parts = [LazyImages(found[s], np.asarray(found[s]["label"]), image_size) for s in ("train", held_out)]
    num_classes = int(max(part.labels.max() for part in parts)) + 1
    return ImageData(parts[0], parts[1], num_classes, 3, image_size, hashlib.sha256(name.encode()).hexdigest()[:16])


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of an image: put on a canvas, rotated, scaled, shifted, flipped, with noise added.

    Rotation (degrees) and shift (pixels) are uniform in +-; the scale is uniform in 1 +- `scale`; the noise is Gaussian
    with standard deviation `noise` on pixels in [0, 1]. `flip` mirrors half of the images.
    """

    canvas: int
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    noise: float = 0.0
    flip: bool = False


def image_batch(
    images: Images, indices: np.ndarray, augmentation: Augmentation, *rngs: np.random.Generator
) -> dict[str, Tensor]:
    """`pixel_values` float [B, C, canvas, canvas] in about [-1, 1] and `labels` [B] of the images at `indices` [B]."""
    pixels, labels = images.get(indices)
    return {"pixel_values": augment(pixels, augmentation, *rngs), "labels": labels}


def augment(pixels: Tensor, how: Augmentation, *rngs: np.random.Generator) -> Tensor:
    """uint8 [B, C, H, W] to float [B, C, canvas, canvas], each image augmented independently.

    An image smaller than the canvas keeps its size on a black background; a larger one is shrunk to the canvas first.
    Each of `rngs` draws for its share of the images: the same as for these alone.
    """
    x = pixels.float() / 255
    if x.shape[-1] > how.canvas:
        x = functional.interpolate(x, size=how.canvas, mode="area")
    (count, channels, side, _), canvas, share = x.shape, how.canvas, len(x) // len(rngs)
    is_moved, size = bool(how.rotation or how.scale or how.shift or canvas != side), (share, channels, canvas, canvas)
    drawn = [
        (
            rng.uniform(-1, 1, (4, share)) if is_moved else None,
            rng.random((share, 1, 1, 1)) if how.flip else None,
            rng.standard_normal(size, dtype=np.float32) if how.noise else None,
        )
        for rng in rngs
    ]
    moves, flips, noises = zip(*drawn, strict=True)
    if is_moved:
        draw = torch.from_numpy(np.concatenate(moves, axis=1)).float()
        angle = draw[0] * math.radians(how.rotation)
        zoom = (canvas / side) / (1 + draw[1] * how.scale)
        move = -draw[2:] * how.shift * 2 / side
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        theta = torch.stack([cos, -sin, move[0], sin, cos, move[1]], 1).view(count, 2, 3)
        grid = functional.affine_grid(theta, [count, channels, canvas, canvas], align_corners=False)
        x = functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    if how.flip:
        x = torch.where(torch.from_numpy(np.concatenate(flips) < 0.5), x.flip(-1), x)
    if how.noise:
        x = x + how.noise * torch.from_numpy(np.concatenate(noises))
    return x * 2 - 1
