"""Unbatched decoding under Top-k: milliseconds per token and speed-up over k."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import altair as alt

from lazyneuron.pages.axes import settings_axis
from lazyneuron.pages.charts import Figure, Row, Run
from lazyneuron.pages.panels import concat, inline, layered, lines_with_ranges, picked, reference, tooltip
from lazyneuron.pages.section import Part
from lazyneuron.paper.latency import LESS_TIME
from lazyneuron.paper.results import Results, Spread, spread
from lazyneuron.paper.sweep_charts import over_seeds_tooltip, rows_over_seeds
from lazyneuron.paper.tables import RANGE, Cell, cell, table
from lazyneuron.records.table import Table

WAYS = {
    "dense": "dense", "threads": "dense, our threads", "top-k": "top-k, masked", "exploited": "top-k, exploited",
}  # fmt: skip
_LINES = (WAYS["dense"], WAYS["threads"])
_PAPER_SPEEDUP = round(1 / (1 - LESS_TIME), 4)
_PAPER_NOTE = f"{100 * LESS_TIME:g} % less time: the paper's T5-11B, k ≤ 128"


def add(part: Part, results: Results, name: str) -> None:
    """Add the charts and tables of decoding and of skipping."""
    for run in results.studies("latency"):
        part.figures += filter(None, [time_per_token(run, name), speedups(run, name)])
        part.tables += filter(None, [numbers(run)])
    for run in results.studies("skipping"):
        part.tables += filter(None, [skipping_numbers(results, run)])


def latency_rows(run: Run) -> list[Row]:
    """Milliseconds per token by size, method and k: medians of rounds, over seeds; the two dense ones are without k."""
    values: dict[tuple[str, str, float, int], list[float]] = defaultdict(list)
    for record in run.pick("latency_ms"):
        size, _, way = record.case.partition(" ")
        if way in WAYS:
            k = 0.0 if WAYS[way] in _LINES else record.x or 0.0
            values[size, WAYS[way], k, record.seed].append(record.value)
    return rows_over_seeds(
        ({"size": size, "way": way, "k": k}, median(found)) for (size, way, k, _), found in values.items()
    )


def time_per_token(run: Run, name: str) -> Figure | None:
    """Milliseconds per token by k, one panel per size; the dense models are lines."""
    rows = latency_rows(run)
    if not rows:
        return None
    domain = [way for way in WAYS.values() if any(row["way"] == way for row in rows)]
    color = alt.Color("way:N", title=None, scale=alt.Scale(domain=domain))
    panels = []
    for size in dict.fromkeys(row["size"] for row in rows):
        part = [row for row in rows if row["size"] == size]
        sparse = [row for row in part if row["way"] not in _LINES]
        y = alt.Y("value:Q", title="milliseconds per token", scale=alt.Scale(zero=True, nice=True))
        tooltips = [tooltip("way"), tooltip("k", form=",d")]
        rule = alt.Chart(inline([row for row in part if row["way"] in _LINES])).mark_rule(strokeWidth=2)
        rule = rule.encode(y=y, color=color, opacity=picked(), tooltip=[tooltips[0], *over_seeds_tooltip("ms")])
        shape = alt.Shape(
            "way:N", title=None, scale=alt.Scale(domain=domain, range=["circle", "square", "diamond", "circle"])
        )
        tooltips += over_seeds_tooltip("ms")
        lines = lines_with_ranges(sparse, _k_axis(sparse), y, color, tooltips, shape=shape, size=60)
        panels.append(layered([rule, *lines], f"T5 {size}"))
    return Figure(
        name=f"{name}-time",
        title="Time per token over k",
        caption="Median time of one greedily decoded token, batch of one, random weights, by k on a logarithmic axis: "
        "mean over seeds, bars their range. Top-k alone masks the activation map and saves nothing; exploited, the "
        "rows of inactive neurons are not read, and the tokens are the same. The lines are the dense model, in torch "
        "and with its MLPs on our threads. All ways take turns.",
        spec=concat(panels, pick="way", legend=domain),
    )


def gains(run: Run, what: str = "speedup") -> dict[tuple[str, float], dict[int, list[float]]]:
    """The ratios of all rounds, by size and k, by seed."""
    found: dict[tuple[str, float], dict[int, list[float]]] = {}
    for record in run.pick(what):
        found.setdefault((record.case, record.x or 0), {}).setdefault(record.seed, []).append(record.value)
    return found


def speedups(run: Run, name: str) -> Figure | None:
    """Dense time over exploited time by k, one line per size."""
    points = (
        ({"size": f"T5 {size}", "k": k}, median(found))
        for (size, k), by_seed in gains(run).items()
        for found in by_seed.values()
    )
    rows = rows_over_seeds(points)
    if not rows:
        return None
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    color = alt.Color("size:N", title="model", scale=alt.Scale(domain=sizes))
    y = alt.Y("value:Q", title="dense time over exploited", scale=alt.Scale(zero=False, nice=True))
    tooltips = [tooltip("size", "model"), tooltip("k", form=",d"), *over_seeds_tooltip("speed-up")]
    marks = [reference(1, "as fast as dense"), reference(_PAPER_SPEEDUP, _PAPER_NOTE)]
    panel = layered([*marks, *lines_with_ranges(rows, _k_axis(rows), y, color, tooltips, size=60)], "")
    return Figure(
        name=f"{name}-speedup",
        title="Speed-up over k",
        caption="Time of a token of the dense model in torch over that of the same model under Top-k, exploited: the "
        "median of rounds, means over seeds, bars their range. In each round dense is measured before and after each "
        "k. Above 1 Top-k is faster; the table also has it over the dense MLPs on our threads.",
        spec=concat([panel], pick="size", legend=sizes),
    )


def _k_axis(rows: Sequence[Row]) -> alt.X:
    return settings_axis("k", "k", [row["k"] for row in rows], ",d")


def numbers(run: Run) -> Table | None:
    """Milliseconds by size and k, and the speed-ups, over all rounds."""
    times: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for record in run.pick("latency_ms"):
        size, _, way = record.case.partition(" ")
        times[size, way, record.x or 0].append(record.value)
    over = {what: gains(run, what) for what in ("speedup", "speedup_threads", "threads_gain")}

    def ms(*key: Any) -> Cell:
        found = times.get(key)
        return (f"{median(found):.4g}", f"least {min(found):.4g}") if found else ("", "")

    def ratio(what: str, size: str, k: float) -> Cell:
        return _over_rounds([value for found in over[what].get((size, k), {}).values() for value in found])

    cells = []
    for size, k in dict.fromkeys((size, k) for size, way, k in times if way == "exploited"):
        row = [(f"T5 {size}", ""), (f"{k:,.0f}", ""), *(ms(size, way, k) for way in ("dense", "top-k", "exploited"))]
        cells.append([*row, ratio("speedup", size, k), ratio("speedup_threads", size, k)])
        if (size, "threads", k) in times:
            row = [(f"T5 {size}", ""), ("dense, our threads", ""), ms(size, "dense", k), ("", "")]
            cells.append([*row, ms(size, "threads", k), ratio("threads_gain", size, k), ("1.00", "")])
    titles = (
        "k",
        "dense\n(ms)",
        "top-k,\nmasked (ms)",
        "exploited\n(ms)",
        "speed-up\nover dense",
        "over dense on\nour threads",
    )
    note = (
        "Milliseconds per token, medians of all rounds and seeds, small the least; top-k alone only masks, and saves "
        "nothing. Speed-ups are ratios within a round, to the mean of the dense turns before and after: the median, "
        "small the range of rounds. On our threads: the MLPs dense, on all threads, where torch uses one for a single "
        "token; nothing is skipped. At k = d_ff exploited skips what ReLU leaves inactive, about half."
    )
    return table("In numbers", ["model"], titles, cells, note)


def _over_rounds(ratios: Sequence[float]) -> Cell:
    found = spread(ratios)
    return cell(found and replace(found, mean=median(ratios)), 1, ".2f")


def skipping_numbers(results: Results, run: Run) -> Table | None:
    """What skipping inactive neurons does to the down projections: error, and FLOPs beside the density."""
    rows = []
    for name in dict.fromkeys(record.case for record in run.pick("skip_error")):

        def by_seed(what: str, how: Callable[[list[float]], float], name: str = name) -> Spread | None:
            values: dict[int, list[float]] = {}
            for record in run.pick(what):
                if record.case == name:
                    values.setdefault(record.seed, []).append(record.value)
            return spread(how(found) for found in values.values())

        numbers = [
            cell(by_seed("skip_error", max), 1, ".3f"),
            *(cell(by_seed(what, fmean)) for what in ("skip_flops_share", "density")),
        ]
        rows.append([(results.model(name), name), *numbers])
    titles = ("largest error,\nof the bound", "FLOPs read,\nof dense's (%)", "density\n(%)")
    note = (
        "Down projections of trained models with the rows of inactive neurons skipped: the error against float64, "
        "largest over layers, over what rounding can make of that many products in float32; FLOPs and density, means "
        f"over layers. {RANGE}"
    )
    return table("Skipping inactive neurons", ["model"], titles, rows, note)
