"""Trainings of the paper's models: the model, its optimizer and its recorder in the loop."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lazyneuron.enforce.enforce import enforce
from lazyneuron.errors import UsageError
from lazyneuron.paper.progress import Progress
from lazyneuron.paper.recorder import Recorder
from lazyneuron.paper.runs import Training
from lazyneuron.paper.task import Batches, build_model, forward, sites_of, training_batches
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Source, device_name
from lazyneuron.training.adafactor import Adafactor
from lazyneuron.training.compiled import NotCompiledError, compile_passes
from lazyneuron.training.loop import Loop, learning_rate_at
from lazyneuron.training.sharding import leave_at_exit, num_processes, shard
from lazyneuron.training.weight_decay import decay_groups

COMPILED_FROM_STEPS = 5000


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

    One process on a CPU compiles the passes of trainings of 5,000 steps or more, which pay for the minute that takes;
    where it cannot, a line in the log and on the console says why, and they run eagerly.
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
    sites = [] if run.task.mlps == "none" else sites_of(model, example)
    if run.selection is not None:
        enforce(model, run.selection, sites, example)
    prepared = shard(model.to(accelerator.device)) if sharded else accelerator.prepare(model)
    # Without DDP around it: in its forward passes each process would wait for the others.
    model = accelerator.unwrap_model(prepared)
    optimizer = make_optimizer(run, model)

    def loss_of(model: Callable[..., Any], batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        with accelerator.autocast():
            logits, labels = forward(model, {name: value.to(accelerator.device) for name, value in batch.items()})
        # This makes the mean over processes of their mean losses the mean over the whole batch.
        share = len(next(iter(batch.values()))) * num_ranks / run.batch_size
        loss = share * cross_entropy(logits, labels)
        if not run.z_loss:
            return loss, loss
        return loss + share * run.z_loss * logits.logsumexp(-1).square().mean(), loss

    source = Source.here(device_name(accelerator.device), torch.get_num_threads())
    parent: dict[str, Any] = {"recipe": run.name, "seed": seed, "source": source}
    recorder = Recorder(run, batches, folder, accelerator, report, model, sites, parent)
    passes = None
    if run.num_steps >= COMPILED_FROM_STEPS and accelerator.device.type == "cpu" and num_ranks == 1:
        try:
            passes = compile_passes(model.train(), loss_of, batches.train(0))
        except NotCompiledError as error:
            why = f"training is not compiled, which takes longer: {error}"
            folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {why}")
            report(Progress(run.name, 0, run.num_steps, warning=why))
    schedule: dict[str, Any] = {"peak": run.learning_rate, "schedule": run.schedule}
    schedule |= {"num_steps": run.num_steps, "warmup_steps": run.warmup_steps}
    Loop(
        name=run.name,
        model=model,
        optimizer=optimizer,
        batches=lambda start: training_batches(batches, start, run.num_steps, rank, num_ranks),
        loss_of=partial(loss_of, prepared),
        passes=passes,
        folder=folder,
        num_steps=run.num_steps,
        learning_rate=partial(learning_rate_at, **schedule),
        seed=seed,
        clip_norm=run.clip_norm,
        log_every=run.log_every,
        checkpoint_every=run.checkpoint_every,
        at_step=recorder.at_step,
        on_log=recorder.log_loss,
        at_end=folder.mark_done if accelerator.is_main_process else lambda: None,
    ).run()


def _accelerator(device: str | None) -> Accelerator:
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UsageError("there is no CUDA device here (or PyTorch is a CPU build): use --device cpu")
    on_cpu = device == "cpu" or not has_cuda
    leave_at_exit()
    return Accelerator(cpu=on_cpu, mixed_precision="no" if on_cpu else "bf16")


def make_optimizer(run: Training, model: nn.Module) -> Optimizer:
    """The optimizer that the run names, for this model, in few operations where one process has the weights whole."""
    is_fused = num_processes() == 1
    made: dict[str, Callable[..., Optimizer]] = {
        "adafactor": Adafactor,
        "adamw": partial(torch.optim.AdamW, fused=is_fused),
        "sgd": partial(torch.optim.SGD, momentum=0.9, fused=is_fused),
    }
    return made[run.optimizer](decay_groups(model.parameters(), run.weight_decay), lr=run.learning_rate)
