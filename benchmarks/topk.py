"""Top-k against torch.topk plus a scatter, in a forward pass and in a training step, compared in one run.

    OMP_PROC_BIND=true OMP_PLACES="{0},{1}" python benchmarks/topk.py --out results/benchmarks/topk.json

Activation maps are ReLU of normal entries, so half of them are zero; calls rotate over enough maps that none is in the
cache. The lower bound is a plain copy, one read and one write. The benchmark stops if a result differs from the
reference.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lazyneuron.kernels.topk import topk
from lazyneuron.records.record import Source, device_name

SHAPES = [(2048, 3072, 128), (64, 8192, 256), (1, 8192, 256)]
SHAPES += [(2048, 3072, k) for k in (1, 16, 512, 1536, 2304, 3071, 3072)]
SHAPES += [(1, 8192, k) for k in (1, 64, 1024, 4096, 8191, 8192)]
_CACHE_BYTES = 2**26


def topk_and_scatter(h: Tensor, k: int) -> Tensor:
    """The plain PyTorch equivalent."""
    values, indices = torch.topk(h, k, dim=-1)
    return torch.zeros_like(h).scatter_(-1, indices, values)


def timed(call: Callable[[], Any]) -> float:
    """Milliseconds taken by one call."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def forward(shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Times of each method in every round, and of the copy that bounds them."""
    num_tokens, d_ff, k = shape
    torch.manual_seed(0)
    size = torch.empty(0, dtype=dtype).element_size()
    maps = [
        torch.relu(torch.randn(num_tokens, d_ff)).to(dtype) for _ in range(1 + _CACHE_BYTES // (shape[0] * d_ff * size))
    ][:40]
    assert torch.equal(topk(maps[0], k), topk.reference(maps[0], k)), shape
    ways: dict[str, Callable[[Tensor], Any]] = {
        "torch.topk + scatter": lambda h: topk_and_scatter(h, k),
        "topk": lambda h: topk(h, k),
        "copy": lambda h: h.clone(),
        "torch, last": lambda h: topk_and_scatter(h, k),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for number in range(max(15, min(400, 40_000_000 // (num_tokens * d_ff)))):
            for way, call in ways.items():
                h = maps[number % len(maps)]
                times[way].append(timed(lambda call=call, h=h: call(h)))
    return {"shape": shape, "dtype": str(dtype).removeprefix("torch."), "latency_ms": times}


def training_step(num_rounds: int) -> dict[str, Any]:
    """Forward and backward pass of ViT-B/16's MLP on 8 x 197 tokens, with ReLU alone and followed by Top-k."""
    torch.manual_seed(0)
    up, down = nn.Linear(768, 3072), nn.Linear(3072, 768)
    x = torch.randn(8 * 197, 768, requires_grad=True)

    def step(select: Callable[[Tensor], Tensor]) -> Iterator[None]:
        down(select(torch.relu(up(x)))).square().mean().backward()
        yield

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "ReLU": lambda h: h,
        "ReLU + topk": lambda h: topk(h, 128),
        "ReLU + torch.topk + scatter": lambda h: topk_and_scatter(h, 128),
        "ReLU, last": lambda h: h,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(num_rounds):
        for way, select in ways.items():
            times[way].append(timed(lambda select=select: next(step(select))))
    return {"latency_ms": times}


def _tables(found: list[dict[str, Any]], steps: dict[str, Any]) -> list[Table]:
    table = Table(title="Forward pass")
    for column in (
        "tokens x d_ff, k",
        "dtype",
        "topk ms",
        "torch ms",
        "copy ms",
        "times as fast: minima",
        "medians",
        "of copy",
    ):
        table.add_column(column, justify="right")
    for one in found:
        best = {way: min(times) for way, times in one["latency_ms"].items()}
        middle = {way: statistics.median(times) for way, times in one["latency_ms"].items()}
        torchs = min(best["torch.topk + scatter"], best["torch, last"])
        tokens, d_ff, k = one["shape"]
        numbers = f"{best['topk']:.3f}", f"{torchs:.3f}", f"{best['copy']:.3f}", f"{torchs / best['topk']:.1f}"
        ratio = middle["torch.topk + scatter"] / middle["topk"]
        limit = f"{best['topk'] / best['copy']:.1f} x"
        table.add_row(f"{tokens} x {d_ff}, {k}", one["dtype"], *numbers, f"{ratio:.1f}", limit)
    training = Table(title="Training step of ViT-B/16's MLP, batch 8 x 197 tokens, ratio to ReLU alone")
    for column in ("way", "min ms", "median ms", "ratio of minima", "median ratio"):
        training.add_column(column, justify="right")
    times = steps["latency_ms"]
    base = min(times["ReLU"] + times["ReLU, last"])
    for way, found_ms in times.items():
        ratio = statistics.median(a / b for a, b in zip(found_ms, times["ReLU"], strict=True))
        numbers = (
            f"{min(found_ms):.1f}",
            f"{statistics.median(found_ms):.1f}",
            f"{min(found_ms) / base:.3f}",
            f"{ratio:.3f}",
        )
        training.add_row(way, *numbers)
    return [table, training]


def main() -> None:
    """Run the benchmark, print its tables and write the numbers to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of the training step")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = [forward(shape, dtype) for dtype in (torch.float32, torch.bfloat16) for shape in SHAPES]
    steps = training_step(arguments.rounds)
    for table in _tables(found, steps):
        Console(width=130).print(table)
    if arguments.out:
        source = Source.here(device_name(torch.device("cpu")), torch.get_num_threads())
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        kept = {"source": dataclasses.asdict(source), "forward": found, "training_step": steps}
        arguments.out.write_text(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main()
