"""Charts of runs that trained a model: density, how the activity is spread over neurons, loss and accuracy."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import altair as alt

from lazyneuron.pages.axes import layer_axis, log_axis, step_axis
from lazyneuron.pages.charts import Figure, Row, Run, rounded, run_title
from lazyneuron.pages.panels import (
    concat,
    grouped,
    layered,
    lines_with_ranges,
    reference,
    seed_field,
    tooltip,
    tooltips,
)
from lazyneuron.records.record import Record

MAX_POINTS_PER_LINE = 300
NEURONS = {
    "never_fired": "never active",
    "rarely_fired": "active at < 1 % of the tokens",
    "hot_90": "make up 90 % of the activity",
    "hot_99": "make up 99 % of the activity",
}
Shares = dict[tuple[str, float | None], tuple[str, str]]
"""What to draw with its `x`, the title of its panels and that of their upright axis."""
IDLE: Shares = {
    ("never_fired", None): ("never active", "share of neurons (%)"),
    ("fires_below", 0.01): ("active at < 1 % of the tokens", "share of neurons (%)"),
}
INPUTS: Shares = {
    ("mean_share", None): ("common mean of the inputs", "share of their square (%)"),
    ("input_share", None): ("activity due to the example", "share of its variance (%)"),
}
SPLITS = {"train": "training data", "eval": "evaluation data", "": "all data"}


def last_steps(records: Iterable[Record]) -> dict[tuple[int, str], int]:
    """The step to call "the end" for each (seed, split): the last one that all splits have, else each one's last."""
    steps: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        steps[record.seed][record.split].add(record.step or 0)
    found = {}
    for seed, by_split in steps.items():
        common = set.intersection(*by_split.values())
        found |= {(seed, split): max(common or own) for split, own in by_split.items()}
    return found


def at_the_end(records: Sequence[Record]) -> list[Record]:
    """Those records that belong to the last step."""
    last = last_steps(records)
    return [record for record in records if last[record.seed, record.split] == (record.step or 0)]


def density_over_training(
    run: Run, name: str, compare: bool = False, levels: Sequence[tuple[float, str]] = ()
) -> Figure | None:
    """Figure 1: the density of each layer over the steps, one panel per stack, one line per layer (and seed).

    `levels` are percentages to draw as dashed lines, each with a note.
    """
    records = run.pick("density")
    split = "train" if any(record.split == "train" for record in records) else "eval"
    if not (rows := [_density_row(run, record) for record in records if record.split == split]):
        return None
    color = alt.Color("layer:O", title="layer", sort="ascending")
    x, y = step_axis(_last(rows)), _percent_axis([*rows, *({"percent": percent} for percent, _ in levels)])
    by_seed = " A line for each layer and seed." if seed_field(rows) else ""
    panels = []
    for stack, part in grouped(rows, "stack"):
        shown = tooltips("stack", "layer", "site", "step", "percent", *seed_field(rows))
        marks = lines_with_ranges(part, x, y, color, shown, detail=["seed:N", "site:N"], size=26)
        panels.append(layered([reference(50, "50 %"), *(reference(*level) for level in levels), *marks], stack))
    return Figure(
        name=name,
        title=f"Density of each layer while training: {run_title(run, with_label=compare)}",
        caption=f"Share of active neurons per MLP layer at each step, on {SPLITS[split]}. Both axes are logarithmic; "
        f"step 0 is the untrained model.{by_seed} Click a layer in the legend to single it out, "
        "beside the panels to see all.",
        spec=concat(panels, pick="layer", legend_columns=6),
    )


def idle_over_training(run: Run, name: str) -> Figure | None:
    """Over the steps, the share of each layer's neurons that never or seldom fire on held-out data."""
    return _shares_over_training(
        run,
        name,
        IDLE,
        title="Idle neurons while training",
        caption="Share of each layer's neurons that fire for none of the tokens, and for less than 1 % of them, on the "
        "held-out data of each step measured. A layer whose neurons are dead is not sparse. Zeros stand at the foot.",
    )


def inputs_over_training(run: Run, name: str) -> Figure | None:
    """Over the steps, what the inputs of each MLP have in common, and whether its map follows them."""
    return _shares_over_training(
        run,
        name,
        INPUTS,
        title="What the inputs of each layer share while training",
        caption="First: |mean of x|² over the mean of |x|², with x the input of a layer's MLP at each held-out "
        "token. Without a common mean, half of the tokens lie on either side of a neuron that has no bias. Second: how "
        "much of the variance of which neurons fire the position does not explain; a layer at 0 is blind to its input.",
    )


def _shares_over_training(run: Run, name: str, shares: Shares, *, title: str, caption: str) -> Figure | None:
    """A panel for each share and stack, a line for each layer and seed; held-out data of the probe steps."""
    color, panels = alt.Color("layer:O", title="layer", sort="ascending"), []
    for (what, x_value), (label, axis) in shares.items():
        rows = [_density_row(run, r) for r in run.pick(what) if r.split == "eval" and r.x == x_value]
        for stack, part in grouped(rows, "stack"):
            x, y = step_axis(_last(part)), _percent_axis(rows, axis)
            shown = [*tooltips("stack", "layer", "site", "step", "num_tokens"), *tooltips(*seed_field(rows))]
            shown.append(tooltip("percent", axis, ".4~g"))
            marks = lines_with_ranges(part, x, y, color, shown, detail=["seed:N", "site:N"], size=26)
            panels.append(layered(marks, " · ".join(filter(None, [label, stack]))))
    if not panels:
        return None
    spec = concat(panels, pick="layer", legend_columns=6)
    return Figure(name=name, title=f"{title}: {run_title(run)}", caption=caption, spec=spec)


def neurons_over_training(run: Run, name: str, compare: bool = False) -> Figure | None:
    """Over the steps, how few neurons make up the activity and how many hardly take part: a panel for each and stack.

    A step's tokens are few, so more neurons are never active here than over all data.
    """
    active = {(r.site, r.seed, r.step): r.value for r in run.pick("num_active") if r.split == "train"}
    density = [r for r in run.pick("density") if r.split == "train" and r.value > 0]
    sizes = {r.site: active[at] / r.value for r in density if (at := (r.site, r.seed, r.step)) in active}
    rows = []
    for what, title in NEURONS.items():
        for r in run.pick(what):
            if r.split == "train" and (size := sizes.get(r.site) if what.endswith("_fired") else 1):
                rows.append(_density_row(run, replace(r, value=r.value / size)) | {"title": title})
    if not rows:
        return None
    color, panels = alt.Color("layer:O", title="layer", sort="ascending"), []
    for title, of_title in grouped(rows, "title"):
        y = _percent_axis(of_title, "share of neurons (%)")
        for stack, part in grouped(of_title, "stack"):
            shown = tooltips("stack", "layer", "site", "step", "num_tokens", *seed_field(rows))
            shown.append(tooltip("percent", "share of neurons (%)", ".4~g"))
            marks = lines_with_ranges(
                part, step_axis(_last(rows)), y, color, shown, detail=["seed:N", "site:N"], size=26
            )
            panels.append(layered(marks, " · ".join(filter(None, [title, stack]))))
    return Figure(
        name=name,
        title=f"Hot and idle neurons while training: {run_title(run, with_label=compare)}",
        caption="Share of each layer's neurons, over the tokens of one training step: those never active, those active "
        "at less than 1 % of its tokens, and the fewest that make up 90 and 99 % of the activity. Zeros stand at the "
        "foot. Click a layer in the legend to single it out, beside the panels to see all.",
        spec=concat(panels, pick="layer", legend_columns=6),
    )


def mean_density(runs: Sequence[Run], name: str) -> Figure | None:
    """The mean over layers of the density while training, one line per run: to compare runs."""
    rows = []
    for run in runs:
        values: dict[tuple[str, int, int], list[float]] = defaultdict(list)
        for record in run.pick("density"):
            if record.split == "train":
                values[record.stack, record.seed, record.step or 0].append(record.value)
        for (stack, seed, step), found in values.items():
            percent = rounded(100 * sum(found) / len(found))
            rows.append({"run": run.label, "stack": stack, "seed": seed, "step": step, "percent": percent})
    if not rows:
        return None
    color = alt.Color("run:N", title="result folder", sort=None, scale=alt.Scale(domain=[run.label for run in runs]))
    x, y = step_axis(_last(rows)), _percent_axis(rows, "mean density (% of neurons active)")
    panels = []
    for stack, part in grouped(rows, "stack"):
        shown = tooltips("run", "step", "percent", *seed_field(rows))
        marks = lines_with_ranges(part, x, y, color, shown, detail=["seed:N"], size=30)
        panels.append(layered([reference(50, "50 %"), *marks], stack))
    return Figure(
        name=name,
        title=f"Mean density while training, compared: {run_title(runs[0])}",
        caption="Mean over the layers of the share of active neurons, on training data, one line per result folder"
        f"{' and seed' if seed_field(rows) else ''}. "
        "Click a folder in the legend to single it out, beside the panels to see all.",
        spec=concat(panels, pick="run"),
    )


def density_by_layer(runs: Sequence[Run], name: str) -> Figure | None:
    """Figure 2: the density at the end by layer, training against evaluation data, one panel per run and stack."""
    rows = [_density_row(run, record) for run in runs for record in at_the_end(run.pick("density"))]
    if not rows:
        return None
    seen = [text for text in SPLITS.values() if any(row["data"] == text for row in rows)]
    panels = []
    for label, of_run in grouped(rows, "run"):
        for stack, part in grouped(of_run, "stack"):
            color = alt.Color("data:N", title="measured on", scale=alt.Scale(domain=seen))
            shape = alt.Shape("data:N", title="measured on", scale=alt.Scale(domain=seen, range=["circle", "diamond"]))
            shown = tooltips("stack", "layer", "site", "data", "step", "percent", "num_tokens", *seed_field(rows))
            y = _percent_axis(rows)
            marks = lines_with_ranges(part, layer_axis(), y, color, shown, shape=shape, detail=["seed:N"], size=70)
            title = " · ".join(filter(None, [label if len(runs) > 1 else "", stack]))
            panels.append(layered([reference(50, "50 %"), *marks], title))
    by_seed = ", a line for each seed" if seed_field(rows) else ""
    on_which = paper = ""
    if len({row["data"] for row in rows}) > 1:
        on_which = ", on the data it was trained on and on data it has not seen"
        paper = " The paper's Figure 2b finds that the two lie close together."
    return Figure(
        name=name,
        title=f"Density by layer at the end of training: {run_title(runs[0])}",
        caption=f"Share of active neurons per layer at the last measured step{on_which}{by_seed}.{paper}",
        spec=concat(panels, pick="data"),
    )


def loss_and_accuracy(runs: Sequence[Run], name: str) -> Figure | None:
    """Loss and accuracy over the steps, one panel each; training is solid, evaluation dashed."""
    units = {"loss": "loss (nats)", "accuracy": "accuracy (%)"}
    panels, compare = [], len(runs) > 1
    rows = {what: [row for run in runs for row in _curve_rows(run, what)] for what in units}
    seen = [text for text in SPLITS.values() if any(row["data"] == text for part in rows.values() for row in part)]
    data = alt.Scale(domain=seen)
    dashes = alt.Scale(domain=seen, range=[[1, 0], [5, 3], [2, 2]][: len(seen)])
    legend = alt.Legend(symbolType="stroke", symbolSize=300)
    by_run = alt.Color("run:N", title="result folder", scale=alt.Scale(domain=[r.label for r in runs]), legend=legend)
    for what, part in rows.items():
        if not part:
            continue
        x, y = step_axis(_last(part)), alt.Y("value:Q", title=units[what], scale=alt.Scale(zero=False, nice=True))
        color = by_run if compare else alt.Color("data:N", title="measured on", scale=data, legend=legend)
        dash = alt.StrokeDash("data:N", title="measured on", scale=dashes, legend=legend)
        shown = tooltips(*(["run"] if compare else []), "data", "step", "value", *seed_field(part))
        panels.append(layered(lines_with_ranges(part, x, y, color, shown, dash=dash, detail=["seed:N"], size=22), what))
    if not panels:
        return None
    return Figure(
        name=name,
        title=f"Loss and accuracy while training: {run_title(runs[0])}",
        caption="Loss and, where it was measured, accuracy of the prediction at each step (logarithmic from step 1)."
        f" A line with more than {MAX_POINTS_PER_LINE} records is thinned to that many.",
        spec=concat(panels, pick="run" if compare else "data"),
    )


def _density_row(run: Run, record: Record) -> Row:
    keys = ("stack", "layer", "site", "seed", "num_tokens")
    row = {key: getattr(record, key) for key in keys} | {"run": run.label, "step": record.step or 0}
    return row | {"data": SPLITS.get(record.split, record.split), "percent": rounded(100 * record.value)}


def _curve_rows(run: Run, what: str) -> list[Row]:
    """Rows of one curve per seed and split, each thinned evenly along the logarithm of the step."""
    lines: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    for record in run.pick(what):
        lines[record.seed, record.split][record.step or 0] = record.value * (100 if what == "accuracy" else 1)
    rows = []
    for (seed, split), line in lines.items():
        shared = {"run": run.label, "seed": seed, "data": SPLITS.get(split, split)}
        rows += [shared | {"step": step, "value": rounded(line[step])} for step in thinned(line, MAX_POINTS_PER_LINE)]
    return rows


def thinned(steps: Iterable[int], most: int) -> list[int]:
    """At most so many of the steps, the first and the last among them, even along the logarithm of the step."""
    ordered = sorted(steps)
    if len(ordered) <= most:
        return ordered
    width = math.log1p(ordered[-1]) / (most - 1)
    return sorted({int(math.log1p(step) / width): step for step in reversed(ordered)}.values())


def _last(rows: list[Row]) -> int:
    return max(1, *(row["step"] for row in rows), 1)


def _percent_axis(rows: list[Row], title: str = "density (% of neurons active)") -> alt.Y:
    return log_axis([row["percent"] for row in rows], title, field="percent")
