"""A task: a model to train and its batches, each a function of (seed, step), whatever the workers and restarts."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lazyneuron.data.images import Augmentation, ImageData, image_batch, load_images
from lazyneuron.data.text import TextData, load_text, num_windows, span_batch, span_windows
from lazyneuron.paper import variants
from lazyneuron.paper.models import MLP, ResNet, mixer, resnet, t5, vit
from lazyneuron.paper.runs import ImageTask, T5Task, Training
from lazyneuron.sites import Site, find_sites
from lazyneuron.training.evaluation import Batch

_TRAIN, _PROBE, _TEST = 0, 1, 2
_IMAGES_AT_A_TIME = 512


@dataclass(frozen=True)
class TextBatches:
    """Batches of corrupted spans; the held-out part gives the same ones for every seed."""

    run: Training
    task: T5Task
    data: TextData
    seed: int

    def train(self, step: int) -> dict[str, Tensor]:
        return self._spans(self.data.train, (_TRAIN, self.seed, step))

    def probe(self, split: str, number: int) -> dict[str, Tensor]:
        return self._spans(self.data.evaluation if split == "eval" else self.data.train, (_PROBE, number))

    def test(self) -> Iterator[dict[str, Tensor]]:
        """The held-out text from its beginning, window after window; the last batch may be smaller."""
        tokens, length, size = self.data.evaluation, self.task.input_length, self.run.batch_size
        count = min(self.run.test_examples, num_windows(tokens, length))
        for start in range(0, count, size):
            numbers = range(start, min(start + size, count))
            yield span_windows(tokens, self.data.sentinels, numbers, length, (_TEST, start))

    def _spans(self, tokens: np.ndarray, key: tuple[int, ...]) -> dict[str, Tensor]:
        return span_batch(tokens, self.data.sentinels, self.run.batch_size, self.task.input_length, key)

    def model(self) -> nn.Module:
        return task_model(self.task, self.data.vocab_size)

    @property
    def num_examples(self) -> int:
        """Windows of training text."""
        return num_windows(self.data.train, self.task.input_length)

    @property
    def num_classes(self) -> int:
        return self.data.vocab_size

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint


@dataclass(frozen=True)
class ImageBatches:
    """Batches of augmented images; probes walk through the held-out images in order, the same for every seed.

    Small batches of training are made some steps at a time: always the same steps together, so that each keeps its
    bits wherever a run resumes.
    """

    run: Training
    task: ImageTask
    data: ImageData
    seed: int
    _made: dict[int, dict[str, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    def train(self, step: int) -> dict[str, Tensor]:
        if self.task.pixels == "fresh":
            return self._fresh(np.random.default_rng((_TRAIN, self.seed, step)))
        if step not in self._made:
            count = max(1, _IMAGES_AT_A_TIME // self.run.batch_size)
            first = step // count * count
            rngs = [np.random.default_rng((_TRAIN, self.seed, s)) for s in range(first, first + count)]
            drawn = [rng.integers(0, len(self.data.train.labels), self.run.batch_size) for rng in rngs]
            made = image_batch(self.data.train, np.concatenate(drawn), self.augmentation, *rngs)
            parts = {name: value.split(self.run.batch_size) for name, value in made.items()}
            self._made.clear()
            self._made.update({first + i: {name: parts[name][i] for name in parts} for i in range(count)})
        return self._made[step]

    def probe(self, split: str, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((_PROBE, number))
        images, size = self.data.evaluation if split == "eval" else self.data.train, self.run.batch_size
        indices = np.arange(number * size, (number + 1) * size) % len(images.labels)
        return image_batch(images, indices, self.augmentation, rng)

    def test(self) -> Iterator[dict[str, Tensor]]:
        """The held-out images in order, as they are but for the canvas; the last batch may be smaller."""
        images, rng = self.data.evaluation, np.random.default_rng(_TEST)
        order = np.arange(min(self.run.test_examples, len(images.labels)))
        plain = Augmentation(canvas=self.augmentation.canvas)
        for start in range(0, len(order), self.run.batch_size):
            yield image_batch(images, order[start : start + self.run.batch_size], plain, rng)

    def _fresh(self, rng: np.random.Generator) -> dict[str, Tensor]:
        side, size = self.augmentation.canvas, self.run.batch_size
        pixels = rng.uniform(-1, 1, (size, self.data.num_channels, side, side)).astype(np.float32)
        labels = rng.integers(0, self.data.num_classes, size)
        return {"pixel_values": torch.from_numpy(pixels), "labels": torch.from_numpy(labels)}

    @property
    def augmentation(self) -> Augmentation:
        """The task's; random pixels stay as they were drawn."""
        how = self.task.augmentation
        return how if self.task.pixels == "real" else Augmentation(canvas=how.canvas)

    def model(self) -> nn.Module:
        return task_model(self.task, self.data.num_classes, self.data.num_channels)

    @property
    def num_examples(self) -> float:
        """Training images; where none is repeated, more than any run has steps for."""
        return math.inf if self.task.pixels == "fresh" else len(self.data.train.labels)

    @property
    def num_classes(self) -> int:
        return self.data.num_classes

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint


Batches = TextBatches | ImageBatches


def task_model(task: T5Task | ImageTask, num_classes: int, num_channels: int = 1) -> nn.Module:
    """The task's model, for a vocabulary or so many classes of images, drawn from torch's generator."""
    if isinstance(task, T5Task):
        shape = {"num_layers": task.num_layers, "d_ff": task.d_ff}
        return t5(task.size, vocab_size=num_classes, hidden_act=task.hidden_act, **shape)
    side = task.augmentation.canvas
    if task.model == "mlp":
        return MLP(num_channels * side**2, task.d_ff or 512, num_classes)
    if task.model == "resnet":
        return resnet(task.size, num_classes=num_classes, num_channels=num_channels)
    shape: dict[str, Any] = {"num_layers": task.num_layers, "d_ff": task.d_ff, "patch_size": task.patch_size}
    shape |= {"num_classes": num_classes, "image_size": side, "num_channels": num_channels}
    if task.model == "mixer":
        return mixer(task.size, **shape)
    return vit(task.size, hidden_act=task.hidden_act, **shape)


def load_batches(run: Training, seed: int, cache: Path) -> Batches:
    """The data of a run, read from its source or from `cache`, and the model's builder that fits it."""
    task = run.task
    if isinstance(task, T5Task):
        text = load_text(task.text, task.vocab_size, task.max_text_bytes, cache)
        if task.data_share < 1:
            text = variants.with_share_of_text(text, task.data_share)
        return TextBatches(run, task, text, seed)
    data = load_images(task.images, task.augmentation.canvas)
    if task.class_share < 1:
        data = variants.first_classes(data, max(2, round(task.class_share * data.num_classes)))
    if task.data_share < 1:
        data = variants.with_share(data, task.data_share, seed)
    if task.pixels != "real":
        data = variants.with_random_pixels(data, task.augmentation.canvas, seed)
    if task.random_labels:
        data = variants.with_random_labels(data, task.random_labels, seed)
    return ImageBatches(run, task, data, seed)


def build_model(batches: Batches, seed: int) -> nn.Module:
    """A fresh model, its weights drawn by `seed` alone; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = batches.model()
    if batches.task.mlps == "none":
        example = labelled(batches.probe("eval", 0)).inputs
        silence(model, sites_of(model, {name: value[:1] for name, value in example.items()}))
    return model


def silence(model: nn.Module, sites: Sequence[Site]) -> None:
    """Make every MLP give 0 without computing it, and train none of its weights.

    What is before an MLP gets a gradient of zeros: a process that gets none would keep the others waiting.
    """
    for site in sites:
        assert site.down is not None
        mlp = model.get_submodule(site.down.rsplit(".", 2)[0])
        mlp.requires_grad_(False)
        mlp.forward = partial(torch.mul, 0)


def sites_of(model: nn.Module, example: dict[str, Tensor]) -> list[Site]:
    """Where a model's density is measured: its MLPs, or what a ResNet has in their place."""
    return model.sites() if isinstance(model, ResNet) else find_sites(model, example)


def forward(model: Callable[..., Any], batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """fp32 logits [N, V] and labels [N] of a batch, one row for each prediction."""
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
    output = model(**inputs)
    logits = output if isinstance(output, Tensor) else output.logits
    return logits.float().flatten(0, -2), batch["labels"].flatten()


def labelled(batch: dict[str, Tensor]) -> Batch:
    """A batch with its labels apart from the model's inputs."""
    return Batch({name: value for name, value in batch.items() if name != "labels"}, batch["labels"])


class _Steps(Dataset):
    def __init__(self, batches: Batches, stop: int, rank: int, num_ranks: int) -> None:
        self.batches, self.stop, self.rank, self.num_ranks = batches, stop, rank, num_ranks

    def __len__(self) -> int:
        return self.stop

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return rows_of_rank(self.batches.train(step), self.rank, self.num_ranks)


def rows_of_rank(batch: dict[str, Tensor], rank: int, num_ranks: int) -> dict[str, Tensor]:
    """This rank's rows of a batch; none where there are fewer rows than ranks."""
    return {name: value[rank::num_ranks] for name, value in batch.items()}


def training_batches(batches: Batches, start: int, stop: int, rank: int, num_ranks: int) -> Iterable[dict[str, Tensor]]:
    """This rank's share of the batches of steps `start` to `stop` - 1, made by the run's worker processes if any."""
    steps, order = _Steps(batches, stop, rank, num_ranks), range(start, stop)
    if not batches.run.num_workers:
        return map(steps.__getitem__, order)
    return DataLoader(steps, batch_size=None, sampler=order, num_workers=batches.run.num_workers)
