"""Charts of measured models: what each MLP of a trained model did with the tokens it was shown."""

import math
from collections.abc import Sequence

import altair as alt

from lazyneuron.pages.axes import PLAIN, layer_axis, log_axis, row_axis
from lazyneuron.pages.charts import Figure, Row, Run, rounded
from lazyneuron.pages.measured_layers import Layer, at_layer, has_positive, layer_color, layers_of
from lazyneuron.pages.panels import grouped, inline, layered, lines_with_ranges, picked, side_by_side, tooltip, tooltips

SHARES = {
    "density": "are not exactly zero",
    "density_relative": "are above 1 % of the largest",
    "energy_99": "hold 99 % of the energy",
    "energy_90": "hold 90 % of the energy",
    "positive": "are above zero",
}
STATIC = {
    "hot_99": "make up 99 % of the activity",
    "hot_90": "make up 90 % of the activity",
    "rarely_fired": "are active at < 1 % of the tokens",
    "never_fired": "are never active",
}
PLACES = {"density_class_token": "class token", "density_patches": "patches"}
PANELS = {
    "density": ("not exactly zero", "share of neurons (%)"),
    "energy_90": ("hold 90 % of the energy", "share of neurons (%)"),
    "num_active": ("active neurons per token", "number of neurons"),
    "overlap": ("active in both of two neighbouring tokens", "share of those active in either (%)"),
}
_SHAPES = ["circle", "triangle-up", "square", "diamond", "triangle-down"]
_CLICK = "Click in the legend to single one out, beside the panels to see all."
_AT = ("stack", "layer", "site", "num_tokens")
_ROW_HEIGHTS = (14, 22, 90)
_MIN_TICK_GAP = 0.08
_ONE_STACK = "the only one"
_QUANTILES = {
    "low": (0.01, "1 % of the tokens have at most"),
    "median": (0.5, "half of them have at most"),
    "high": (0.99, "99 % of them have at most"),
}


def shares_by_layer(run: Run, name: str) -> Figure | None:
    """Density by layer, with the shares of neurons that matter where exact zeros are rare."""
    return _by_layer(
        run,
        name,
        SHARES,
        legend="share of neurons that",
        title=f"Density by layer: {run.name}",
        caption="Share of an MLP's neurons, mean over tokens, on a logarithmic axis. Density is the share that are not "
        "exactly zero; energy is the sum of squares of a token's activation map. The paper reports a mean density of "
        "3.0 % for T5-Base and 6.3 % for ViT-B/16, and that the first and last layers are denser than the middle.",
    )


def activity_over_the_data(run: Run, name: str) -> Figure | None:
    """By layer, how few neurons make up the activity of all tokens, and how many hardly take part."""
    return _by_layer(
        run,
        name,
        STATIC,
        legend="share of neurons that",
        title=f"How the activity is spread over the neurons: {run.name}",
        caption="Share of an MLP's neurons, on a logarithmic axis. A neuron's activity is the number of tokens at "
        "which it is active. The few that make up most of all activity are hot neurons; those never active are dead on "
        "these data.",
    )


def kinds_of_token(run: Run, name: str) -> Figure | None:
    """Density by layer of the class token and of the patches."""
    return _by_layer(
        run,
        name,
        PLACES,
        legend="density of",
        title=f"Class token and patches: {run.name}",
        caption="Share of active neurons by layer in the class token and, mean over them, in the patches of the image.",
    )


def _by_layer(run: Run, name: str, series: dict[str, str], *, legend: str, title: str, caption: str) -> Figure | None:
    """One line for each number in `series` over the layers, one panel per stack."""
    rows = [
        at_layer(layer) | {"counted": text, "value": rounded(100 * value)}
        for layer in layers_of(run)
        for what, text in series.items()
        if (value := layer.fraction(what)) is not None and (what != "positive" or has_positive(layer))
    ]
    if not rows:
        return None
    seen = [text for text in series.values() if any(row["counted"] == text for row in rows)]
    key, panels = alt.Legend(title=legend), []
    y = log_axis([row["value"] for row in rows], "share of neurons (%)")
    for stack, part in grouped(rows, "stack"):
        color = alt.Color("counted:N", scale=alt.Scale(domain=seen), legend=key)
        shape = alt.Shape("counted:N", scale=alt.Scale(domain=seen, range=_SHAPES[: len(seen)]), legend=key)
        shown = [*tooltips(*_AT), tooltip("counted", legend), tooltip("value", "share (%)", ".4~g")]
        size = 55 if len({row["layer"] for row in part}) <= 16 else 25
        panels.append(layered(lines_with_ranges(part, layer_axis(), y, color, shown, shape=shape, size=size), stack))
    caption = f"{caption} {_zero_note(rows)}{_CLICK}"
    return Figure(name=name, title=title, caption=caption, spec=side_by_side(panels, pick="counted", legend_columns=1))


def firing_rate(run: Run, name: str) -> Figure | None:
    """Figure 3: how often each neuron is active, most active first, one line per layer and one panel per stack."""
    layers = [layer for layer in layers_of(run) if layer.curves.get("firing_rate")]
    if not layers:
        return None
    rows = []
    for layer in layers:
        xs, rates = zip(*layer.curves["firing_rate"], strict=True)
        never = layer.numbers.get("never_fired")
        row = {"rank": [rounded(100 * x) for x in xs], "value": [rounded(100 * rate) for rate in rates]}
        rows.append(at_layer(layer) | row | {"never": "not counted" if never is None else f"{never:,.0f}"})
    rates = [rate for row in rows for rate in row["value"]]
    y = log_axis(rates, "tokens for which it is active (%)", "never")
    axis, panels = alt.Axis(grid=False, tickCount=10, labelOverlap=True), []
    for stack, part in grouped(rows, "stack"):
        base = alt.Chart(inline(part)).transform_flatten(["rank", "value"])
        base = base.encode(
            x=alt.X("rank:Q", title="neurons, most active first (%)", scale=alt.Scale(domain=[0, 100]), axis=axis),
            y=y,
            color=layer_color(layers),
            opacity=picked(),
            detail=["site:N"],
        )
        shown = [*tooltips(*_AT), tooltip("never", "neurons never active")]
        panels.append(layered([base.mark_line(strokeWidth=2, strokeJoin="round").encode(tooltip=shown)], stack))
    zeros = "Each neuron shown here was active for at least one token."
    if 0 in rates:
        zeros = (
            "A logarithmic axis has no zero: neurons that were never active lie along its foot, marked “never”, so a "
            "line that drops to it ends in dead neurons, and how far it runs along it says how many."
        )
    return Figure(
        name=name,
        title=f"How often each neuron is active: {run.name}",
        caption=f"The paper's Figure 3. Neurons of each layer from the most to the least active. {zeros} In the first "
        "encoder layer of T5-Base the paper finds that 93.5 % of the neurons are active for less than 10 % of the "
        f"tokens, and that none is dead. {_CLICK}",
        spec=side_by_side(panels, pick="layer", legend_columns=6),
    )


def active_per_token(run: Run, name: str) -> Figure | None:
    """How the number of active neurons varies over tokens: one histogram per layer, one below the other."""
    layers = layers_of(run)
    most = max((layer.row + 1 for layer in layers), default=1)
    peak = 0.9 if most <= 4 else 1.2 if most <= 8 else 1.6
    rows = [row for layer in layers if layer.d_ff and (row := _ridge(layer, layer.d_ff, peak))]
    if not rows:
        return None
    last = max(1e-3, *(value or 0 for row in rows for value in (*row["percent"], row["high"], row["median"])))
    scale, top = alt.Scale(type="sqrt", domain=[0, last], nice=False), -peak - 0.1
    axis = alt.Axis(values=_sqrt_ticks(last), labelExpr=PLAIN, labelOverlap="greedy", labelSeparation=4)
    quantiles = [tooltip(f"text_{key}", text) for key, (_, text) in _QUANTILES.items()]
    panels = []
    for stack, part in grouped(rows, "stack"):
        base, y = alt.Chart(inline(part)).encode(tooltip=[*tooltips(*_AT), *quantiles]), row_axis(part, "row", top)
        ridges = base.transform_flatten(["percent", "top"])
        ridges = ridges.mark_area(interpolate="step-after", fillOpacity=0.7, line={"strokeWidth": 1.3})
        ridges = ridges.encode(
            x=alt.X("percent:Q", title="active neurons of a token (%)", scale=scale, axis=axis),
            y=row_axis(part, "top", top),
            y2="row:Q",
            color=layer_color(layers, legend=False),
            detail=["site:N"],
        )
        span = base.mark_rule(style="reference", strokeDash=[1, 0]).encode(
            x=alt.X("low:Q", scale=scale), x2="high:Q", y=y
        )
        median = base.mark_tick(style="reference", orient="vertical", size=12, thickness=3, opacity=1)
        median = median.encode(x=alt.X("median:Q", scale=scale), y=y)
        panels.append(layered([ridges, span, median], stack).properties(height=_height(len(part), peak)))
    return Figure(
        name=name,
        title=f"Active neurons per token: {run.name}",
        caption="One histogram per layer: how many tokens have how many of the layer's neurons active, on a "
        "square-root axis; each is scaled to its own highest bar. At its foot the upright tick is the median token and "
        "the line reaches from the 1st to the 99th percentile.",
        spec=side_by_side(panels),
    )


def _sqrt_ticks(last: float) -> list[float]:
    """Round numbers up to `last`, so far apart on a square-root axis that each has room for its label."""
    nice = [
        float(f"{digit}e{power}") for power in range(2, -5, -1) for digit in (5, 3, 2, 1) if digit != 3 or power == 1
    ]
    ticks: list[float] = []
    for tick in nice:
        place, limit = math.sqrt(tick / last), math.sqrt(ticks[-1] / last) if ticks else 1 + _MIN_TICK_GAP
        if tick <= 1.001 * last and _MIN_TICK_GAP <= place <= limit - _MIN_TICK_GAP:
            ticks.append(tick)
    return [0, *reversed(ticks)]


def _height(num_rows: int, peak: float) -> int:
    """Points for so many histograms, each `peak` rows high: roomy for few, lower for more than fit a screen."""
    low, usual, high = _ROW_HEIGHTS
    return round((num_rows + peak - 0.4) * min(max(usual, min(high, 260 / num_rows)), max(low, 800 / num_rows)))


def _ridge(layer: Layer, d_ff: int, peak: float) -> Row | None:
    """One layer's histogram, `peak` rows high, over percent of its neurons without the last, empty bins; quantiles."""
    points = layer.curves.get("token_share", [])
    filled = [number for number, (_, share) in enumerate(points) if share > 0]
    points = points[: filled[-1] + 2] if filled else []
    found = {key: layer.quantile(q) for key, (q, _) in _QUANTILES.items()}
    if not points and found["median"] is None:
        return None
    highest = max((share for _, share in points), default=1.0)
    row = at_layer(layer) | {"percent": [rounded(100 * x / d_ff) for x, _ in points]}
    row |= {"top": [rounded(layer.row - peak * share / highest) for _, share in points]}
    row |= {key: None if count is None else rounded(100 * count / d_ff) for key, count in found.items()}
    texts = {key: "not counted" if n is None else f"{n:,.0f} of {d_ff:,} neurons" for key, n in found.items()}
    return row | {f"text_{key}": text for key, text in texts.items()}


def compared_by_depth(runs: Sequence[Run], name: str) -> Figure | None:
    """Several models by layer, or by relative depth where they have different numbers of layers."""
    rows = [row for run in runs for row in _depth_rows(run)]
    if not rows:
        return None
    is_relative = len({row["num_layers"] for row in rows}) > 1
    models = [run.name for run in runs]
    stacks = [stack for stack in (_ONE_STACK, "encoder", "decoder") if any(row["stack"] == stack for row in rows)]
    kind = "N" if len(models) <= 5 else "O"
    panels = []
    for what, part in grouped(rows, "what"):
        title, unit = PANELS[what]
        top = 10.0 ** math.ceil(math.log10(max(10, *(row["value"] for row in part)))) if what == "num_active" else 100
        y = log_axis([row["value"] for row in part], unit, top=top)
        color = alt.Color(f"model:{kind}", title="model", sort=None, scale=alt.Scale(domain=models))
        legend = alt.Legend(title="stack") if len(stacks) > 1 else None
        dashes = alt.Scale(domain=stacks, range=[[5, 3] if stack == "decoder" else [1, 0] for stack in stacks])
        dash = alt.StrokeDash("stack:N", scale=dashes, legend=legend)
        shapes = alt.Scale(domain=stacks, range=_SHAPES[: len(stacks)])
        shape = alt.Shape("stack:N", scale=shapes, legend=legend)
        shown = [tooltip("model"), *tooltips(*_AT), tooltip("value", unit, ".4~g")]
        marks = lines_with_ranges(part, layer_axis(is_relative), y, color, shown, shape=shape, dash=dash, size=32)
        panels.append(layered(marks, title))
    where = "relative depth, since the models have different numbers of layers" if is_relative else "layer"
    return Figure(
        name=name,
        title=f"The models compared by {'depth' if is_relative else 'layer'}",
        caption=f"Mean over tokens, by {where}; all upright axes are logarithmic. {_zero_note(rows)}{_CLICK}",
        spec=side_by_side(panels, pick="model"),
    )


def _depth_rows(run: Run) -> list[Row]:
    layers, rows = layers_of(run), []
    for layer in layers:
        num_layers = sum(other.stack == layer.stack for other in layers)
        depth = rounded(100 * layer.row / (num_layers - 1)) if num_layers > 1 else 50.0
        place = at_layer(layer) | {"stack": layer.stack or _ONE_STACK, "model": run.name}
        place |= {"num_layers": num_layers, "depth": depth}
        for what in PANELS:
            if (value := layer.numbers.get(what)) is not None:
                rows.append(place | {"what": what, "value": rounded(value if what == "num_active" else 100 * value)})
    return sorted(rows, key=lambda row: list(PANELS).index(row["what"]))


def _zero_note(rows: list[Row]) -> str:
    return (
        "A zero, which a logarithmic axis lacks, is drawn at its foot. " if any(r["value"] == 0 for r in rows) else ""
    )
