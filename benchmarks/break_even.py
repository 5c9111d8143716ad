"""Break-even of skipping: the largest fraction of needed rows at which it still beats torch.

    OMP_PROC_BIND=true OMP_PLACES="{0},{1}" python benchmarks/break_even.py --out results/benchmarks/break_even.json

`lazyneuron.exploit.choose` uses these fractions. Each projection is timed alone, up to 64 tokens with skipping and 256
without. Calls rotate over copies of the weights worth more than ten last-level caches, as in a model larger than any
cache; the first shape has four copies, which fit in the cache.
"""

import argparse
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lazyneuron.exploit.choose import MOST_TOKENS
from lazyneuron.exploit.schemes import crossing
from lazyneuron.kernels.screen import screen_of
from lazyneuron.kernels.skip import dense_down, dense_up, screened_up, sparse_down
from lazyneuron.kernels.weights import Rows
from lazyneuron.records.record import Source, device_name

SHAPES = [(256, 2048), (512, 2048), (768, 3072), (1024, 4096), (2048, 8192)]
TOKENS = (1, 2, 4, 8, 16, 32, 64, 256)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
_CACHE_BYTES = 10 * 2**25


def timed(call: Callable[[Any], object], weights: list[Any], seconds: float) -> float:
    """Median milliseconds of `call`, over repeated passes through `weights`."""
    times: list[float] = []
    for weight in weights[:2]:
        call(weight)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 8:
        for weight in weights:
            start = time.perf_counter()
            call(weight)
            times.append(1000 * (time.perf_counter() - start))
            if time.perf_counter() - began > 4 * seconds:
                return statistics.median(times)
    return statistics.median(times)


def measure(d_model: int, d_ff: int, dtype: torch.dtype, seconds: float) -> list[dict[str, Any]]:
    """Times of torch, of our dense kernels, and of both skipping kernels at each fraction, by number of tokens."""
    torch.manual_seed(0)
    up = (torch.randn(d_ff, d_model) / d_model**0.5).to(dtype)
    down = (torch.randn(d_model, d_ff) / d_ff**0.5).to(dtype)
    is_cached = (d_model, d_ff) == SHAPES[0]
    number = 4 if is_cached else 1 + _CACHE_BYTES // up.nbytes
    screen = screen_of(up)
    rows = [Rows(up.clone(), None, dataclasses.replace(screen, q_FD=screen.q_FD.clone())) for _ in range(number)]
    downs = [down.clone() for _ in range(number)]
    turned = [down.t().contiguous() for _ in range(number)]
    linear, found = torch.nn.functional.linear, []
    for num_tokens in TOKENS:
        x = torch.randn(num_tokens, d_model).to(dtype)
        h = torch.randn(num_tokens, d_ff).to(dtype)
        here = {"d_model": d_model, "d_ff": d_ff, "dtype": str(dtype).removeprefix("torch."), "tokens": num_tokens}
        here |= {"is_cached": is_cached}
        dense = {
            "up": timed(partial(linear, x), [r.weight_FD for r in rows], seconds),
            "down": timed(partial(linear, h), downs, seconds),
            "down, transposed": timed(partial(linear, h), [w.t() for w in turned], seconds),
        }
        ours = {
            "up": timed(partial(dense_up, x), rows, seconds),
            "down": timed(partial(dense_down, h), turned, seconds),
        }
        ways: dict[str, list[dict[str, float]]] = {"screened": [], "sparse down": []}
        u = linear(x.float(), up.float()).flatten()
        for share in SHARES if num_tokens <= MOST_TOKENS else ():
            shift = torch.full((d_ff,), -float(u.kthvalue(max(1, round((1 - share) * len(u)))).values))
            shifted = [Rows(r.weight_FD, shift, r.screen) for r in rows]
            _, reads = screened_up(x, shifted[0])
            took = timed(partial(screened_up, x), shifted, seconds)
            ways["screened"].append({"share": int(reads[1]) / d_ff / num_tokens, "ms": took})
            masked = torch.where(torch.rand(num_tokens, d_ff) < share, h, 0)
            ways["sparse down"].append({"share": share, "ms": timed(partial(sparse_down, masked), turned, seconds)})
        ways_limits = {
            way: crossing(*zip(*((p["share"], p["ms"]) for p in points), strict=True), dense[part]) if points else None
            for (way, points), part in zip(ways.items(), ("up", "down"), strict=True)
        }
        found.append(here | {"torch_ms": dense, "ours_ms": ours, "ways": ways, "break_even": ways_limits})
    return found


def table(found: list[dict[str, Any]]) -> Table:
    """Break-even fractions in percent, and the ratio of torch's time to our dense kernels'."""
    shown = Table(title="Break-even share of rows a token needs, %; torch's time over ours with all rows")
    columns = ("D x F, dtype", "tokens", "screened", "sparse down", "torch / ours, up", "torch / ours, down")
    for column in (*columns, "torch, down / down transposed"):
        shown.add_column(column, justify="right")
    for one in found:
        name = f"{one['d_model']} x {one['d_ff']}, {one['dtype']}" if one["tokens"] == 1 else ""
        is_few = one["tokens"] <= MOST_TOKENS
        shares = [f"{100 * one['break_even'][way]:.0f}" if is_few else "" for way in ("screened", "sparse down")]
        ratios = [f"{one['torch_ms'][part] / one['ours_ms'][part]:.2f}" for part in ("up", "down")]
        ratios.append(f"{one['torch_ms']['down'] / one['torch_ms']['down, transposed']:.2f}")
        shown.add_row(name, str(one["tokens"]), *shares, *ratios)
    return shown


def choices(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The form of `lazyneuron.exploit.choose.break_even`: the worst of the shapes, in steps of 5 %.

    `share` is against the fastest dense product, torch's or ours.
    """
    share: dict[str, Any] = {way: {} for way in ("screened", "sparse down")}
    own_dense: dict[str, Any] = {}
    for dtype in dict.fromkeys(one["dtype"] for one in found):
        rows = [one for one in found if one["dtype"] == dtype]
        own_dense[dtype] = [[0, 0], [0, 0]]
        for is_down, (way, part) in enumerate((("screened", "up"), ("sparse down", "down, transposed"))):
            ours = part.partition(",")[0]
            least, is_ahead = [1.0, 1.0], [True, True]
            limits: dict[str, list[float]] = {}
            for tokens in TOKENS:
                here = [one for one in rows if one["tokens"] == tokens]
                for is_cached in (False, True):
                    shapes = [one for one in here if one["is_cached"] == is_cached]
                    ratios = [one["torch_ms"][part] / one["ours_ms"][ours] for one in shapes]
                    is_ahead[is_cached] &= min(ratios) >= 1
                    if is_ahead[is_cached]:
                        own_dense[dtype][is_down][is_cached] = tokens
                    if tokens <= MOST_TOKENS:
                        evens = [
                            _crossing(one, way, min(one["torch_ms"][part], one["ours_ms"][ours])) for one in shapes
                        ]
                        least[is_cached] = min(least[is_cached], math.floor(20 * min(evens)) / 20)
                if tokens <= MOST_TOKENS:
                    limits = {n: pair for n, pair in limits.items() if pair != least} | {str(tokens): [*least]}
            share[way][dtype] = limits
    return {"share": share, "own_dense": own_dense}


def _crossing(one: dict[str, Any], way: str, dense: float) -> float:
    points = one["ways"][way]
    return crossing([point["share"] for point in points], [point["ms"] for point in points], dense)


def main() -> None:
    """Run the benchmark, print its table and write the numbers to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.15, help="for each point")
    parser.add_argument("--out", type=Path, help="keep the times here")
    parser.add_argument("--table", type=Path, help="write the package's table here")
    arguments = parser.parse_args()
    found = []
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            for d_model, d_ff in SHAPES:
                found += measure(d_model, d_ff, dtype, arguments.seconds)
    Console(width=110).print(table(found))
    source = dataclasses.asdict(Source.here(device_name(torch.device("cpu")), torch.get_num_threads()))
    for path, content in ((arguments.out, {"break_even": found}), (arguments.table, choices(found))):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"source": source} | content) + "\n")


if __name__ == "__main__":
    main()
