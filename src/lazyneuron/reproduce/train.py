"""One plain training loop on accelerate that measures density as it goes, and resumes bit for bit."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lazyneuron.enforce.enforce import enforce
from lazyneuron.enforce.selection import TopK
from lazyneuron.measure import watch
from lazyneuron.record import LazyneuronError, Record, RunFolder, Source, StoppedError, UsageError, device_name
from lazyneuron.reproduce.progress import Progress
from lazyneuron.reproduce.recipe import Training, probe_steps
from lazyneuron.reproduce.task import Batches, build_model, forward, training_batches
from lazyneuron.sites import Site, find_sites, numbered
from lazyneuron.stop import stop_signals


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

    def update(self, step: int, batch: dict[str, Tensor]) -> None:
        run = self.run
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        torch.manual_seed(hash((self.seed, step)))
        with self.accelerator.autocast():
            logits, labels = forward(self.model, batch)
        loss = total = cross_entropy(logits, labels)
        if run.z_loss:
            total = loss + run.z_loss * logits.logsumexp(-1).square().mean()
        self.accelerator.backward(total)
        if run.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), run.clip_norm)
        mean_loss = float(cast(Tensor, self.accelerator.reduce(loss.detach(), "mean")))
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
        self.report(Progress(self.run.name, step, self.run.num_steps, loss, self.density))

    @torch.no_grad()
    def _measure_split(self, split: str, step: int) -> Iterator[Record]:
        accelerator, device = self.accelerator, self.accelerator.device
        model = accelerator.unwrap_model(self.model)
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        selection = self.run.selection
        natural = watch(model, self.sites, before_selection=True) if selection else None
        with natural or nullcontext(), watch(model, self.sites, ["active"] if selection else []) as probe:
            for number in range(accelerator.process_index, self.run.probe_batches, accelerator.num_processes):
                batch = {k: v.to(device) for k, v in self.batches.probe(split, number).items()}
                with accelerator.autocast():
                    logits, labels = forward(model, batch)
                nats = cross_entropy(logits, labels, reduction="sum")
                hits = (logits.argmax(-1) == labels).sum()
                sums += torch.stack([nats.double(), hits.double(), nats.new_tensor(len(labels)).double()])
        nats, hits, count = cast(Tensor, accelerator.reduce(sums, "sum")).tolist()
        place: dict[str, Any] = {"split": split, "step": step, **self._parent}
        if accelerator.num_processes > 1:
            probe.all_reduce()
            if natural is not None:
                natural.all_reduce()
        density, num_active, tokens = probe.density, probe.num_active, probe.num_tokens
        for stack, layer, site in numbered(self.sites):
            here = {"site": site.name, "stack": stack, "layer": layer, "num_tokens": tokens[site.name], **place}
            yield Record(what="density", value=density[site.name], unit="fraction", **here)
            yield Record(what="num_active", value=num_active[site.name], unit="neurons/token", **here)
            if natural is not None:
                yield Record(what="natural_density", value=natural.density[site.name], unit="fraction", **here)
                yield Record(what="max_active", value=probe.quantile(1)[site.name], unit="neurons", **here)
            if isinstance(selection, TopK):
                yield Record(what="budget", value=selection.k_of(site.d_ff), unit="neurons", **here)
        what = "probe_loss" if split == "train" else "loss"
        yield Record(what=what, value=nats / count, unit="nats", num_tokens=int(count), **place)
        yield Record(what="accuracy", value=hits / count, unit="fraction", num_tokens=int(count), **place)

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
        if self.accelerator.is_main_process:
            state = {
                "model": self.accelerator.unwrap_model(self.model).state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "loss_sum": self.loss_sum,
                "density": self.density,
            }
            self.folder.save_checkpoint(step, state)

    def load(self) -> int:
        """Go back to the newest checkpoint; the step it was made at, 0 without one."""
        state = self.folder.load_checkpoint()
        step = 0
        if state is not None:
            self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
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
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train `run` to its end in `folder`, from its newest checkpoint if it has one; nothing to do if it is done.

    Records are those of a run never interrupted, bit for bit on a CPU with the same number of threads. Raises
    `StoppedError` after SIGINT or SIGTERM, once a checkpoint is written, and `LazyneuronError` when the loss is
    no longer finite.
    """
    if folder.is_done():
        return
    if run.num_threads:
        torch.set_num_threads(run.num_threads)
    accelerator = _accelerator(device)
    if run.batch_size % accelerator.num_processes:
        raise UsageError(
            f"{run.name}: batch_size {run.batch_size} does not split over {accelerator.num_processes} processes: "
            "choose a number of processes that divides it"
        )
    model = build_model(batches, seed)
    example = {name: value[:1] for name, value in batches.probe("eval", 0).items() if name != "labels"}
    sites = find_sites(model, example)
    if run.selection is not None:
        enforce(model, run.selection, sites, example)
    prepared, optimizer = accelerator.prepare(model, _optimizer(run, model))
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
        for step, batch in enumerate(loader, start):
            if stop or (step % run.checkpoint_every == 0 and step > start):
                trainer.save(step)
            if stop:
                trainer.log(f"step {step}: stopped after {time.monotonic() - began:.1f} s")
                raise StoppedError(f"{run.name} stopped at step {step} of {run.num_steps}")
            if step in probes:
                trainer.measure(step)
            trainer.update(step, {k: v.to(accelerator.device) for k, v in batch.items()})
        trainer.save(run.num_steps)
        trainer.measure(run.num_steps)
    trainer.log(f"step {run.num_steps}: done after {time.monotonic() - began:.1f} s")
    if accelerator.is_main_process:
        folder.mark_done()


def _accelerator(device: str | None) -> Accelerator:
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UsageError("there is no CUDA device here (or PyTorch is a CPU build): use --device cpu")
    on_cpu = device == "cpu" or not has_cuda
    return Accelerator(cpu=on_cpu, mixed_precision="no" if on_cpu else "bf16")


def _optimizer(run: Training, model: nn.Module) -> Optimizer:
    if run.optimizer == "adafactor":
        return torch.optim.Adafactor(model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)
    return torch.optim.AdamW(model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)
