"""One MLP on one token: dense, and each method that reads fewer weights, compared in one run.

    OMP_PROC_BIND=true OMP_PLACES="{0},{1}" python benchmarks/ffn.py --out results/benchmarks/ffn.json

Weights are normally distributed, and a common bias sets how many neurons are active. No call finds its weights in the
cache: the methods rotate over copies of the weights worth more than ten last-level caches. "In a model" is what
`lazyneuron.exploit` does there: up and down as two calls, each with the kernel that `choose` picks. Bytes are what a
method must read (simulated); times are measured. The benchmark stops if an output's error against float64 exceeds twice
torch's own.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lazyneuron.exploit.choose import choose
from lazyneuron.kernels.screen import screen_of
from lazyneuron.kernels.skip import dense_down, dense_mlp, dense_up, screened_up, sparse_down, sparse_mlp
from lazyneuron.kernels.weights import Rows, Tally
from lazyneuron.records.record import Source, device_name

SHAPES = [(2048, 8192), (768, 3072)]
DENSITIES = (0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
_CACHE_BYTES = 10 * 2**25


@dataclasses.dataclass
class Weights:
    """One copy of the weights: torch's layout, rows with their int8 screen, and the transposed down weight."""

    up: Tensor
    down: Tensor
    rows: Rows
    down_FD: Tensor


def copies(d_model: int, d_ff: int, dtype: torch.dtype, bias: float, least: int) -> list[Weights]:
    """Copies of one MLP, at least `least`, and in all more than ten last-level caches unless memory limits them."""
    torch.manual_seed(0)
    up = (torch.randn(d_ff, d_model) / d_model**0.5).to(dtype)
    down = (torch.randn(d_model, d_ff) / d_ff**0.5).to(dtype)
    screen = screen_of(up)
    number = max(least, 1 + _CACHE_BYTES // screen.q_FD.nbytes)
    number = max(least, min(number, 1 + int(6e9) // (3 * up.nbytes)))
    found = []
    for _ in range(number):
        own = dataclasses.replace(screen, q_FD=screen.q_FD.clone())
        rows = Rows(up.clone(), torch.full((d_ff,), bias), own)
        found.append(Weights(rows.weight_FD, down.clone(), rows, down.t().contiguous()))
    return found


def _torch(x: Tensor, w: Weights) -> Tensor:
    bias = w.rows.bias
    assert bias is not None
    return torch.nn.functional.linear(torch.relu(torch.nn.functional.linear(x, w.up, bias.to(x.dtype))), w.down)


def _torch_up(x: Tensor, w: Weights) -> Tensor:
    bias = w.rows.bias
    assert bias is not None
    return sparse_down(torch.relu(torch.nn.functional.linear(x, w.up, bias.to(x.dtype))), w.down_FD)[0]


WAYS: dict[str, Callable[[Tensor, Weights], Tensor]] = {
    "torch": _torch,
    "threaded dense": lambda x, w: dense_mlp(x, w.rows, w.down_FD),
    "torch up, sparse down": _torch_up,
    "screened": lambda x, w: sparse_mlp(x, w.rows, w.down_FD),
    "in a model": lambda x, w: _in_a_model(x, w, True, True),
    "torch, last": _torch,
}


def _in_a_model(x: Tensor, w: Weights, is_screened: bool, is_sparse: bool) -> Tensor:
    h = torch.relu(screened_up(x, w.rows)[0] if is_screened else dense_up(x, w.rows))
    return sparse_down(h, w.down_FD)[0] if is_sparse else dense_down(h, w.down_FD)


def measure(d_model: int, d_ff: int, dtype: torch.dtype, density: float, num_rounds: int) -> dict[str, Any]:
    """Times of each method in every round, and the fraction of the dense bytes that it reads."""
    quantile = torch.special.ndtri(torch.tensor(density, dtype=torch.float64)).item() if density < 1 else 40.0
    found = copies(d_model, d_ff, dtype, quantile, len(WAYS) + 1)
    tokens = [torch.randn(1, d_model).to(dtype) for _ in range(16)]
    up_tally, down_tally = Tally(), Tally()
    for x in tokens:
        exact = _exact(x, found[0])
        own = max(float((_torch(x, found[0]).double() - exact).norm()), 1e-12)
        for name, way in WAYS.items():
            assert (way(x, found[0]).double() - exact).norm() <= 2 * own, (name, d_model, density)
        u, reads = screened_up(x, found[0].rows)
        up_tally.add(1, reads)
        down_tally.add(1, sparse_down(torch.relu(u), found[0].down_FD)[1])
    candidates, active = (tally.rows / d_ff / len(tokens) for tally in (up_tally, down_tally))
    chosen = [
        choose(way, 1, share, dtype, found[0].up.nbytes).name == way
        for way, share in (("screened", candidates), ("sparse down", active))
    ]
    ways = WAYS | {"in a model": lambda x, w: _in_a_model(x, w, *chosen)}
    size = found[0].up.element_size()
    share = {"torch": 1, "threaded dense": 1, "torch up, sparse down": (1 + active) / 2, "torch, last": 1}
    share["screened"] = (1 / size + candidates + active) / 2
    share["in a model"] = ((1 / size + candidates if chosen[0] else 1) + (active if chosen[1] else 1)) / 2
    times: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for number in range(num_rounds * len(found)):
            for place, (name, way) in enumerate(ways.items()):
                weights, x = found[(number + place) % len(found)], tokens[number % len(tokens)]
                start = time.perf_counter()
                way(x, weights)
                times[name].append(1000 * (time.perf_counter() - start))
    kept = {"d_model": d_model, "d_ff": d_ff, "dtype": str(dtype).removeprefix("torch."), "density": density}
    shares = {"candidates": candidates, "active": active, "read": share, "dense_bytes": 2 * found[0].up.nbytes}
    return kept | shares | {"latency_ms": times}


def _exact(x: Tensor, w: Weights) -> Tensor:
    bias = w.rows.bias
    assert bias is not None
    h = torch.relu(x.double() @ w.up.double().T + bias.double())
    return h @ w.down.double().T


def table(found: list[dict[str, Any]]) -> Table:
    """Speed-up over the faster dense method by medians (minima in brackets), and the limit set by bytes alone."""
    shown = Table(title="One MLP, one token: times as fast as the faster dense, by medians (minima)")
    columns = "D x F, dtype", "active %", "candidates %", "torch ms", "threaded ms", "last / first"
    for column in (*columns, "sparse down", "screened", "in a model", "by bytes", "of the limit %"):
        shown.add_column(column, justify="right")
    for one in found:
        middle = {way: statistics.median(times) for way, times in one["latency_ms"].items()}
        best = {way: min(times) for way, times in one["latency_ms"].items()}
        dense = min(middle["torch"], middle["threaded dense"], middle["torch, last"])
        dense_best = min(best["torch"], best["threaded dense"], best["torch, last"])
        limit = middle["threaded dense"] * one["read"]["screened"]
        shown_ways = ("torch up, sparse down", "screened", "in a model")
        ratios = [f"{dense / middle[w]:.2f} ({dense_best / best[w]:.2f})" for w in shown_ways]
        name = f"{one['d_model']} x {one['d_ff']}, {one['dtype']}"
        shares = f"{100 * one['active']:.1f}", f"{100 * one['candidates']:.1f}"
        times = (
            f"{middle['torch']:.3f}",
            f"{middle['threaded dense']:.3f}",
            f"{middle['torch, last'] / middle['torch']:.2f}",
        )
        shown.add_row(
            name,
            *shares,
            *times,
            *ratios,
            f"{1 / one['read']['screened']:.2f}",
            f"{100 * limit / middle['screened']:.0f}",
        )
    return shown


def main() -> None:
    """Run the benchmark, print its table and write the numbers to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="calls on each copy of the weights")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for d_model, d_ff in SHAPES:
            for density in DENSITIES:
                found.append(measure(d_model, d_ff, dtype, density, arguments.rounds))
    Console(width=150).print(table(found))
    if arguments.out:
        source = Source.here(device_name(torch.device("cpu")), torch.get_num_threads())
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"source": dataclasses.asdict(source), "ffn": found}) + "\n")


if __name__ == "__main__":
    main()
