"""Sources of text and images: data that ships with Python and scikit-learn, files, folders, hub data sets."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lazyneuron.data.images import IMAGE_SUFFIXES, load_images
from lazyneuron.data.text import documents
from lazyneuron.errors import UsageError
from lazyneuron.load.checkpoint import first_line, reaches_hub

_BLOCK_CHARACTERS = 1 << 20
_EMBEDDED_IMAGES = {
    "digits": "scikit-learn's digits",
    "letters": "letters drawn in Pillow's typeface",
    "dejavu": "letters drawn in the DejaVu typefaces",
    "fashion-mnist": "Fashion-MNIST",
}


def text_source(source: str | None, dataset: str | None, has_substitute: bool = False) -> tuple[Iterator[str], str]:
    """The documents of a source or data set, and a phrase that describes them; "python" if neither is given.

    `source` is as in `lazyneuron.data.text.documents`, except that a text file is read in blocks and a data set's
    held-out split is used. With `has_substitute`, a data set without text gives the default instead of a UsageError.
    """
    if source is not None and source.startswith("hf:"):
        source, dataset = None, source.removeprefix("hf:")
    if dataset is not None:
        found = _column(dataset, str)
        if found is not None:
            return found
        if not has_substitute:
            raise UsageError(f"the data set {dataset} has no column of text: choose another")
    if source is None or source == "python":
        return documents("python", sys.maxsize), "the English prose that ships with Python"
    if Path(source).is_file():
        return _paragraphs(Path(source)), f"the text in {source}"
    return documents(source, sys.maxsize), f"the text in {source}"


def image_source(source: str | None, dataset: str | None) -> tuple[Iterator[Image.Image | Path], str]:
    """The images of a source or data set in a fixed order, and a phrase that describes them; "digits" by default.

    `source` is as in `lazyneuron.data.images.load_images`, a folder of images (with or without a folder per class), or
    one image. Files are shuffled. A held-out split is used if there is one.
    """
    if source is not None and source.startswith("hf:"):
        source, dataset = None, source.removeprefix("hf:")
    if dataset is not None:
        found = _column(dataset, Image.Image)
        if found is None:
            raise UsageError(f"the data set {dataset} has no column of images: choose another")
        return found
    source = source or "digits"
    path = Path(source)
    if source in _EMBEDDED_IMAGES or (path.is_dir() and list(path.glob("*-ubyte*"))):
        held_out = load_images(source, image_size=0).evaluation
        arrays = (held_out.get(np.array([i]))[0][0].numpy() for i in range(len(held_out.labels)))
        name = _EMBEDDED_IMAGES.get(source, f"the images in {source}")
        return (Image.fromarray(array.transpose(1, 2, 0).squeeze(-1)) for array in arrays), f"{name}, held-out part"
    if path.is_file():
        return iter([path]), f"the image {source}"
    if not path.is_dir():
        raise UsageError(
            f"no images at {source}: give a folder, an image, hf:NAME, digits, letters, dejavu or fashion-mnist"
        )
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UsageError(f"{source} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}): give another folder")
    order = np.random.default_rng(0).permutation(len(files))
    return (files[i] for i in order), f"the {len(files)} images in {source}"


def _paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of a text file, read in blocks; a longer paragraph is split at a space."""
    rest = ""
    with path.open(encoding="utf-8", errors="replace") as file:
        while block := file.read(_BLOCK_CHARACTERS):
            *whole, rest = (rest + block).split("\n\n")
            yield from whole
            if len(rest) > _BLOCK_CHARACTERS:
                end = max(rest.rfind(" "), 0) or len(rest)
                yield rest[:end]
                rest = rest[end:]
    yield rest


def _column(dataset: str, kind: type) -> tuple[Iterator[Any], str] | None:
    """A data set column of type `kind`, streamed, and a phrase that describes it; None if there is no such column.

    `dataset` is OWNER/NAME or OWNER/NAME/CONFIG. The column is "text" or "image", otherwise the one of that type whose
    first value is largest. The split is the first available of validation, test and train.
    """
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(f"{dataset} needs the data set library: pip install 'lazyneuron[hub]'") from None
    path, config = (dataset, None) if dataset.count("/") < 2 else dataset.rsplit("/", 1)
    if not Path(path).exists() and not reaches_hub(path, "README.md", repo_type="dataset"):
        raise UsageError(
            f"{path} is no folder here, and the hub cannot be reached: check the network or give local data"
        )
    try:
        parts = load_dataset(path, config, streaming=True)
        part = next((name for name in ("validation", "test", "train") if name in parts), next(iter(parts)))
        rows = iter(parts[part])
        first = next(rows, {})
    except Exception as error:
        raise UsageError(f"cannot read the data set {dataset} ({first_line(error)}): choose another") from error
    sizes = {name: _size(value) for name, value in first.items() if isinstance(value, kind)}
    if not sizes:
        return None
    preferred = "text" if kind is str else "image"
    column = preferred if preferred in sizes else max(sizes, key=sizes.__getitem__)
    values = (row[column] for row in itertools.chain([first], rows))
    return values, f"column {column} of the data set {dataset} ({part})"


def _size(value: str | Image.Image) -> int:
    return len(value) if isinstance(value, str) else value.width * value.height
