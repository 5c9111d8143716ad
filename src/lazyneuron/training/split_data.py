"""Labelled data in two parts that share no document and no image: to fine-tune on, and to evaluate on."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lazyneuron.data.images import Images, LazyImages, load_images
from lazyneuron.data.text import HELD_OUT_EVERY, documents
from lazyneuron.errors import UsageError
from lazyneuron.load.batches import image_batches, text_batches
from lazyneuron.load.models import Loaded, forward_arguments
from lazyneuron.load.sources import image_source, text_source
from lazyneuron.training.evaluation import Batch
from lazyneuron.training.quality import IGNORED

_MASKED_SHARE = 0.15
_SHUFFLED_AT_ONCE = 4096


@dataclass(frozen=True)
class SplitData:
    """`evaluation()` gives the held-out batches; `training(start)` endless others, from that step on.

    Both are the same each time. `about` describes them; `is_labelled` is False for data without labels for the model,
    and `has_perplexity` is True for language models.
    """

    evaluation: Callable[[], Iterator[Batch]]
    training: Callable[[int], Iterator[Batch]]
    about: str
    is_labelled: bool
    has_perplexity: bool


def text_data(
    loaded: Loaded, source: str | None, *, batch_size: int, length: int | None, seed: int, is_split: bool
) -> SplitData:
    """Text in batches of `load.batches.text_batches`, one document in twenty held out, with labels for the model.

    Decoders: the next token. Encoder-decoders: the decoder's next input (so the target's last token is not scored).
    Masked language models: 15 % of the tokens, drawn by a fixed seed and replaced by the mask token; only these are
    scored. Other models have no labels. Training documents are shuffled by `seed` within blocks of 4,096, again in each
    epoch. With `is_split`, too few documents are a UsageError; without it, a short text is evaluated on as a whole.
    """
    task = _task(loaded)
    about = f"the text in {source}" if source and source.startswith("hf:") else text_source(source, None)[1]

    def part(is_held_out: bool) -> Iterator[str]:
        is_hub = source is not None and source.startswith("hf:")
        every = documents(str(source), sys.maxsize) if is_hub else text_source(source, None)[0]
        for number, text in enumerate(text for text in every if text.strip()):
            if (number % HELD_OUT_EVERY == HELD_OUT_EVERY // 2) == is_held_out:
                yield text

    has_enough = next(part(True), None) is not None
    if is_split and not has_enough:
        fix = f"give at least {HELD_OUT_EVERY // 2 + 1} paragraphs or files"
        raise UsageError(f"{about} has too few documents to hold out one in {HELD_OUT_EVERY}: {fix}")

    def scored(batches: Iterable[dict[str, Tensor]], seed: int, start: int) -> Iterator[Batch]:
        for number, inputs in enumerate(batches, start):
            yield _labelled(loaded, task, inputs, (seed, number))

    def evaluation() -> Iterator[Batch]:
        held_out = part(True) if has_enough else part(False)
        return scored(text_batches(loaded, held_out, batch_size=batch_size, length=length), 0, 0)

    def training(start: int) -> Iterator[Batch]:
        def endless() -> Iterator[dict[str, Tensor]]:
            for epoch in itertools.count():
                texts = _shuffled(part(False), np.random.default_rng((seed, epoch)))
                yield from text_batches(loaded, texts, batch_size=batch_size, length=length)

        return scored(itertools.islice(endless(), start, None), seed + 1, start)

    about += f", one document in {HELD_OUT_EVERY} held out" if has_enough else ", all of it, for it is short"
    return SplitData(evaluation, training, about, task is not None, task is not None)


def _task(loaded: Loaded) -> str | None:
    """The labels of a text for this model: "next token", the "targets" of its decoder, "masked" tokens, or None."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    model: Any = loaded.model
    arguments = forward_arguments(model)
    if model.can_generate():
        return "targets" if {"input_ids", "decoder_input_ids"} <= arguments.keys() else "next token"
    is_masked = _is_one_of(model, MODEL_FOR_MASKED_LM_MAPPING)
    return "masked" if is_masked and getattr(loaded.tokenizer, "mask_token_id", None) is not None else None


def _is_one_of(model: Any, mapping: Any) -> bool:
    found = mapping.get(type(model.config), ())
    return type(model) in (found if isinstance(found, tuple) else (found,))


def _labelled(loaded: Loaded, task: str | None, inputs: dict[str, Tensor], key: tuple[int, int]) -> Batch:
    if task is None:
        return Batch(inputs)
    if task != "masked":
        ids = inputs["decoder_input_ids" if task == "targets" else "input_ids"]
        labels = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=IGNORED)
        if (mask := inputs.get("attention_mask")) is not None and task == "next token":
            labels = labels.masked_fill(torch.nn.functional.pad(mask[:, 1:], (0, 1)) == 0, IGNORED)
        return Batch(inputs, labels)
    ids = inputs["input_ids"]
    special = torch.tensor(loaded.tokenizer.all_special_ids, device=ids.device)
    drawn = np.random.default_rng(key).random(tuple(ids.shape)) < _MASKED_SHARE
    is_masked = torch.from_numpy(drawn).to(ids.device) & ~torch.isin(ids, special)
    masked = ids.masked_fill(is_masked, loaded.tokenizer.mask_token_id)
    return Batch(inputs | {"input_ids": masked}, ids.masked_fill(~is_masked, IGNORED))


def _shuffled(texts: Iterable[str], rng: np.random.Generator) -> Iterator[str]:
    stream = iter(texts)
    while some := list(itertools.islice(stream, _SHUFFLED_AT_ONCE)):
        yield from (some[i] for i in rng.permutation(len(some)))


def image_data(loaded: Loaded, source: str | None, *, batch_size: int, seed: int) -> SplitData:
    """Images, with labels if the model is a classifier with as many classes as the data.

    `source` is as in `load.sources.image_source`; images with classes are split as in `data.images.load_images`, of a
    folder without classes one image in twenty is held out. Classes are matched by their order, not their names.
    """
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    path = Path(source or "digits")
    has_classes = not path.exists() or bool(list(path.glob("*-ubyte*")))
    has_classes |= path.is_dir() and sum(folder.is_dir() for folder in path.iterdir()) > 1
    if has_classes:
        found = load_images(source or "digits", image_size=0)
        parts = {True: _pictures(found.evaluation), False: _pictures(found.train)}
        model: Any = loaded.model
        is_labelled = _is_one_of(model, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING)
        is_labelled &= model.config.num_labels == found.num_classes
        about = f"the images of {source or 'digits'}, a part held out"
        about += f", {found.num_classes} classes by their order" if is_labelled else ", labels left out"
    else:
        every = [(picture, IGNORED) for picture in image_source(source, None)[0]]
        parts = {True: every[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY] or every}
        kept = {id(item) for item in parts[True]}
        parts[False] = [item for item in every if id(item) not in kept] or every
        is_labelled, about = False, f"the images in {source}, one in {HELD_OUT_EVERY} held out"

    def scored(items: Iterable[tuple[Any, int]]) -> Iterator[Batch]:
        stream = iter(items)
        while some := list(itertools.islice(stream, batch_size)):
            inputs = next(image_batches(loaded, [_opened(item) for item, _ in some], batch_size=batch_size))
            device = next(iter(inputs.values())).device
            labels = torch.tensor([label for _, label in some], device=device)
            yield Batch(inputs, labels if is_labelled else None)

    def training(start: int) -> Iterator[Batch]:
        def endless() -> Iterator[tuple[Any, int]]:
            for epoch in itertools.count():
                order = np.random.default_rng((seed, epoch)).permutation(len(parts[False]))
                yield from (parts[False][i] for i in order)

        return scored(itertools.islice(endless(), start * batch_size, None))

    return SplitData(lambda: scored(parts[True]), training, about, is_labelled, False)


def _pictures(images: Images) -> list[tuple[Any, int]]:
    """The place of each image, which is not read yet, and its label."""
    return [((images, i), int(label)) for i, label in enumerate(images.labels)]


def _opened(item: Any) -> Image.Image | Path:
    if not isinstance(item, tuple):
        return item
    images, i = item
    if isinstance(images, LazyImages):
        found = images.items[i]
        return found["image"] if isinstance(found, dict) else found
    pixels = images.get(np.array([i]))[0][0].numpy().transpose(1, 2, 0)
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
