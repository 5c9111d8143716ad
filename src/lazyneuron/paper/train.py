"""Trainings of the paper's models: the loop with density, loss and accuracy measured at log-spaced steps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lazyneuron.enforce.enforce import enforce
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import UsageError
from lazyneuron.paper.progress import Progress
from lazyneuron.paper.runs import ImageTask, Training, probe_steps
from lazyneuron.paper.task import Batches, build_model, forward, labelled, training_batches
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import Site, find_sites
from lazyneuron.training.evaluation import Evaluation, site_records
from lazyneuron.training.loop import Loop, learning_rate_at
from lazyneuron.training.quality import Quality
from lazyneuron.training.sharding import leave_at_exit, shard


@dataclass
class _Recorder:
    """Measures and records a training as it goes; process 0 alone writes."""

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
        """The size of the model before all steps; densities at the probe steps; quality after the last."""
        if step == 0:
            count = sum(parameter.numel() for parameter in self.model.parameters())
            self._write([Record(what="num_parameters", value=count, unit="parameters", **self.parent)])
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
        """Density of every layer, loss and accuracy on fixed batches of training and of held-out data."""
        found = [record for split in ("train", "eval") for record in self._probe_split(split, step)]
        self.density = tuple(r.value for r in found if r.what == "density" and r.split == "eval")
        self._write(found)
        loss = next(r.value for r in found if r.what == "loss" and r.split == "eval")
        self.report(Progress(self.run.name, step, self.run.num_steps, loss, self.density, note="held-out"))

    def _probe_split(self, split: str, step: int) -> Iterator[Record]:
        selection = self.run.selection
        evaluation = Evaluation(
            self.model,
            self.sites,
            statistics=["active"] if selection else [],
            has_natural=selection is not None,
            quality=Quality(num_classes=self.batches.num_classes, adaptive=False),
        )
        self._run(evaluation, (self.batches.probe(split, number) for number in range(self.run.probe_batches)))
        place: dict[str, Any] = {"split": split, "step": step, **self.parent}
        yield from _density_records(evaluation, place)
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
        evaluation = Evaluation(self.model, self.sites, quality=quality)
        self._run(evaluation, self.batches.test())
        place: dict[str, Any] = {"split": "test", "step": step, **self.parent}
        self._write([*_quality_records(quality, place), *_density_records(evaluation, place)])

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


def train(
    run: Training,
    folder: RunFolder,
    batches: Batches,
    *,
    seed: int,
    device: str | None = None,
    sharded: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train `run` to its end in `folder`, from its newest checkpoint if it has one; nothing to do if it is done.

    It stops, resumes and refuses a loss that is not finite as `Loop` does. Under torchrun all processes share each
    batch (DDP), with `sharded` the weights too (FSDP2).
    """
    if folder.is_done():
        return
    if run.num_threads:
        torch.set_num_threads(run.num_threads)
    accelerator = _accelerator(device)
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    if run.batch_size < num_ranks:
        raise UsageError(f"{run.name}: batch_size {run.batch_size} is too small for {num_ranks} processes: start fewer")
    if sharded and run.optimizer == "adafactor":
        raise UsageError(f"{run.name}: PyTorch's Adafactor takes no sharded weights (torch 2.13): leave out --shard")
    model = build_model(batches, seed)
    example = {name: value[:1] for name, value in batches.probe("eval", 0).items() if name != "labels"}
    sites = find_sites(model, example)
    if run.selection is not None:
        enforce(model, run.selection, sites, example)
    if sharded:
        prepared = shard(model.to(accelerator.device))
        optimizer = make_optimizer(run, prepared)
    else:
        prepared, optimizer = accelerator.prepare(model, make_optimizer(run, model))
    # Without DDP around it: in its forward passes each process would wait for the others.
    model = accelerator.unwrap_model(prepared)

    def loss_of(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with accelerator.autocast():
            logits, labels = forward(prepared, {name: value.to(accelerator.device) for name, value in batch.items()})
        # This makes the mean over processes of their mean losses the mean over the whole batch.
        share = len(next(iter(batch.values()))) * num_ranks / run.batch_size
        loss = share * cross_entropy(logits, labels)
        if not run.z_loss:
            return loss, loss
        return loss + share * run.z_loss * logits.logsumexp(-1).square().mean(), loss

    source = Source.here(device_name(accelerator.device), torch.get_num_threads())
    parent: dict[str, Any] = {"recipe": run.name, "seed": seed, "source": source}
    recorder = _Recorder(run, batches, folder, accelerator, report, model, sites, parent)
    schedule: dict[str, Any] = {"peak": run.learning_rate, "schedule": run.schedule}
    schedule |= {"num_steps": run.num_steps, "warmup_steps": run.warmup_steps}
    Loop(
        name=run.name,
        model=model,
        optimizer=optimizer,
        batches=lambda start: training_batches(batches, start, run.num_steps, rank, num_ranks),
        loss_of=loss_of,
        folder=folder,
        num_steps=run.num_steps,
        learning_rate=partial(learning_rate_at, **schedule),
        seed=seed,
        clip_norm=run.clip_norm,
        log_every=run.log_every,
        checkpoint_every=run.checkpoint_every,
        at_step=recorder.at_step,
        on_log=recorder.log_loss,
    ).run()
    if accelerator.is_main_process:
        folder.mark_done()


def _accelerator(device: str | None) -> Accelerator:
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UsageError("there is no CUDA device here (or PyTorch is a CPU build): use --device cpu")
    on_cpu = device == "cpu" or not has_cuda
    leave_at_exit()
    return Accelerator(cpu=on_cpu, mixed_precision="no" if on_cpu else "bf16")


def make_optimizer(run: Training, model: nn.Module) -> Optimizer:
    """The optimizer that the run names, for this model."""
    made: dict[str, Callable[..., Optimizer]] = {
        "adafactor": torch.optim.Adafactor,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9),
    }
    return made[run.optimizer](model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)
