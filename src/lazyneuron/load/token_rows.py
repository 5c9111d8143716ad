"""Rows of token ids from running text, for decoders, encoders and encoder-decoders."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyneuron.data import spans
from lazyneuron.errors import UsageError
from lazyneuron.load.models import Loaded, forward_arguments, main_argument

DEFAULT_LENGTH = 512
_PIECE_CHARACTERS = 1 << 16


def token_rows(
    loaded: Loaded, documents: Iterable[str], length: int | None
) -> tuple[Iterator[list[int]], Callable[[list[list[int]]], dict[str, Tensor]], str]:
    """Rows of token ids that fit the model, a function that makes a batch of some, and a phrase that describes them.

    See `text_batches` for what a row is.
    """
    model, tokenizer, arguments = loaded.model, loaded.tokenizer, forward_arguments(loaded.model)
    length = _window_length(loaded, length)
    is_pair = {"input_ids", "decoder_input_ids"} <= arguments.keys()
    prefix, suffix = _special_tokens(tokenizer)
    room = length - len(prefix) - len(suffix)
    if is_pair and (sentinels := _sentinels(tokenizer)):
        if length < 4:
            raise UsageError(f"span corruption needs at least 4 tokens; got length={length}")
        if (needed := spans.noise_counts(spans.raw_length(length))[1]) > len(sentinels):
            raise UsageError(
                f"length={length} needs {needed} sentinels but the tokenizer has {len(sentinels)}: choose a smaller one"
            )
        rng = np.random.default_rng(0)
        rows = _running(tokenizer, documents, spans.raw_length(length), [])
        what = f"windows of {length} tokens with corrupted spans"
        return rows, lambda group: _corrupted(model, group, np.asarray(sentinels), tokenizer.eos_token_id, rng), what
    is_decoder = not is_pair and ("input_ids" not in arguments or _is_causal(model))
    if not is_decoder and room < 1:
        raise UsageError(
            f"length={length} leaves no room beside {len(prefix + suffix)} special tokens: choose a larger one"
        )
    if is_pair:
        rows = (prefix + row + suffix for row in _running(tokenizer, documents, room, []))
        what = f"windows of {length} tokens for encoder and decoder"
        return rows, lambda group: _pair(model, _tensor(model, group), _tensor(model, group)), what
    if is_decoder:
        name = main_argument(model) if "input_ids" in arguments else "decoder_input_ids"
        rows = _running(tokenizer, documents, length, prefix)
        return rows, lambda group: {name: _tensor(model, group)}, f"windows of {length} tokens"
    rows = (prefix + row + suffix for text in documents for row in _cut(_encoded(tokenizer, text), room))
    what = f"documents in rows of up to {length} tokens, none of them masked"
    return rows, lambda group: _padded(model, group, tokenizer.pad_token_id or 0), what


def num_positions(model: nn.Module) -> int:
    """The number of text positions of a Hugging Face model; 0 if unlimited."""
    config: Any = getattr(model, "config", None)
    with contextlib.suppress(ValueError, AttributeError):  # encoder and decoder have configs of their own
        config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None) or 0
    for name, part in model.named_modules():
        if "position" in name and isinstance(part, nn.Embedding) and part.padding_idx is not None:
            limit = part.num_embeddings - part.padding_idx - 1  # RoBERTa's positions start after the padding index
    return limit


def _window_length(loaded: Loaded, length: int | None) -> int:
    limit = num_positions(loaded.model)
    if length is None:
        return min(DEFAULT_LENGTH, limit) if limit > 0 else DEFAULT_LENGTH
    if length < 1 or 0 < limit < length:
        raise UsageError(f"{loaded.name} has {limit or 'unlimited'} positions; got length={length}")
    return length


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and after a text."""
    bare = tokenizer("the", add_special_tokens=False)["input_ids"]
    full = tokenizer("the")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


def _sentinels(tokenizer: Any) -> list[int]:
    vocabulary = tokenizer.get_vocab() if tokenizer.eos_token_id is not None else {}
    names = itertools.takewhile(vocabulary.__contains__, (f"<extra_id_{i}>" for i in range(100)))
    return [vocabulary[name] for name in names]


def _is_causal(model: Any) -> bool:
    """Whether it is a causal model: it can generate, is marked as a decoder, or its family is causal and not masked."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    kind = type(model.config)
    by_family = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    return by_family or getattr(model.config, "is_decoder", False) or model.can_generate()


def _encoded(tokenizer: Any, text: str) -> Iterator[list[int]]:
    """Token ids of a text without special tokens, piece by piece; long texts are split at spaces."""
    start = 0
    while start < len(text):
        end = start + _PIECE_CHARACTERS
        if end < len(text):
            space = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
            end = space if space > 0 else end
        if ids := tokenizer(text[start:end], add_special_tokens=False, verbose=False)["input_ids"]:
            yield ids
        start = end


def _cut(pieces: Iterable[list[int]], length: int) -> Iterator[list[int]]:
    """The tokens of all pieces in windows of `length`; the last may be shorter."""
    kept: list[int] = []
    for piece in pieces:
        kept += piece
        whole = len(kept) // length * length
        yield from (kept[start : start + length] for start in range(0, whole, length))
        kept = kept[whole:]
    if kept:
        yield kept


def _running(tokenizer: Any, documents: Iterable[str], length: int, prefix: list[int]) -> Iterator[list[int]]:
    """Full windows over all documents, each after `prefix`, joined by the end token; a shorter one if none is full."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    between = prefix if prefix == end else end + prefix

    def stream() -> Iterator[list[int]]:
        joint = prefix
        for text in documents:
            for number, ids in enumerate(_encoded(tokenizer, text)):
                yield ids if number else joint + ids
                joint = between

    for number, row in enumerate(_cut(stream(), length)):
        if number == 0 or len(row) == length:
            yield row


def _tensor(model: Any, rows: list[list[int]]) -> Tensor:
    """int64 [rows, tokens] from rows of equal length; UsageError for an id beyond the model's embedding."""
    ids = torch.tensor(rows)
    size = None
    with contextlib.suppress(NotImplementedError, AttributeError):
        size = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if size is not None and int(ids.max()) >= size:
        raise UsageError(
            f"the tokenizer gives token {int(ids.max())} but the model has {size}: it belongs to another model"
        )
    return ids


def _padded(model: Any, rows: list[list[int]], pad: int) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = _tensor(model, [row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids} | ({"attention_mask": mask} if "attention_mask" in forward_arguments(model) else {})


def _corrupted(
    model: Any, rows: list[list[int]], sentinels: np.ndarray, end: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    if len(rows[0]) < 2:
        raise UsageError("the text has 1 token, too few for span corruption: give more text")
    pairs = [spans.corrupt(np.asarray(row), spans.noise_mask(len(row), rng), sentinels, end) for row in rows]
    inputs, targets = ([part.tolist() for part in parts] for parts in zip(*pairs, strict=True))
    return _pair(model, _tensor(model, inputs), _tensor(model, targets))


def _pair(model: Any, ids: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Encoder and decoder inputs: the decoder's are `targets` shifted right, by the model's own rule if it has one."""
    if shift := getattr(model, "prepare_decoder_input_ids_from_labels", None):
        device = next(p.device for p in model.parameters())
        return {"input_ids": ids, "decoder_input_ids": shift(targets.to(device))}
    sources = (model.config, getattr(model, "generation_config", None))
    found = (getattr(s, n, None) for n in ("decoder_start_token_id", "bos_token_id") for s in sources)
    if (start := next((token for token in found if token is not None), None)) is None:
        raise UsageError(f"{type(model).__name__} has no decoder_start_token_id in its config.json: add it")
    return {"input_ids": ids, "decoder_input_ids": nn.functional.pad(targets[:, :-1], (1, 0), value=start)}
