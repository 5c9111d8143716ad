"""How long runs will take on this machine: their FLOPs, counted without a weight, over the speed of a small product."""

import time
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch

from lazyneuron.measure.cost import cost
from lazyneuron.paper.runs import ImageTask, RunSpec, T5Task, Training
from lazyneuron.paper.task import silence, sites_of, task_model

_START_S = 3.0
_STEP_S = 0.004
_SHARE_OF_PEAK = 0.45
_NUM_CLASSES = {"digits": 10, "letters": 62, "dejavu": 210, "fashion-mnist": 10}


def costs(runs: Iterable[RunSpec]) -> dict[str, float]:
    """Seconds that each run, by its name, will take on one core of this machine, to within a factor of about two."""
    return {run.name: _START_S + run.seconds() for run in {run.name: run for run in runs}.values()}


def in_words(seconds: float) -> str:
    """A rough time: "about 40 s", "about 12 min", "about 3.5 h", "weeks on one such machine"."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"about {hours:.1f} h" if hours < 72 else f"about {hours / 24:,.0f} days: this scale wants GPUs"


def step_seconds(run: Training) -> float:
    """Seconds of one training step: three forward passes' FLOPs, and what operations cost however small they are."""
    layers = _flops(run.task)[1]
    return _STEP_S * layers / 4 + 3 * run.batch_size * _flops(run.task)[0] / (_SHARE_OF_PEAK * _flops_per_second())


def forward_seconds(run: Training) -> float:
    """Seconds of a forward pass of one batch."""
    return step_seconds(run) / 3


def batch_tokens(run: Training) -> int:
    """Tokens of one batch at its first layer."""
    task = run.task
    if isinstance(task, T5Task):
        return run.batch_size * task.input_length
    return run.batch_size * ((task.augmentation.canvas // (task.patch_size or 16)) ** 2 + 1)


@cache
def _flops(task: T5Task | ImageTask) -> tuple[float, int]:
    """FLOPs of a forward pass of one example, and the model's weight matrices."""
    with torch.device("meta"):
        inputs: Any
        if isinstance(task, T5Task):
            model = task_model(task, task.vocab_size)
            ids = torch.ones(1, task.input_length, dtype=torch.long)
            inputs = {"input_ids": ids, "decoder_input_ids": ids[:, : max(1, task.input_length // 4)]}
        else:
            channels = 1 if task.images in _NUM_CLASSES else 3
            model = task_model(task, _NUM_CLASSES.get(task.images, 1000), channels)
            side = task.augmentation.canvas
            inputs = torch.zeros(1, channels, side, side)
        if task.mlps == "none":
            silence(model, sites_of(model, inputs))
        found = cost(model.eval(), [], inputs, num_tokens=1)
    return found.total.dense_flops, sum(p.ndim > 1 and p.requires_grad for p in model.parameters()) // 6


@cache
def _flops_per_second() -> float:
    """Multiplications and additions a second of one thread, in a product of the size that small models have."""
    a, b = torch.randn(1024, 64), torch.randn(64, 512)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 2 * 1024 * 64 * 512 / sorted(times)[10]
