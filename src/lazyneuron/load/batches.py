"""Batches for a loaded model: from text, images, a data set, or the user's own inputs."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_map

from lazyneuron.errors import UsageError
from lazyneuron.load.models import Loaded, forward_arguments, main_argument
from lazyneuron.load.pixels import to_pixels
from lazyneuron.load.sources import image_source, text_source
from lazyneuron.load.token_rows import token_rows

Inputs = Mapping[str, Any] | tuple[Any, ...] | Tensor


def batches(
    loaded: Loaded,
    *,
    text: str | None = None,
    images: str | None = None,
    dataset: str | None = None,
    batch_size: int,
    length: int | None = None,
) -> tuple[Iterator[Inputs], str]:
    """Batches that fit a model's forward pass, and a phrase that describes the data.

    `text` is a source of `lazyneuron.data.text` (default "python"), `images` one of `lazyneuron.data.images` (default
    "digits"), a flat folder of images or a single one; `dataset` is a hub data set whose columns give either. Models
    that take both get both, as many texts as images. A user's own function supplies its inputs. UsageError if the
    model takes other inputs or the data are empty; the first batch is made before this returns.
    """
    if loaded.kind == "other":
        raise _cannot_feed(loaded, main_argument(loaded.model))
    given = {"text": text, "images": images, "dataset": dataset}
    taken = set() if loaded.kind == "own" else {*loaded.kind.split(" and "), "dataset"}
    if wrong := [name for name, value in given.items() if value is not None and name not in taken]:
        takes = "has its own inputs" if loaded.kind == "own" else f"takes {loaded.kind}"
        raise UsageError(f"{loaded.name} {takes}: leave out {wrong[0]} ({given[wrong[0]]})")
    if dataset is not None and (text or images):
        raise UsageError(f"data set {dataset} and {text or images}: give only one of them")
    if loaded.kind == "own":
        made, sentence = _own(loaded), f"the inputs that {loaded.name} returned"
    else:
        parts, sentences = [], []
        if "text" in loaded.kind:
            documents, what = text_source(text, dataset, has_substitute="images" in loaded.kind)
            part, rows = _text_batches(loaded, documents, batch_size, length)
            parts.append(part)
            sentences.append(f"{what}, {rows}")
        if "images" in loaded.kind:
            pictures, what = image_source(images, dataset)
            parts.append(image_batches(loaded, pictures, batch_size=batch_size))
            sentences.append(what)
        made = ({k: v for part in group for k, v in part.items()} for group in zip(*parts, strict=False))
        sentence = "; ".join(sentences)
    first = next(made, None)
    if first is None:
        raise UsageError(f"{loaded.name} returned no inputs: return at least one batch")
    if loaded.kind != "own":
        _check_complete(loaded, first)
    return itertools.chain([first], made), sentence


def text_batches(
    loaded: Loaded, documents: Iterable[str], *, batch_size: int, length: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """Batches of token ids, int64 [batch_size, at most `length`] on the model's device; the last may have fewer rows.

    What a row is depends on the model. Decoders: full windows of the running text, documents joined by the end token,
    no padding. Encoders: one document or a window of it with special tokens, padded, with `attention_mask`; masked
    language models get plain text with nothing masked. Encoder-decoders: windows of the running text, for T5 (tokenizer
    with sentinels) with corrupted spans (`lazyneuron.data.spans`, `length` input tokens), otherwise unchanged; the
    decoder gets the target, or the window itself, shifted by the model's own rule.

    `length` defaults to 512 or the model's number of positions, whichever is less. Text shorter than one window gives
    one shorter row. Documents are read as needed, long ones tokenized in pieces. UsageError if the model takes no
    text, the tokenizer is missing or belongs to another model, `length` exceeds the positions, or the text is empty.
    """
    return _text_batches(loaded, documents, batch_size, length)[0]


def _text_batches(
    loaded: Loaded, documents: Iterable[str], batch_size: int, length: int | None
) -> tuple[Iterator[dict[str, Tensor]], str]:
    main = main_argument(loaded.model)
    if "text" not in loaded.kind:
        raise _cannot_feed(loaded, main)
    if loaded.tokenizer is None:
        why = next((note for note in loaded.notes if "tokenizer" in note), f"{loaded.name} has no tokenizer")
        raise UsageError(f"{why}, so it cannot get {_needs(loaded, main)}")
    _check_batch_size(batch_size)
    rows, to_batch, what = token_rows(loaded, documents, length)

    def made() -> Iterator[dict[str, Tensor]]:
        group: list[list[int]] = []
        for group in _grouped(rows, batch_size):
            yield _on_device(loaded, to_batch(group))
        if not group:
            raise UsageError("the text is empty: give a text with words in it")

    return made(), what


def image_batches(
    loaded: Loaded, images: Iterable[Image.Image | Path | str], *, batch_size: int
) -> Iterator[dict[str, Tensor]]:
    """Batches of `pixel_values` [batch_size, C, H, W] in the model's dtype on its device; the last may be smaller.

    Images are PIL images or files of any size, converted to RGB (or grey, for a model with one channel). The model's
    image processor resizes and normalises them; without one, Pillow scales and crops them to the model's size, and they
    are normalised as timm specifies or to [-1, 1]. UsageError if the model takes no images, a file is not an image, or
    there is none.
    """
    if "images" not in loaded.kind:
        raise _cannot_feed(loaded, main_argument(loaded.model))
    _check_batch_size(batch_size)

    def made() -> Iterator[dict[str, Tensor]]:
        group: list[Any] = []
        for group in _grouped(images, batch_size):
            yield _on_device(loaded, to_pixels(loaded, group))
        if not group:
            raise UsageError("there are no images: give a folder that has some")

    return made()


def _own(loaded: Loaded) -> Iterator[Inputs]:
    found = [loaded.inputs] if isinstance(loaded.inputs, Mapping | tuple | Tensor) else loaded.inputs
    for batch in found:
        yield _on_device(loaded, dict(batch) if isinstance(batch, Mapping) else batch, loaded.dtype)


def _on_device(loaded: Loaded, batch: Any, dtype: torch.dtype | None = None) -> Any:
    """`batch` on the model's device, floating tensors in `dtype` unless that is None."""
    device = next((p.device for p in loaded.model.parameters()), None)

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.to(device=device, dtype=dtype if leaf.is_floating_point() else None)

    return tree_map(moved, batch)


def _check_complete(loaded: Loaded, batch: Any) -> None:
    for name, argument in forward_arguments(loaded.model).items():
        if argument.default is argument.empty and name not in batch:
            raise _cannot_feed(loaded, name)


def _cannot_feed(loaded: Loaded, argument: str) -> UsageError:
    return UsageError(f"text and images do not give {loaded.name} {_needs(loaded, argument)}")


def _needs(loaded: Loaded, argument: str) -> str:
    hint = "write a function that returns (model, inputs) and pass module.path:function"
    return f"the {argument} that {type(loaded.model).__name__} takes: {hint}"


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"a batch has at least 1 row; got batch_size={batch_size}")


def _grouped(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    stream = iter(items)
    while group := list(itertools.islice(stream, size)):
        yield group
