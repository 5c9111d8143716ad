"""Figure 3: the firing rate of each neuron, and the first encoder layer beside the paper's in numbers."""

import altair as alt

from lazyneuron.pages.axes import log_axis
from lazyneuron.pages.charts import Figure, Row, Run, rounded
from lazyneuron.pages.panels import concat, grouped, inline, layered, picked, tooltip
from lazyneuron.pages.section import Part
from lazyneuron.paper.firing import BUSIEST, FIG3, LEAST, OVER_HUNDREDTH, UNDER_TENTH
from lazyneuron.paper.results import Results, over_seeds, spread
from lazyneuron.paper.tables import RANGE, cell, table
from lazyneuron.records.table import Table

_PAPER_POINTS = [  # rank (% of the neurons, most active first) and firing rate (%)
    (0.0, 100 * BUSIEST, "a few fire about 50 % of the time"),
    (100 - 100 * UNDER_TENTH, 10.0, f"{100 * UNDER_TENTH:g} % fire less than 10 % of the time"),
    (100 * OVER_HUNDREDTH, 1.0, f"{100 * OVER_HUNDREDTH:g} % fire more than 1 % of the time"),
    (100.0, 100 * LEAST, f"the least: {100 * LEAST:.3f} %"),
]
FIRST, OTHERS, PAPER = "first layer", "other layers", "the paper: T5-Base, first encoder layer"


def add(part: Part, results: Results, name: str) -> None:
    """Add the chart and the table of each firing run."""
    for run in results.studies("firing"):
        model = ", ".join(map(results.model, run.config.get("of", ()))) or run.name
        part.figures += filter(None, [firing_by_rank(run, name, model)])
        part.tables += filter(None, [numbers(run, model), by_layer(run, model)])


def firing_by_rank(run: Run, name: str, model: str) -> Figure | None:
    """Share of tokens for which each neuron is active, most active first; a line for each layer and seed."""
    rows = _curves(run)
    if not rows:
        return None
    domain = [FIRST, OTHERS, PAPER]
    color = alt.Color("which:N", title=None, scale=alt.Scale(domain=domain))
    rates = [rate for row in rows for rate in row["value"]]
    y = log_axis([*rates, *(rate for _, rate, _ in _PAPER_POINTS)], "tokens for which it is active (%)", "never")
    axis = alt.Axis(grid=False, tickCount=5, labelOverlap=True)
    x = alt.X("rank:Q", title="neurons, most active first (%)", scale=alt.Scale(domain=[0, 100]), axis=axis)
    width = alt.condition(f"datum.which === '{FIRST}'", alt.value(2.6), alt.value(0.9))
    panels = []
    for stack, part in grouped(rows, "stack"):
        part.sort(key=lambda row: row["which"] == FIRST)
        base = alt.Chart(inline(part)).transform_flatten(["rank", "value"])
        tooltips = [tooltip("layer"), tooltip("seed", form="d"), tooltip("num_tokens", "tokens counted", ",")]
        tooltips += [tooltip("never", "neurons never active", ",d")]
        lines = base.mark_line(strokeJoin="round").encode(
            x=x, y=y, color=color, strokeWidth=width, opacity=picked(), detail=["layer:N", "seed:N"], tooltip=tooltips
        )
        marks: list[alt.Chart] = [lines]
        if stack in ("encoder", ""):
            points = [{"rank": at, "value": rate, "note": note, "which": PAPER} for at, rate, note in _PAPER_POINTS]
            shown = [tooltip("note", "the paper")]
            dots = alt.Chart(inline(points)).mark_point(shape="diamond", size=110, strokeWidth=2.2, filled=False)
            marks.append(dots.encode(x=x, y=y, color=color, opacity=picked(), tooltip=shown))
        panels.append(layered(marks, stack))
    tokens = max(row["num_tokens"] or 0 for row in rows)
    zeros = ' Neurons that were never active lie along its foot, marked "never".' if 0 in rates else ""
    return Figure(
        name=f"{name}-{run.name}",
        title=f"How often each neuron fires: {model}",
        caption=f"Neurons of each layer from the most to the least active, over {tokens:,} tokens of training data; "
        f"the upright axis is logarithmic. A line for each layer and seed, the first layer thick.{zeros} Diamonds: "
        "what the paper states of the first encoder layer of a pretrained T5-Base.",
        spec=concat(panels, pick="which", legend=domain),
    )


def _curves(run: Run) -> list[Row]:
    never = {(r.seed, r.site): r.value for r in run.pick("never_fired")}
    curves: dict[tuple[int, str], list[tuple[float, float]]] = {}
    places = {}
    for record in run.pick("firing_rate"):
        if record.x is not None:
            curves.setdefault((record.seed, record.site), []).append((record.x, record.value))
            places[record.seed, record.site] = record
    rows = []
    for key, points in curves.items():
        record = places[key]
        points.sort()
        row: Row = {"stack": record.stack, "layer": record.layer, "seed": record.seed}
        row |= {"num_tokens": record.num_tokens, "never": rounded(never.get(key))}
        row |= {"which": FIRST if record.layer == 0 else OTHERS}
        row |= {"rank": [rounded(100 * x, 4) for x, _ in points], "value": [rounded(100 * v, 4) for _, v in points]}
        rows.append(row)
    return rows


def numbers(run: Run, model: str) -> Table | None:
    """How the first layer's neurons fire, beside what the paper says of T5's first encoder layer."""
    first = [r for r in run.records if r.layer == 0 and r.stack in ("encoder", "")]

    def by_seed(what: str, x: float | None = None) -> dict[int, float]:
        return over_seeds(r for r in first if r.what == what and (x is None or r.x == x))

    below_1 = by_seed("fires_below", 0.01)
    most = {s: max((r.value for r in first if r.what == "firing_rate" and r.seed == s), default=0) for s in below_1}
    size = {s: a / d for s, a in by_seed("num_active").items() if (d := by_seed("density").get(s))}
    dead = {s: n / size[s] for s, n in by_seed("never_fired").items() if s in size}
    often = {seed: 1 - value for seed, value in below_1.items()}
    values = [most, by_seed("fires_below", 0.1), often, by_seed("least_firing_rate"), dead]
    if not any(values):
        return None
    rows = [
        [text, (reported, ""), cell(spread(found.values()), form=".4g")]
        for (text, reported), found in zip(FIG3.numbers, values, strict=True)
    ]
    note = f"Shares of neurons or of tokens. {RANGE}"
    return table(f"In numbers: {model}", ["first layer"], ["the paper", "here (%)"], rows, note)


def by_layer(run: Run, model: str) -> Table | None:
    """How many neurons of each layer never fire, and fire for less than 1 and 10 % of the tokens."""
    rows = []
    layers = {record.site: record for record in run.pick("never_fired")}
    for site, place in layers.items():
        own = [record for record in run.records if record.site == site]
        found = [
            over_seeds(r for r in own if r.what == what and (x is None or r.x == x))
            for what, x in (("never_fired", None), ("fires_below", 0.01), ("fires_below", 0.1))
        ]
        cells = [
            cell(spread(values.values()), scale, ".3g") for values, scale in zip(found, (1, 100, 100), strict=True)
        ]
        rows.append([f"{place.stack} layer {place.layer}".strip(), *cells, f"{place.num_tokens or 0:,}"])
    titles = ["neurons that\nnever fire", "fire < 1 % of\nthe time (%)", "fire < 10 % of\nthe time (%)"]
    return table(f"All layers: {model}", ["layer"], [*titles, "tokens"], rows, RANGE)
