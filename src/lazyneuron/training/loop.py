"""One plain training loop on accelerate that measures density as it goes, and resumes bit for bit."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lazyneuron.enforce.enforce import enforce
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import LazyneuronError, StoppedError, UsageError
from lazyneuron.measure import watch
from lazyneuron.paper.evaluate import density_records, feed, quality_records
from lazyneuron.paper.progress import Progress
from lazyneuron.paper.runs import ImageTask, Training, probe_steps
from lazyneuron.paper.task import Batches, build_model, forward, training_batches
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import Site, find_sites, numbered
from lazyneuron.training.quality import Quality
from lazyneuron.training.sharding import full_state, load_full_state, shard
from lazyneuron.training.stop import stop_signals


@dataclass
class _Trainer:
    run: Training
    batches: Batches
    folder: RunFolder
    seed: int
    accelerator: Accelerator
    report: Callable[[Progress], None]
    model: nn.Module
    optimizer: Optimizer
    sites: list[Site]
    source: Source
    loss_sum: float = 0.0
    density: tuple[float, ...] = field(default=())

    def learning_rate(self, step: int) -> float:
        run = self.run
        rate = run.learning_rate * min(1.0, (step + 1) / max(1, run.warmup_steps))
        return rate * (1 - step / run.num_steps) if run.schedule == "linear" else rate

    def update(self, step: int, batch: dict[str, Tensor], stop: bool) -> bool:
        """One step; whether to stop after it, which all ranks hear together if any of them was told."""
        run = self.run
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        torch.manual_seed(hash((self.seed, step)))
        with self.accelerator.autocast():
            logits, labels = forward(self.model, batch)
        share = self._share(len(next(iter(batch.values()))))
        loss = total = share * cross_entropy(logits, labels)
        if run.z_loss:
            total = loss + share * run.z_loss * logits.logsumexp(-1).square().mean()
        self.accelerator.backward(total)
        if run.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), run.clip_norm)
        told = torch.stack([loss.detach(), loss.new_tensor(float(stop))])
        mean_loss, stopping = cast(Tensor, self.accelerator.reduce(told, "mean")).tolist()
        if not math.isfinite(mean_loss):
            self._stop(step, f"the loss became {mean_loss}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss_sum += mean_loss
        if (step + 1) % run.log_every == 0:
            mean = self.loss_sum / run.log_every
            self.loss_sum = 0.0
            self.write([Record(what="loss", value=mean, unit="nats", split="train", step=step + 1, **self._parent)])
            self.report(Progress(run.name, step + 1, run.num_steps, mean, self.density))
        return stopping > 0

    def _share(self, num_rows: int) -> float:
        """What makes the mean over ranks of their mean losses the mean over the whole batch."""
        return num_rows * self.accelerator.num_processes / self.run.batch_size

    def _stop(self, step: int, why: str) -> NoReturn:
        last = self.folder.checkpoints()
        good = f"the last good checkpoint is {last[-1]}" if last else "there is no checkpoint yet"
        raise LazyneuronError(
            f"{self.run.name}: {why} at step {step}, learning rate {self.learning_rate(step):.3g}; "
            f"{good}: run again with a lower learning rate in another --out"
        )

    def measure(self, step: int) -> None:
        """Density of every layer, loss and accuracy on fixed batches of training and of held-out data."""
        found: list[Record] = []
        self.model.eval()
        for split in ("train", "eval"):
            found += self._measure_split(split, step)
        self.model.train()
        self.density = tuple(r.value for r in found if r.what == "density" and r.split == "eval")
        self.write(found)
        loss = next(r.value for r in found if r.what == "loss" and r.split == "eval")
        self.report(Progress(self.run.name, step, self.run.num_steps, loss, self.density, note="held-out"))

    def measure_end(self) -> None:
        """Quality on held-out data, in order and not augmented (split "test")."""
        self.model.eval()
        quality = Quality(num_classes=self.batches.num_classes, adaptive=isinstance(self.run.task, ImageTask))
        with watch(self.plain_model, self.sites) as probe:
            feed(self.plain_model, self.batches.test(), quality, [probe], self.accelerator)
        place: dict[str, Any] = {"split": "test", "step": self.run.num_steps, **self._parent}
        self.write([*quality_records(quality, place), *density_records(probe, self.sites, place)])
        self.model.train()

    def _measure_split(self, split: str, step: int) -> Iterator[Record]:
        model, selection = self.plain_model, self.run.selection
        quality = Quality(num_classes=self.batches.num_classes, adaptive=False)
        place: dict[str, Any] = {"split": split, "step": step, **self._parent}
        numbers = range(self.run.probe_batches)
        with ExitStack() as stack:
            natural = stack.enter_context(watch(model, self.sites, before_selection=True)) if selection else None
            probe = stack.enter_context(watch(model, self.sites, ["active"] if selection else []))
            probes = [probe, natural] if natural is not None else [probe]
            feed(model, (self.batches.probe(split, n) for n in numbers), quality, probes, self.accelerator)
        yield from density_records(probe, self.sites, place)
        for stack_name, layer, site in numbered(self.sites):
            here = {"site": site.name, "stack": stack_name, "layer": layer, **place}
            here["num_tokens"] = probe.num_tokens[site.name]
            if natural is not None:
                yield Record(what="natural_density", value=natural.density[site.name], unit="fraction", **here)
                yield Record(what="max_active", value=probe.quantile(1)[site.name], unit="neurons", **here)
            if isinstance(selection, TopK):
                yield Record(what="budget", value=selection.k_of(site.d_ff), unit="neurons", **here)
        what = "probe_loss" if split == "train" else "loss"
        count = quality.count
        yield Record(what=what, value=quality.loss, unit="nats", num_tokens=count, **place)
        yield Record(what="accuracy", value=quality.accuracy, unit="fraction", num_tokens=count, **place)

    @property
    def plain_model(self) -> nn.Module:
        """The model without DDP around it, whose passes would wait for the other ranks."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def _parent(self) -> dict[str, Any]:
        return {"recipe": self.run.name, "seed": self.seed, "source": self.source}

    def write(self, records: list[Record]) -> None:
        if self.accelerator.is_main_process:
            self.folder.append(records)

    def log(self, text: str) -> None:
        if self.accelerator.is_main_process:
            self.folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}")

    def save(self, step: int) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            self._stop(step, "a weight is no longer finite")
        self.accelerator.wait_for_everyone()
        weights, moments = full_state(self.plain_model, self.optimizer)
        state = {"model": weights, "optimizer": moments, "loss_sum": self.loss_sum, "density": self.density}
        if self.accelerator.is_main_process:
            self.folder.save_checkpoint(step, state)

    def load(self) -> int:
        """Go back to the newest checkpoint; the step it was made at, 0 without one."""
        state = self.folder.load_checkpoint()
        step = 0
        if state is not None:
            load_full_state(self.plain_model, self.optimizer, state["model"], state["optimizer"])
            self.loss_sum, self.density, step = state["loss_sum"], tuple(state["density"]), state["step"]
        if self.accelerator.is_main_process:
            self.folder.truncate_records(state["records_size"] if state else 0)
        return step


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

    Records are those of a run never interrupted, bit for bit on a CPU with the same number of threads. Raises
    `StoppedError` after SIGINT or SIGTERM, once a checkpoint is written, and `LazyneuronError` when the loss is
    no longer finite. Under torchrun all processes share each batch (DDP), with `sharded` the weights too (FSDP2).
    """
    if folder.is_done():
        return
    if run.num_threads:
        torch.set_num_threads(run.num_threads)
    accelerator = _accelerator(device)
    if run.batch_size < accelerator.num_processes:
        raise UsageError(
            f"{run.name}: batch_size {run.batch_size} is too small for {accelerator.num_processes} processes: "
            "start fewer"
        )
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
    source = Source.here(device_name(accelerator.device), torch.get_num_threads())
    trainer = _Trainer(run, batches, folder, seed, accelerator, report, prepared, optimizer, sites, source)
    start, began = trainer.load(), time.monotonic()
    if start == 0:
        count = sum(parameter.numel() for parameter in model.parameters())
        trainer.write([Record(what="num_parameters", value=count, unit="parameters", **trainer._parent)])
    trainer.log(f"step {start}: start")
    prepared.train()
    probes = set(probe_steps(run.num_steps, run.num_probes))
    loader = training_batches(batches, start, run.num_steps, accelerator.process_index, accelerator.num_processes)
    with stop_signals() as stop:
        stopping = False
        for step, batch in enumerate(loader, start):
            stopping = stopping or (bool(stop) and accelerator.num_processes == 1)
            if stopping or (step % run.checkpoint_every == 0 and step > start):
                trainer.save(step)
            if stopping:
                trainer.log(f"step {step}: stopped after {time.monotonic() - began:.1f} s")
                raise StoppedError(f"{run.name} stopped at step {step} of {run.num_steps}")
            if step in probes:
                trainer.measure(step)
            batch = {name: value.to(accelerator.device) for name, value in batch.items()}
            stopping = trainer.update(step, batch, bool(stop))
        trainer.save(run.num_steps)
        trainer.measure(run.num_steps)
        trainer.measure_end()
    trainer.log(f"step {run.num_steps}: done after {time.monotonic() - began:.1f} s")
    if accelerator.is_main_process:
        folder.mark_done()


def _accelerator(device: str | None) -> Accelerator:
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UsageError("there is no CUDA device here (or PyTorch is a CPU build): use --device cpu")
    on_cpu = device == "cpu" or not has_cuda
    return Accelerator(cpu=on_cpu, mixed_precision="no" if on_cpu else "bf16")


def make_optimizer(run: Training, model: nn.Module) -> Optimizer:
    """The optimizer that the run names, for this model."""
    made: dict[str, Callable[..., Optimizer]] = {
        "adafactor": torch.optim.Adafactor,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9),
    }
    return made[run.optimizer](model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)
