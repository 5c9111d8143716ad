"""How much of its training labels a model has learned by heart."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lazyneuron.data.images import Augmentation, Images, image_batch
from lazyneuron.paper.estimate import forward_seconds
from lazyneuron.paper.study import Parts, Study, Trained
from lazyneuron.paper.task import ImageBatches, forward, load_batches
from lazyneuron.paper.trainings import image_task
from lazyneuron.records.record import Record

_BATCH = 250


@dataclass(frozen=True, kw_only=True)
class Memorised(Study):
    """Accuracy of trained models on at most `num_images` of their own training images, not augmented.

    The `case` is "MODEL given", "MODEL true" or "MODEL wrong": on the labels that it was trained on, on those before
    any were redrawn, and on the given labels of the images alone whose label is not the true one.
    """

    num_images: int

    def seconds(self) -> float:
        return self.num_images * sum(forward_seconds(run) / run.batch_size for run in self.of)

    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        for number, trained in enumerate(models, 1):
            batches = trained.batches
            assert isinstance(batches, ImageBatches)
            clean = replace(trained.run, task=replace(image_task(trained.run), random_labels=0.0))
            unchanged = load_batches(clean, place["seed"], cache)
            assert isinstance(unchanged, ImageBatches)
            images = batches.data.train
            count = min(self.num_images, len(images.labels))
            predicted = _predicted(trained, images, batches.augmentation.canvas, count)
            found = label_accuracies(predicted, images.labels[:count], unchanged.data.train.labels[:count])
            records = [
                Record(
                    what="accuracy",
                    value=value,
                    unit="fraction",
                    case=f"{trained.run.name} {name}",
                    split="train",
                    num_tokens=num_images,
                    **place,
                )
                for name, value, num_images in found
            ]
            yield number, len(models), records


def label_accuracies(predicted: np.ndarray, given: np.ndarray, true: np.ndarray) -> Iterator[tuple[str, float, int]]:
    """ "given", "true" and, where labels differ, "wrong": the share of predictions that agree, and of how many."""
    wrong = given != true
    yield "given", float((predicted == given).mean()), len(predicted)
    yield "true", float((predicted == true).mean()), len(predicted)
    if wrong.any():
        yield "wrong", float((predicted == given)[wrong].mean()), int(wrong.sum())


@torch.no_grad()
def _predicted(trained: Trained, images: Images, canvas: int, count: int) -> np.ndarray:
    """The classes that the model gives the first `count` images."""
    device, rng = next(trained.model.parameters()).device, np.random.default_rng(0)
    found = []
    for start in range(0, count, _BATCH):
        batch = image_batch(images, np.arange(start, min(start + _BATCH, count)), Augmentation(canvas=canvas), rng)
        logits, _ = forward(trained.model, {name: value.to(device) for name, value in batch.items()})
        found.append(logits.argmax(-1).cpu())
    return torch.cat(found).numpy()
