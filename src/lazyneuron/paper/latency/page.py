"""Unbatched decoding under Top-k: milliseconds per token and speed-up over k."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean

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

WAYS = {"dense": "dense", "top-k": "top-k, masked", "exploited": "top-k, exploited"}
_DENSE = ("dense", "dense, last")
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
    """Milliseconds per token by size, method and k over seeds; dense is the mean of its two timings."""
    values: dict[tuple[str, str, float, int], list[float]] = defaultdict(list)
    for record in run.pick("latency_ms"):
        size, _, way = record.case.partition(" ")
        values[size, "dense" if way in _DENSE else way, record.x or 0, record.seed].append(record.value)
    return rows_over_seeds(
        ({"size": size, "way": WAYS[way], "k": k}, fmean(found))
        for (size, way, k, _), found in values.items()
        if way in WAYS
    )


def time_per_token(run: Run, name: str) -> Figure | None:
    """Milliseconds per token by k, one panel per size; the dense model is a line."""
    rows = latency_rows(run)
    if not rows:
        return None
    domain = [way for way in WAYS.values() if any(row["way"] == way for row in rows)]
    color = alt.Color("way:N", title=None, scale=alt.Scale(domain=domain))
    panels = []
    for size in dict.fromkeys(row["size"] for row in rows):
        part = [row for row in rows if row["size"] == size]
        sparse = [row for row in part if row["way"] != WAYS["dense"]]
        y = alt.Y("value:Q", title="milliseconds per token", scale=alt.Scale(zero=True, nice=True))
        tooltips = [tooltip("way"), tooltip("k", form=",d")]
        rule = alt.Chart(inline([row for row in part if row["way"] == WAYS["dense"]])).mark_rule(strokeWidth=2)
        rule = rule.encode(y=y, color=color, opacity=picked(), tooltip=[tooltips[0], *over_seeds_tooltip("ms")])
        shape = alt.Shape("way:N", title=None, scale=alt.Scale(domain=domain, range=["circle", "diamond", "circle"]))
        tooltips += over_seeds_tooltip("ms")
        lines = lines_with_ranges(sparse, _k_axis(sparse), y, color, tooltips, shape=shape, size=60)
        panels.append(layered([rule, *lines], f"T5 {size}"))
    return Figure(
        name=f"{name}-time",
        title="Time per token over k",
        caption="Median time of one greedily decoded token, batch of one, random weights, by k on a logarithmic axis: "
        "mean over seeds, bars their range. Top-k alone masks the activation map and saves nothing; exploited, the "
        "rows of inactive neurons are not read, and the tokens are the same; at k = d_ff it shows what our "
        "threads alone gain. The line is the dense model.",
        spec=concat(panels, pick="way", legend=domain),
    )


def speedups(run: Run, name: str) -> Figure | None:
    """Dense time over exploited time by k, one line per size."""
    rows = rows_over_seeds(({"size": f"T5 {r.case}", "k": r.x or 0}, r.value) for r in run.pick("speedup"))
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
        caption="Time of a token of the dense model over that of the same model under Top-k, exploited: means over "
        "seeds, bars their range. Dense is the fastest of two timings, before and after, and of ours at k = d_ff. "
        "Above 1 Top-k is faster.",
        spec=concat([panel], pick="size", legend=sizes),
    )


def _k_axis(rows: Sequence[Row]) -> alt.X:
    return settings_axis("k", "k", [row["k"] for row in rows], ",d")


def numbers(run: Run) -> Table | None:
    """Milliseconds by size and k, and the speed-up."""
    rows = latency_rows(run)
    found = {(row["size"], row["way"], row["k"]): row for row in rows}
    dense = {row["size"]: row for row in rows if row["way"] == WAYS["dense"]}
    gains: dict[tuple[str, float], list[float]] = {}
    for record in run.pick("speedup"):
        gains.setdefault((record.case, record.x or 0), []).append(record.value)

    def ms(row: dict[str, float] | None) -> Cell:
        return (f"{row['value']:.4g}", "") if row else ("", "")

    ways = (WAYS["top-k"], WAYS["exploited"])
    cells = [
        [
            (f"T5 {size}", ""), (f"{k:,.0f}", ""), ms(dense.get(size)),
            *(ms(found.get((size, way, k))) for way in ways),
            cell(spread(gains.get((size, k), [])), 1, ".2f"),
        ]
        for size, k in dict.fromkeys((row["size"], row["k"]) for row in rows if row["way"] in ways)
    ]  # fmt: skip
    titles = ("k", "dense\n(ms)", "top-k,\nmasked (ms)", "top-k,\nexploited (ms)", "speed-up")
    note = (
        "Milliseconds per token; top-k alone only masks, and saves nothing. Exploited at k = d_ff leaves nothing out: "
        "what our threads alone gain. Speed-up: the fastest of it and of dense over exploited."
    )
    return table("In numbers", ["model"], titles, cells, note)


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
