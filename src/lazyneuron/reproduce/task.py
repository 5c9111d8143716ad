"""A task: a model to train and its batches, each a function of (seed, step), whatever the workers and restarts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lazyneuron.data.images import ImageData, image_batch, load_images
from lazyneuron.data.text import TextData, load_text, span_batch
from lazyneuron.models import MLP, t5, vit
from lazyneuron.reproduce.recipe import MLPTask, T5Task, Training, ViTTask

_TRAIN, _PROBE = 0, 1


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

    def _spans(self, tokens: np.ndarray, key: tuple[int, ...]) -> dict[str, Tensor]:
        return span_batch(tokens, self.data.sentinels, self.run.batch_size, self.task.input_length, key)

    def model(self) -> nn.Module:
        task = self.task
        return t5(task.size, vocab_size=self.data.vocab_size, num_layers=task.num_layers, d_ff=task.d_ff)

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint


@dataclass(frozen=True)
class ImageBatches:
    """Batches of augmented images; probes walk through the held-out images in order, the same for every seed."""

    run: Training
    task: ViTTask | MLPTask
    data: ImageData
    seed: int

    def train(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((_TRAIN, self.seed, step))
        indices = rng.integers(0, len(self.data.train.labels), self.run.batch_size)
        return image_batch(self.data.train, indices, self.task.augmentation, rng)

    def probe(self, split: str, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((_PROBE, number))
        images = self.data.evaluation if split == "eval" else self.data.train
        size = self.run.batch_size
        indices = np.arange(number * size, (number + 1) * size) % len(images.labels)
        return image_batch(images, indices, self.task.augmentation, rng)

    def model(self) -> nn.Module:
        task, data, side = self.task, self.data, self.task.augmentation.canvas
        if isinstance(task, MLPTask):
            return MLP(data.num_channels * side**2, task.d_ff, data.num_classes)
        return vit(
            task.size,
            num_classes=data.num_classes,
            image_size=side,
            num_channels=data.num_channels,
            num_layers=task.num_layers,
            d_ff=task.d_ff,
            patch_size=task.patch_size,
        )

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint


Batches = TextBatches | ImageBatches


def load_batches(run: Training, seed: int, cache: Path) -> Batches:
    """The data of a run, read from its source or from `cache`, and the model's builder that fits it."""
    task = run.task
    if isinstance(task, T5Task):
        return TextBatches(run, task, load_text(task.text, task.vocab_size, task.max_text_bytes, cache), seed)
    return ImageBatches(run, task, load_images(task.images, task.augmentation.canvas), seed)


def build_model(batches: Batches, seed: int) -> nn.Module:
    """A fresh model, its weights drawn by `seed` alone; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return batches.model()


def forward(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """fp32 logits [N, V] and labels [N] of a batch, one row for each prediction."""
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
    output = model(**inputs)
    logits = output if isinstance(output, Tensor) else output.logits
    return logits.float().flatten(0, -2), batch["labels"].flatten()


class _Steps(Dataset):
    def __init__(self, batches: Batches, stop: int, rank: int, num_ranks: int) -> None:
        self.batches, self.stop, self.rank, self.num_ranks = batches, stop, rank, num_ranks

    def __len__(self) -> int:
        return self.stop

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return {name: value[self.rank :: self.num_ranks] for name, value in self.batches.train(step).items()}


def training_batches(batches: Batches, start: int, stop: int, rank: int, num_ranks: int) -> DataLoader:
    """This rank's share of the batches of steps `start` to `stop` - 1, made ahead by the run's worker processes."""
    steps = _Steps(batches, stop, rank, num_ranks)
    return DataLoader(steps, batch_size=None, sampler=range(start, stop), num_workers=batches.run.num_workers)
