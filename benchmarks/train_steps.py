"""Training steps per core-second of quick's T5 and ViT: the loop against a plain one, taking turns in one run.

    OMP_NUM_THREADS=1 python benchmarks/train_steps.py --out results/benchmarks/train_steps.json

The plain loop draws a batch at each step, row by row, runs eagerly and updates each weight by itself. Correctness comes
first: on the same batches both ways have the same losses within rounding over 50 steps. Then both take blocks of steps
in turns, drawing their batches included, in the processor time of this process, on one thread. Beside them stands what
no loop can go below: the matrix products of one step, forward and backward, replayed alone. The first run on a machine
compiles for some minutes.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils._python_dispatch import TorchDispatchMode

from lazyneuron.data import spans
from lazyneuron.data.images import image_batch
from lazyneuron.data.text import END, num_windows
from lazyneuron.paper.runs import Training
from lazyneuron.paper.task import Batches, TextBatches, build_model, forward, load_batches
from lazyneuron.paper.train import make_optimizer
from lazyneuron.paper.trainings import t5, vit
from lazyneuron.records.folder import RunFolder, cache_folder
from lazyneuron.records.record import Source, device_name
from lazyneuron.training.compiled import compile_passes
from lazyneuron.training.loop import Loop, learning_rate_at

CHECKED_STEPS, LARGEST_DIFFERENCE = 50, 1e-2
Step = Callable[[int, dict[str, Tensor]], float]


def plain_batch(batches: Batches, step: int) -> dict[str, Tensor]:
    """A batch drawn by itself, text row by row."""
    rng, size = np.random.default_rng((0, batches.seed, step)), batches.run.batch_size
    if not isinstance(batches, TextBatches):
        indices = rng.integers(0, len(batches.data.train.labels), size)
        return image_batch(batches.data.train, indices, batches.augmentation, rng)
    tokens, length, pairs = batches.data.train, spans.raw_length(batches.task.input_length), []
    for start in rng.integers(0, num_windows(tokens, batches.task.input_length, 1), size):
        piece = np.asarray(tokens[start : start + length], dtype=np.int64)
        pairs.append(plain_corrupt(piece, batches.data.sentinels, rng))
    inputs, targets = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
    return {"input_ids": inputs, "decoder_input_ids": pad(targets[:, :-1], (1, 0)), "labels": targets}


def plain_corrupt(tokens: np.ndarray, sentinels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Input and target of one row whose spans of noise are drawn."""
    num_noise, num_spans = spans.noise_counts(len(tokens))
    lengths = []
    for total in (len(tokens) - num_noise, num_noise):
        cuts = np.sort(rng.choice(total - 1, num_spans - 1, replace=False)) + 1
        lengths.append(np.diff(np.concatenate([[0], cuts, [total]])))
    mask = np.repeat(np.arange(2 * num_spans) % 2 == 1, np.stack(lengths, axis=1).reshape(-1))
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    marked = tokens.copy()
    marked[starts] = sentinels[:num_spans]
    noise = mask.nonzero()[0]
    targets = np.insert(tokens[noise], starts[noise].nonzero()[0], sentinels[:num_spans])
    return np.concatenate([marked[~mask | starts], [END]]), np.concatenate([targets, [END]])


def loss_of(run: Training, call: Callable[..., Any], batch: Any) -> tuple[Tensor, Tensor]:
    """The loss to minimise and the loss to report."""
    logits, labels = forward(call, batch)
    loss = cross_entropy(logits, labels)
    return (loss + run.z_loss * logits.logsumexp(-1).square().mean() if run.z_loss else loss), loss


def rate_at(run: Training, step: int) -> float:
    """The rate of a step."""
    how: dict[str, Any] = {"warmup_steps": run.warmup_steps, "schedule": run.schedule}
    return learning_rate_at(step, peak=run.learning_rate, num_steps=run.num_steps, **how)


def plain_step(run: Training, model: nn.Module) -> Step:
    """A step of the plain loop, which gives its loss."""
    made: Any = {"adafactor": torch.optim.Adafactor, "adamw": torch.optim.AdamW}[run.optimizer]
    optimizer = made(model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)

    def step(number: int, batch: dict[str, Tensor]) -> float:
        optimizer.param_groups[0]["lr"] = rate_at(run, number)
        torch.manual_seed(hash((0, number)))
        total, loss = loss_of(run, model, batch)
        total.backward()
        if run.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), run.clip_norm)
        mean, whole = torch.stack([loss.detach(), total.detach()]).tolist()
        assert np.isfinite(mean + whole)
        optimizer.step()
        optimizer.zero_grad()
        return mean

    return step


def loop_step(run: Training, model: nn.Module, batch: dict[str, Tensor], path: Path) -> Step:
    """A step of the package's loop, compiled, which gives its loss."""
    loop = Loop(
        name=run.name,
        model=model,
        optimizer=make_optimizer(run, model),
        batches=lambda start: (),
        loss_of=partial(loss_of, run, model),
        passes=compile_passes(model, partial(loss_of, run), batch),
        folder=RunFolder(path, {}),
        num_steps=run.num_steps,
        learning_rate=partial(rate_at, run),
        seed=0,
        clip_norm=run.clip_norm,
        log_every=run.log_every,
    )
    return lambda number, batch: loop._update(number, batch, False)[0]


class _Products(TorchDispatchMode):
    """Collects the matrix products that run under it: the operator, and its tensors' shapes and strides."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Tensor], list[Any]]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in operator.__name__:
            layout = [(a.shape, a.stride()) if isinstance(a, Tensor) else a for a in args]
            self.calls.append((operator, layout))
        return operator(*args, **(kwargs or {}))


def products_seconds(run: Training, model: nn.Module, batch: dict[str, Tensor], num_rounds: int) -> float:
    """The least processor time, over rounds, of the matrix products of a step (those of fused attention left out)."""
    with _Products() as seen:
        loss_of(run, model, batch)[0].backward()
    model.zero_grad()
    ready = [
        (operator, [torch.empty_strided(*a).normal_() if isinstance(a, tuple) else a for a in layout])
        for operator, layout in seen.calls
    ]
    times = []
    with torch.no_grad():
        for _ in range(num_rounds):
            start = time.process_time()
            for operator, args in ready:
                operator(*args)
            times.append(time.process_time() - start)
    return min(times)


def measured(run: Training, num_rounds: int, steps_a_round: int) -> dict[str, Any]:
    """Core-seconds per step of both ways in every round."""
    batches = load_batches(run, 0, cache_folder())
    models = [build_model(batches, 0).train() for _ in range(2)]
    with tempfile.TemporaryDirectory() as path:
        compiling = time.perf_counter()
        steps = {"plain": plain_step(run, models[0]), "loop": loop_step(run, models[1], batches.train(0), Path(path))}
        compiling = time.perf_counter() - compiling
        draw: dict[str, Callable[[int], dict[str, Tensor]]] = {
            "plain": partial(plain_batch, batches),
            "loop": batches.train,
        }
        numbers: Iterator[int] = itertools.count()
        losses = [
            [step(number, batches.train(number)) for step in steps.values()]
            for number in itertools.islice(numbers, CHECKED_STEPS)
        ]
        worst = max(abs(new - old) / old for old, new in losses)
        assert worst < LARGEST_DIFFERENCE, (run.name, worst)
        products = products_seconds(run, models[0], batches.train(0), 3 * num_rounds)
        seconds: dict[str, list[float]] = {way: [] for way in steps}
        for _ in range(num_rounds):
            block = list(itertools.islice(numbers, steps_a_round))
            for way, step in steps.items():
                start = time.process_time()
                for number in block:
                    step(number, draw[way](number))
                seconds[way].append((time.process_time() - start) / steps_a_round)
    return {
        "run": run.name,
        "batch_size": run.batch_size,
        "largest_difference": worst,
        "compile_s": compiling,
        "products_s": products,
        "core_s": seconds,
    }


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(title="Core-milliseconds per training step")
    for column in (
        "model",
        "batch",
        "plain min",
        "median",
        "loop min",
        "median",
        "times: minima",
        "medians",
        "products alone",
        "loss off",
    ):
        table.add_column(column, justify="right")
    for one in found:
        ms = {way: [1000 * s for s in times] for way, times in one["core_s"].items()}
        low, middle = ({way: pick(times) for way, times in ms.items()} for pick in (min, statistics.median))
        ratios = low["plain"] / low["loop"], statistics.median(map(float.__truediv__, ms["plain"], ms["loop"]))
        numbers = [f"{value:.2f}" for way in ms for value in (low[way], middle[way])]
        times = [f"{ratio:.2f}" for ratio in ratios]
        rest = f"{1000 * one['products_s']:.2f}", f"{one['largest_difference']:.0e}"
        table.add_row(one["run"], str(one["batch_size"]), *numbers, *times, *rest)
    return table


def main() -> None:
    """Run the benchmark, print its table and write the numbers to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="a round")
    parser.add_argument("--models", nargs="+", default=["t5", "vit"], choices=["t5", "vit"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = [{"t5": t5, "vit": vit}[name]("quick") for name in arguments.models]
    cases = dict.fromkeys(replace(run, batch_size=size) for run in runs for size in (8, run.batch_size))
    found = [measured(run, arguments.rounds, arguments.steps) for run in cases]
    Console(width=130).print(_table(found))
    if arguments.out:
        source = Source.here(device_name(torch.device("cpu")), 1)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"source": dataclasses.asdict(source), "steps": found}) + "\n")


if __name__ == "__main__":
    main()
