"""Accuracy of trained models on corrupted images (arXiv 1903.12261), all models on the same images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lazyneuron.data.images import Augmentation, augment
from lazyneuron.paper.corruptions.corruption import SEVERITIES, corrupt, corruption_error, mean_corruption_error
from lazyneuron.paper.corruptions.severities import Constants
from lazyneuron.paper.estimate import forward_seconds
from lazyneuron.paper.study import Parts, Study, Trained
from lazyneuron.paper.task import ImageBatches, labelled
from lazyneuron.records.record import Record
from lazyneuron.training.evaluation import Evaluation
from lazyneuron.training.quality import Quality

_BATCH = 250
_CORRUPT_S = 0.4e-3


@dataclass(frozen=True, kw_only=True)
class Robustness(Study):
    """Accuracy of trained models under `corruptions` of at most `num_images` held-out images, at five severities.

    `constants` says whose severities they are: "ImageNet-C", or "CIFAR-10-C", the milder ones for small images.
    Accuracy and ECE have the `case` "MODEL CORRUPTION" and the severity as `x`; "clean" has none. The first of the
    models is the baseline of "corruption_error", the error over severities relative to its own, and of "mce", the mean
    of that over corruptions; a corruption under which it never errs has neither.
    """

    corruptions: tuple[str, ...]
    constants: Constants
    num_images: int

    def seconds(self) -> float:
        one = sum(forward_seconds(run) / run.batch_size for run in self.of)
        return len(SEVERITIES) * len(self.corruptions) * self.num_images * (one + _CORRUPT_S)

    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        errors: dict[str, dict[tuple[str, int], float]] = {trained.run.name: {} for trained in models}
        for number, corruption in enumerate(("clean", *self.corruptions)):
            found = []
            for severity in SEVERITIES if corruption != "clean" else (0,):
                qualities = _qualities(self, models, corruption, severity, place["seed"])
                for name, quality in qualities.items():
                    here = {"case": f"{name} {corruption}", "x": float(severity), "split": "test", **place}
                    here["num_tokens"] = quality.count
                    found.append(Record(what="accuracy", value=quality.accuracy, unit="fraction", **here))
                    found.append(Record(what="ece", value=quality.ece, unit="fraction", **here))
                    if corruption != "clean":
                        errors[name][corruption, severity] = 1 - quality.accuracy
            yield number + 1, len(self.corruptions) + 1, found
        baseline = errors[models[0].run.name]
        sums = {corruption: sum(baseline[corruption, level] for level in SEVERITIES) for corruption in self.corruptions}
        found = []
        for name, all_errors in errors.items():
            own = {key: error for key, error in all_errors.items() if sums[key[0]]}
            for corruption, value in corruption_error(own, baseline).items():
                case = f"{name} {corruption}"
                found.append(Record(what="corruption_error", value=value, unit="of the baseline's", case=case, **place))
            if own:
                mean = mean_corruption_error(own, baseline)
                found.append(Record(what="mce", value=mean, unit="of the baseline's", case=name, **place))
        yield len(self.corruptions) + 1, len(self.corruptions) + 1, found


def _qualities(run: Robustness, models: list[Trained], corruption: str, severity: int, seed: int) -> dict[str, Quality]:
    """The quality of each model on the same corrupted images, drawn by `seed`."""
    batches = models[0].batches
    assert isinstance(batches, ImageBatches)
    images, rng = batches.data.evaluation, np.random.default_rng(0)
    plain = Augmentation(canvas=batches.augmentation.canvas)
    qualities = {trained.run.name: Quality(num_classes=batches.num_classes, adaptive=False) for trained in models}
    count = min(run.num_images, len(images.labels))
    for start in range(0, count, _BATCH):
        indices = np.arange(start, min(start + _BATCH, count))
        pixels, labels = images.get(indices)
        if corruption != "clean":
            pixels = corrupt(pixels, corruption, severity, indices, seed, run.constants)
        batch = {"pixel_values": augment(pixels, plain, rng), "labels": torch.as_tensor(labels)}
        for trained in models:
            Evaluation(trained.model, quality=qualities[trained.run.name]).run([labelled(batch)])
    return qualities
