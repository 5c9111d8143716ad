"""What a training records as it goes: density, idle neurons, loss and accuracy at its probe steps, then quality."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from lazyneuron.enforce.selection import TopK
from lazyneuron.paper.input_shares import InputShares
from lazyneuron.paper.progress import Progress
from lazyneuron.paper.runs import ImageTask, Training, probe_steps
from lazyneuron.paper.task import Batches, labelled
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record
from lazyneuron.sites import Site
from lazyneuron.training.evaluation import Evaluation, site_records
from lazyneuron.training.quality import Quality


@dataclass
class Recorder:
    """Measures and records a training as it goes; process 0 alone writes. MLPs that give 0 have no densities."""

    run: Training
    batches: Batches
    folder: RunFolder
    accelerator: Accelerator
    report: Callable[[Progress], None]
    model: nn.Module
    sites: list[Site]
    parent: dict[str, Any]

    def __post_init__(self) -> None:
        found = [r for r in self.folder.records() if r.what == "density" and r.split == "eval"]
        self.density = tuple(r.value for r in found if r.step == found[-1].step)

    def at_step(self, step: int) -> None:
        """The sizes of model and data before all steps; densities at the probe steps; quality after the last."""
        if step == 0:
            count = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
            epochs = self.run.num_steps * self.run.batch_size / self.batches.num_examples
            self._write(
                [
                    Record(what="num_parameters", value=count, unit="parameters", **self.parent),
                    Record(what="epochs", value=epochs, unit="passes over the training data", **self.parent),
                ]
            )
        if step in probe_steps(self.run.num_steps, self.run.num_probes):
            self._probe(step)
        if step == self.run.num_steps:
            self._test(step)
        self.model.train()

    def log_loss(self, step: int, loss: float, batch: dict[str, Tensor]) -> None:
        """The mean training loss since the last log line."""
        self._write([Record(what="loss", value=loss, unit="nats", split="train", step=step, **self.parent)])
        self.report(Progress(self.run.name, step, self.run.num_steps, loss, self.density))

    def _probe(self, step: int) -> None:
        """Density of every layer, loss and accuracy on fixed batches of training and of held-out data.

        How many neurons are idle, and what the inputs share, on held-out data alone.
        """
        found = [record for split in ("train", "eval") for record in self._probe_split(split, step)]
        self.density = tuple(r.value for r in found if r.what == "density" and r.split == "eval")
        self._write(found)
        loss = next(r.value for r in found if r.what == "loss" and r.split == "eval")
        self.report(Progress(self.run.name, step, self.run.num_steps, loss, self.density, note="held-out"))

    def _probe_split(self, split: str, step: int) -> Iterator[Record]:
        selection = self.run.selection
        shares = InputShares(self.model, self.sites)
        evaluation = Evaluation(
            self.model,
            self.sites,
            observers=[shares] if split == "eval" else [],
            statistics=["active"] if selection else [],
            has_natural=selection is not None,
            quality=Quality(num_classes=self.batches.num_classes, adaptive=False),
        )
        self._run(evaluation, (self.batches.probe(split, number) for number in range(self.run.probe_batches)))
        place: dict[str, Any] = {"split": split, "step": step, **self.parent}
        yield from _density_records(evaluation, place)
        if split == "eval":
            yield from _alive_records(evaluation, shares, place)
        numbers = {}
        if evaluation.natural is not None:
            numbers["natural_density"] = evaluation.natural.density, "fraction"
            numbers["max_active"] = evaluation.kept.quantile(1), "neurons"
        if isinstance(selection, TopK):
            numbers["budget"] = {site.name: selection.k_of(site.d_ff) for site in self.sites}, "neurons"
        yield from site_records(evaluation.kept, numbers, place)
        quality, what = evaluation.quality, "probe_loss" if split == "train" else "loss"
        place["num_tokens"] = quality.count
        yield Record(what=what, value=quality.loss, unit="nats", **place)
        yield Record(what="accuracy", value=quality.accuracy, unit="fraction", **place)

    def _test(self, step: int) -> None:
        """Quality on held-out data, in order and not augmented (split "test")."""
        quality = Quality(num_classes=self.batches.num_classes, adaptive=isinstance(self.run.task, ImageTask))
        shares = InputShares(self.model, self.sites)
        evaluation = Evaluation(self.model, self.sites, quality=quality, observers=[shares])
        self._run(evaluation, self.batches.test())
        place: dict[str, Any] = {"split": "test", "step": step, **self.parent}
        found = [*_quality_records(quality, place), *_density_records(evaluation, place)]
        self._write([*found, *_alive_records(evaluation, shares, place)])

    def _run(self, evaluation: Evaluation, batches: Iterator[dict[str, Tensor]]) -> None:
        with self.accelerator.autocast():
            evaluation.run(map(labelled, batches), is_shared=True)

    def _write(self, records: list[Record]) -> None:
        if self.accelerator.is_main_process:
            self.folder.append(records)


def _quality_records(quality: Quality, place: dict[str, Any]) -> Iterator[Record]:
    """Loss, accuracy, Brier score and calibration; a bin of the reliability diagram is at its mean confidence."""
    place = {"num_tokens": quality.count, **place}
    yield Record(what="loss", value=quality.loss, unit="nats", **place)
    yield Record(what="accuracy", value=quality.accuracy, unit="fraction", **place)
    yield Record(what="brier", value=quality.brier, unit="squared probability", **place)
    yield Record(what="ece", value=quality.ece, unit="fraction", **place)
    if quality.adaptive:
        yield Record(what="adaptive_ece", value=quality.adaptive_ece, unit="fraction", **place)
    for bin in quality.reliability:
        if bin.count and not quality.num_nonfinite:
            here = {**place, "x": bin.confidence, "num_tokens": bin.count}
            yield Record(what="reliability", value=bin.accuracy, unit="fraction", **here)


def _density_records(evaluation: Evaluation, place: dict[str, Any]) -> Iterator[Record]:
    """Density and active neurons per token of each site."""
    kept = evaluation.kept
    numbers = {"density": (kept.density, "fraction"), "num_active": (kept.num_active, "neurons/token")}
    return site_records(kept, numbers, place)


def _alive_records(evaluation: Evaluation, shares: InputShares, place: dict[str, Any]) -> Iterator[Record]:
    """What tells a sparse layer from a dead or blind one: see `InputShares`, and the shares of idle neurons.

    "never_fired" is the fraction of the neurons that fire for none of the tokens, "fires_below" of those that fire for
    less than the fraction `x` of them; with a selection, of those that it keeps.
    """
    kept, width = evaluation.kept, {site.name: site.d_ff for site in evaluation.sites}
    never = {name: count / width[name] for name, count in kept.never_fired.items()}
    rarely = {name: count / width[name] for name, count in kept.rarely_fired.items()}
    numbers = {"never_fired": never, "input_share": shares.input_share, "mean_share": shares.mean_share}
    yield from site_records(kept, {what: (values, "fraction") for what, values in numbers.items()}, place)
    yield from site_records(kept, {"fires_below": (rarely, "fraction")}, place | {"x": 0.01})
