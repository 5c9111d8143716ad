"""Trained models on corrupted images, and how sure they are: accuracy over severity, relative errors, reliability."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import altair as alt

from lazyneuron.pages.charts import Figure, Row, Run, concat, inline, layered, picked, rounded
from lazyneuron.paper.pages.experiment import Experiment, spread
from lazyneuron.paper.pages.sweep_charts import over_seeds_tooltip, reference, seeds_row, told

FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CLEAN, MEAN = "clean", "mean of all (mCE)"
_MANY = 6


def said_corruption(name: str) -> str:
    """A corruption for people: "gaussian noise"."""
    return name.replace("_", " ")


def under(run: Run, what: str = "accuracy") -> dict[tuple[str, str], dict[int, dict[float, float]]]:
    """A number by model and corruption, then seed, then severity."""
    found: dict[tuple[str, str], dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in run.tested(what):
        name, _, corruption = record.case.partition(" ")
        if corruption:
            found[name, corruption][record.seed][record.x or 0.0] = record.value
    return found


def mean_under(run: Run, model: str, corruption: str) -> dict[int, float]:
    """Accuracy by seed, mean over severities."""
    found = under(run).get((model, corruption), {})
    return {seed: fmean(by_severity.values()) for seed, by_severity in found.items()}


def models(run: Run) -> list[str]:
    """The runs that a study compared, the baseline first."""
    return list(dict.fromkeys(record.case.partition(" ")[0] for record in run.tested("accuracy") if " " in record.case))


def _by_family(corruptions: Sequence[str]) -> list[str]:
    order = [name for names in FAMILIES.values() for name in names]
    return sorted(corruptions, key=lambda name: order.index(name) if name in order else len(order))


def accuracy_over_severity(experiment: Experiment, run: Run, name: str) -> Figure | None:
    """Accuracy of each model over the severity, one panel per corruption; severity 0 is the clean images."""
    found = under(run)
    corruptions = _by_family(list(dict.fromkeys(corruption for _, corruption in found if corruption != CLEAN)))
    if not corruptions:
        return None
    names = models(run)
    domain = [experiment.model(model) for model in names]
    color = alt.Color("model:N", title=None, scale=alt.Scale(domain=domain))
    is_many = len(corruptions) >= _MANY
    y = alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=4))
    x = alt.X("severity:O", title=None if is_many else "severity", axis=alt.Axis(labelAngle=0, grid=False))
    panels = []
    for corruption in corruptions:
        rows: list[Row] = []
        for model in names:
            by_severity: dict[float, list[float]] = defaultdict(list)
            for case in (CLEAN, corruption):
                for values in found.get((model, case), {}).values():
                    for severity, value in values.items():
                        by_severity[severity].append(value)
            for severity, values in sorted(by_severity.items()):
                seen = spread(values)
                assert seen is not None
                rows.append({"model": experiment.model(model), "severity": int(severity)} | seeds_row(seen))
        base = alt.Chart(inline(rows)).encode(x=x, color=color, opacity=picked())
        bars = base.mark_rule(strokeWidth=1.4).encode(y=alt.Y("low:Q"), y2="high:Q")
        tooltip = [*told(("model", "model", ""), ("severity", "severity", "")), *over_seeds_tooltip("accuracy (%)")]
        points = base.mark_point(size=26, filled=True).encode(y=y, tooltip=tooltip)
        marks = [base.mark_line(strokeWidth=1.6).encode(y=y), bars, points]
        panel = layered(marks, said_corruption(corruption)).properties(width=170, height=110 if is_many else 180)
        panels.append(panel)
    return Figure(
        name=f"{name}-severity",
        title="Accuracy over severity",
        caption="Accuracy (%) on corrupted held-out images over the severity, which is 0 for clean ones; all models "
        "saw the same images. Means over seeds, bars their range.",
        spec=concat(panels, pick="model", columns=3, narrow_columns=2, legend=domain),
    )


def relative_errors(experiment: Experiment, run: Run, name: str) -> Figure | None:
    """The error under each corruption relative to the first model's, and the mean of all."""
    names = models(run)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in run.pick("corruption_error"):
        model, _, corruption = record.case.partition(" ")
        values[model, corruption].append(100 * record.value)
    for record in run.pick("mce"):
        values[record.case, MEAN].append(100 * record.value)
    rows: list[Row] = []
    for (model, corruption), found in values.items():
        seen = spread(found)
        if seen is not None and model != names[0]:
            place = {"model": experiment.model(model), "corruption": said_corruption(corruption)}
            rows.append(place | {"is_mean": corruption == MEAN} | seeds_row(seen, 1.0))
    if not rows:
        return None
    order = [said_corruption(c) for c in _by_family([row["corruption"].replace(" ", "_") for row in rows])]
    order = [MEAN, *(c for c in dict.fromkeys(order) if c != said_corruption(MEAN.replace(" ", "_")))]
    y = alt.Y("corruption:N", title=None, sort=order, axis=alt.Axis(grid=False, labelLimit=150))
    base = alt.Chart(inline(rows)).encode(
        y=y, color=alt.Color("model:N", title=None, legend=None if len(names) == 2 else alt.Undefined)
    )
    scale = alt.Scale(zero=False, nice=True)
    bars = base.mark_rule(strokeWidth=2.2).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    tooltip = [*told(("model", "model", ""), ("corruption", "corruption", "")), *over_seeds_tooltip("error (%)")]
    points = base.mark_point(filled=True, opacity=1).encode(
        x=alt.X("value:Q", title=f"error relative to {experiment.model(names[0])} (%)", scale=scale),
        size=alt.condition("datum.is_mean", alt.value(130), alt.value(55)),
        tooltip=tooltip,
    )
    panel = layered([reference(100, "", channel="x"), bars, points], "").properties(height=alt.Step(20), width=420)
    others = " and ".join(dict.fromkeys(row["model"] for row in rows))
    return Figure(
        name=f"{name}-relative",
        title=f"Error of {others} under each corruption, relative to {experiment.model(names[0])}",
        caption="Error over five severities over that of the first model on the same images: below 100 % (dashed) the "
        "model errs less often. The large point is the mean of all corruptions. Means over seeds, bars their range.",
        spec=concat([panel]),
    )


def reliability(experiment: Experiment, name: str) -> Figure | None:
    """Accuracy by confidence on natural held-out images: a line for each model trained on true labels, and seed."""
    rows: list[Row] = []
    for member in experiment.trained:
        if (member.run.config.get("task") or {}).get("random_labels"):
            continue
        for record in member.run.tested("reliability"):
            if record.x is not None:
                row: Row = {"model": experiment.model(member.run.name), "seed": record.seed}
                row |= {"confidence": rounded(100 * record.x), "value": rounded(100 * record.value)}
                rows.append(row | {"count": record.num_tokens})
    if not rows:
        return None
    domain = list(dict.fromkeys(row["model"] for row in rows))
    color = alt.Color("model:N", title=None, scale=alt.Scale(domain=domain))
    whole = alt.Scale(domain=[0, 100], nice=False)
    ends = alt.Chart(inline([{"confidence": 0, "value": 0}, {"confidence": 100, "value": 100}]))
    x = alt.X("confidence:Q", title="mean confidence of the predictions in a bin (%)", scale=whole)
    y = alt.Y("value:Q", title="right ones among them (%)", scale=whole)
    diagonal = ends.mark_line(style="reference", strokeDash=[5, 4]).encode(x=x, y=y)
    base = alt.Chart(inline(rows)).encode(x=x, y=y, color=color, opacity=picked(), detail="seed:N")
    lines = base.mark_line(strokeWidth=1.3)
    biggest = max(row["count"] or 1 for row in rows)
    size = alt.Size("count:Q", legend=None, scale=alt.Scale(domain=[0, biggest], range=[12, 220]))
    tooltip = told(("model", "model", ""), ("seed", "seed", "d"), ("confidence", "confidence (%)", ".4~g"))
    tooltip += told(("value", "right (%)", ".4~g"), ("count", "predictions", ","))
    points = base.mark_circle(fillOpacity=0.7).encode(size=size, tooltip=tooltip)
    spec = concat([layered([diagonal, lines, points], "")], pick="model", legend=domain)
    spec["usermeta"] |= {"aspect": 0.85, "widest": 460}
    return Figure(
        name=f"{name}-reliability",
        title="Reliability: how often a prediction is right, by how sure the model is",
        caption="Predictions on natural held-out images in bins of confidence; a larger point holds more of them. On "
        "the dashed line confidence is what it says, below it the model is too sure. A line for each model and seed.",
        spec=spec,
    )
