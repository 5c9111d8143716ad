"""Trained models on corrupted images, and how sure they are: accuracy over severity, relative errors, reliability."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import altair as alt

from lazyneuron.pages.charts import Figure, Row, Run, rounded
from lazyneuron.pages.panels import concat, inline, layered, lines_with_ranges, picked, reference, tooltip
from lazyneuron.pages.section import Part
from lazyneuron.pages.training_charts import at_the_end
from lazyneuron.paper.results import Member, Results, family, less, quality, spread
from lazyneuron.paper.sweep_charts import density_by_setting, over_seeds_tooltip, rows_over_seeds, setting_text
from lazyneuron.paper.table1 import HEAD, ROWS
from lazyneuron.paper.tables import RANGE, Cell, cell, table
from lazyneuron.records.table import Table

FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CLEAN, MEAN = "clean", "mean of all (mCE)"
_MANY = 6
_NOISES = ("gaussian_noise", "impulse_noise", "shot_noise")


def add(part: Part, results: Results, name: str) -> None:
    """Add Table 1 and its charts; where nothing is trained, errors relative to the first model's."""
    part.more += density_by_setting(results, name)
    part.tables += filter(None, [labels_learned(results)])
    for run in results.studies("robustness"):
        severity = filter(None, [accuracy_over_severity(results, run, name)])
        if results.trained:
            part.lead += filter(None, [table1(results)])
            part.figures += filter(None, [reliability(results, name), *severity])
        else:
            part.tables += filter(None, [mean_errors(results, run)])
            part.figures += filter(None, [relative_errors(results, run, name)])
            part.more += severity


def corruption_text(name: str) -> str:
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


def accuracy_over_severity(results: Results, run: Run, name: str) -> Figure | None:
    """Accuracy of each model over the severity, one panel per corruption; severity 0 is the clean images."""
    found = under(run)
    corruptions = _by_family(list(dict.fromkeys(corruption for _, corruption in found if corruption != CLEAN)))
    if not corruptions:
        return None
    names = models(run)
    domain = [results.model(model) for model in names]
    color = alt.Color("model:N", title=None, scale=alt.Scale(domain=domain))
    is_many = len(corruptions) >= _MANY
    y = alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=4))
    x = alt.X("severity:O", title=None if is_many else "severity", axis=alt.Axis(labelAngle=0, grid=False))
    panels = []
    for corruption in corruptions:
        points = (
            ({"model": results.model(model), "severity": int(severity)}, value)
            for model in names
            for case in (CLEAN, corruption)
            for by_severity in found.get((model, case), {}).values()
            for severity, value in by_severity.items()
        )
        rows = sorted(rows_over_seeds(points, 100), key=lambda row: row["severity"])
        tooltips = [tooltip("model"), tooltip("severity"), *over_seeds_tooltip("accuracy (%)")]
        panel = layered(lines_with_ranges(rows, x, y, color, tooltips, size=26), corruption_text(corruption))
        panels.append(panel.properties(width=170, height=110 if is_many else 180))
    return Figure(
        name=f"{name}-severity",
        title="Accuracy over severity",
        caption=f"Accuracy (%) on held-out images over the severity of their corruption{_constants(run)}, which is 0 "
        "for clean ones; all models saw the same images. Means over seeds, bars their range.",
        spec=concat(panels, pick="model", columns=3, narrow_columns=2, legend=domain),
    )


def _constants(run: Run) -> str:
    """Whose constants a study corrupted with: " (ImageNet-C's)"; "" where its config does not say."""
    return f" ({run.config['constants']}'s)" if "constants" in run.config else ""


def relative_errors(results: Results, run: Run, name: str) -> Figure | None:
    """The error under each corruption relative to the first model's, and the mean of all."""
    names = models(run)
    cases = [(*r.case.split(" ", 1), r.value) for r in run.pick("corruption_error")]
    cases += [(r.case, MEAN, r.value) for r in run.pick("mce")]
    rows = rows_over_seeds(
        (
            {
                "model": results.model(model),
                "corruption": corruption_text(corruption),
                "is_mean": corruption == MEAN,
            },
            100 * value,
        )
        for model, corruption, value in cases
        if model != names[0]
    )
    if not rows:
        return None
    order = [corruption_text(c) for c in _by_family([row["corruption"].replace(" ", "_") for row in rows])]
    order = [MEAN, *(c for c in dict.fromkeys(order) if c != corruption_text(MEAN.replace(" ", "_")))]
    y = alt.Y("corruption:N", title=None, sort=order, axis=alt.Axis(grid=False, labelLimit=150))
    base = alt.Chart(inline(rows)).encode(
        y=y, color=alt.Color("model:N", title=None, legend=None if len(names) == 2 else alt.Undefined)
    )
    scale = alt.Scale(zero=False, nice=True)
    bars = base.mark_rule(strokeWidth=2.2).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    tooltips = [tooltip("model"), tooltip("corruption"), *over_seeds_tooltip("error (%)")]
    points = base.mark_point(filled=True, opacity=1).encode(
        x=alt.X("value:Q", title=f"error relative to {results.model(names[0])} (%)", scale=scale),
        size=alt.condition("datum.is_mean", alt.value(130), alt.value(55)),
        tooltip=tooltips,
    )
    panel = layered([reference(100, "", channel="x"), bars, points], "").properties(height=alt.Step(20), width=420)
    others = " and ".join(dict.fromkeys(row["model"] for row in rows))
    return Figure(
        name=f"{name}-relative",
        title=f"Error of {others} under each corruption, relative to {results.model(names[0])}",
        caption=f"Error over five severities{_constants(run)} over that of the first model on the same images: below "
        "100 % (dashed) the model errs less often. The large point is the mean of all corruptions. Means over seeds, "
        "bars their range.",
        spec=concat([panel]),
    )


def reliability(results: Results, name: str) -> Figure | None:
    """Accuracy by confidence on natural held-out images: a line for each model trained on true labels, and seed."""
    rows: list[Row] = []
    for member in _vits(results):
        if (member.run.config.get("task") or {}).get("random_labels"):
            continue
        for record in member.run.tested("reliability"):
            if record.x is not None:
                row: Row = {"model": results.model(member.run.name), "seed": record.seed}
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
    tooltips = [tooltip("model"), tooltip("seed", form="d"), tooltip("confidence", "confidence (%)", ".4~g")]
    tooltips += [tooltip("value", "right (%)", ".4~g"), tooltip("count", "predictions", ",")]
    points = base.mark_circle(fillOpacity=0.7).encode(size=size, tooltip=tooltips)
    spec = concat([layered([diagonal, lines, points], "")], pick="model", legend=domain)
    spec["usermeta"] |= {"aspect": 0.85, "widest": 460}
    return Figure(
        name=f"{name}-reliability",
        title="Reliability: how often a prediction is right, by how sure the model is",
        caption="Predictions on natural held-out images in bins of confidence; a larger point holds more of them. On "
        "the dashed line confidence is what it says, below it the model is too sure. A line for each model and seed.",
        spec=spec,
    )


def _vits(results: Results) -> list[Member]:
    """The ViTs that were compared, without the control that has no MLPs."""
    vits = [member for member in results.trained if family(member.run) == "ViT"]
    return [member for member in vits if (member.run.config.get("task") or {}).get("mlps") != "none"]


def table1(results: Results) -> Table | None:
    """The paper's Table 1, and below it what was seen here in the same layout; differences are paired by seed."""
    studies = results.studies("robustness")
    trained = _vits(results)

    def noise_of(member: Member) -> float:
        return round(100 * (member.run.config.get("task") or {}).get("random_labels", 0.0))

    def column(member: Member | None, what: str) -> dict[int, float]:
        return quality(member.run, what) if member else {}

    found: dict[str, list[dict[int, float]]] = {}
    for is_sparse, title in ((False, "ViT"), (True, "Top-k ViT")):
        own = {noise_of(m): m for m in trained if ("selection" in m.run.config) == is_sparse}
        columns = [column(own.get(noise), "accuracy") for noise in (0, 40, 80)]
        name = own[0].run.name if 0 in own else ""
        columns += [mean_under(studies[0], name, noise) if studies else {} for noise in _NOISES]
        found[title] = [*columns, column(own.get(0), "ece")]
    if not any(values for columns in found.values() for values in columns):
        return None
    rows = [[(name, "the paper"), *((f"{value:.2f}", "") for value in values)] for name, values in ROWS.items()]
    dense, sparse = ROWS.values()
    gains = [b - a for a, b in zip(dense, sparse, strict=True)]
    rows.append([("difference", "the paper"), *((f"{gain:+.2f}", "") for gain in gains)])
    rows.append(
        [("falls less by", "the paper"), *_under_noise([(f"{gain - gains[0]:+.2f}", "") for gain in gains[3:6]])]
    )
    rows += [[(title, "here"), *(cell(spread(v.values())) for v in columns)] for title, columns in found.items()]
    pairs = zip(found["ViT"], found["Top-k ViT"], strict=True)
    rows.append([("difference", "here"), *(cell(spread(less(b, a).values()), sign=True) for a, b in pairs)])
    if studies:
        less_by = [falls_less(studies[0], noise) for noise in _NOISES]
        rows.append([("falls less by", "here"), *_under_noise([cell(spread(v.values()), sign=True) for v in less_by])])
    titles = ("natural", "labels\n40 %", "labels\n80 %", *HEAD[3:])
    constants = _constants(studies[0]) if studies else ""
    note = "Accuracy and ECE in %; differences here are paired by seed. Falls less by: what accuracy falls by under "
    note += f"noise{constants}, dense less Top-k. {RANGE}"
    return table("Table 1, the paper's and ours", [""], titles, rows, note)


def _under_noise(cells: Sequence[Cell]) -> list[Cell]:
    """A row of Table 1 that has numbers under input noise alone."""
    return [("", "")] * 3 + [*cells, ("", "")]


def falls_less(run: Run, corruption: str) -> dict[int, float]:
    """By seed, what the first model's accuracy falls by under a corruption, less what the second's falls by."""
    if len(names := models(run)) < 2:
        return {}
    dense, sparse = (less(mean_under(run, name, CLEAN), mean_under(run, name, corruption)) for name in names[:2])
    return less(dense, sparse)


def labels_learned(results: Results) -> Table | None:
    """Accuracy of each training at its end on training images, with the labels that it was given."""
    rows, counts = [], set()
    for member in _vits(results):
        found = at_the_end([record for record in member.run.pick("accuracy") if record.split == "train"])
        if found:
            counts |= {record.num_tokens for record in found}
            accuracy = {record.seed: record.value for record in found}
            rows.append([setting_text(member.setting), cell(spread(accuracy.values()))])
    images = " or ".join(f"{count:,}" for count in sorted(filter(None, counts)))
    note = f"Accuracy at the end on {images} training images, augmented as in training, with the labels as given. "
    note += "Without learning any by heart about 60 % are right at most where 40 % are random, 20 % where 80 % are. "
    return table("Labels learned by heart", ["training"], ["accuracy on\ntraining labels (%)"], rows, f"{note}{RANGE}")


def mean_errors(results: Results, run: Run) -> Table | None:
    """Clean accuracy, mean accuracy under corruption and mean corruption error of each model."""
    rows = []
    corruptions = dict.fromkeys(r.case.partition(" ")[2] for r in run.tested("accuracy"))
    for model in models(run):
        clean = mean_under(run, model, "clean")
        by_corruption = [mean_under(run, model, name) for name in corruptions if name and name != "clean"]
        means = {s: sum(v[s] for v in by_corruption if s in v) / len(by_corruption) for s in clean if by_corruption}
        mce = {r.seed: r.value for r in run.pick("mce") if r.case == model}
        values = (cell(spread(v.values())) for v in (clean, means, mce))
        rows.append([(results.model(model), model), *values])
    titles = ("clean\naccuracy (%)", "corrupted\naccuracy (%)", "mCE (% of\nthe first's)")
    return table("In numbers", ["model"], titles, rows, f"Means over corruptions and severities. {RANGE}")
