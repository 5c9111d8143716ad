"""Converted checkpoints: what quality is left at which density, beside the original and the dense control."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import altair as alt

from lazyneuron.pages.axes import free_log_axis, settings_axis
from lazyneuron.pages.charts import Figure, Row, Run, rounded
from lazyneuron.pages.panels import concat, inline, layered, picked, side_by_side, tooltip
from lazyneuron.pages.prose import percent
from lazyneuron.records.table import Column, Table

QUALITIES = {
    "perplexity": "perplexity",
    "accuracy": "accuracy (%)",
    "cosine": "cosine with the original",
    "agreement": "same first choice as the original (%)",
}
CASES = {"converted": "converted", "finetuned": "fine-tuned", "before": "before", "control": "control, dense"}
_CURVES, _LEVELS = ("converted", "fine-tuned"), ("before", "control, dense")
_ORDER = ("before", *_CURVES, "control, dense")
_COLUMNS = {
    "kept": Column("kept (%)", ".2f"),
    "natural": Column("natural (%)", ".2f"),
    "loss": Column("loss\n(nats)", ".4f"),
    "perplexity": Column("perplexity", lambda value: f"{value:,.2f}" if value < 1e5 else f"{value:.2g}"),
    "accuracy": Column("accuracy\n(%)", ".2f"),
    "agreement": Column("same first\nchoice (%)", ".2f"),
    "kl": Column("KL\n(nats)", ".4f"),
    "cosine": Column("cosine", ".4f"),
}
_IN_PERCENT = ("kept", "natural", "accuracy", "agreement")
_DECADE = 10


def is_enforced(run: Run) -> bool:
    """Whether the run converted a checkpoint."""
    return run.config.get("name") == "enforce" or any(record.recipe == "enforce" for record in run.records)


def enforced_rows(run: Run) -> list[Row]:
    """One row per case and density on held-out data, before first and the densest first within a case.

    "case" is as in CASES, "percent" the neurons asked for, "is_asked" whether it is the density that was asked for,
    "is_uniform" whether that is the same at every site, and the qualities by name. "kept" and "natural" are means over
    the sites; fractions are in percent.
    """
    found: dict[tuple[str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in run.records:
        if r.split == "eval" and r.x is not None:
            found[r.case, r.x][r.what].append(r.value)
    asked = {x for case, x in found if case == "converted"}
    rows, has_budgets = [], bool(run.config.get("budgets"))
    for (case, x), values in found.items():
        if case == "sweep" and x in asked and not has_budgets:
            continue  # the same once more
        name = CASES.get("converted" if case == "sweep" else case)
        is_asked = case in ("converted", "finetuned") and x in asked
        row: Row = {"case": name, "percent": rounded(100 * x), "is_asked": is_asked}
        row["is_uniform"] = not (is_asked and has_budgets)
        values = {{"density": "kept", "natural_density": "natural"}.get(what, what): v for what, v in values.items()}
        for what in _COLUMNS:
            if what in values:
                row[what] = rounded(fmean(values[what]) * (100 if what in _IN_PERCENT else 1))
        if name:
            rows.append(row)
    return sorted(rows, key=lambda row: (_ORDER.index(row["case"]), -row["percent"], not row["is_asked"]))


def quality_against_density(run: Run, name: str) -> Figure | None:
    """One model's quality before, converted, fine-tuned, and of its dense control, against the neurons kept."""
    rows = enforced_rows(run)
    domain = [case for case in CASES.values() if any(row["case"] == case for row in rows)]
    color = alt.Color("case:N", title=None, scale=alt.Scale(domain=domain))
    panels = [_panel(rows, what, color) for what in _judged_by(rows)]
    if not panels:
        return None
    parts = ["Lines: the model at several densities, converted" + (" and fine-tuned" if "fine-tuned" in domain else "")]
    parts.append("dashed: the original, dense")
    if "control, dense" in domain:
        parts[-1] += ", and after the same fine-tuning without any selection (control)"
    budgets = " The large point has a density of its own at each site." if run.config.get("budgets") else ""
    size = f" The large point is the density asked for.{budgets}" if any(row["is_asked"] for row in rows) else ""
    return Figure(
        name=name,
        title=f"Quality against density: {run.name}",
        caption="; ".join(parts) + f".{size} On held-out data, densities on a logarithmic axis.",
        spec=side_by_side(panels, pick="case", legend_columns=2),
    )


def compared(runs: Sequence[Run], name: str) -> Figure | None:
    """Several models' quality against density: a colour for each, dashed as converted, whole after fine-tuning."""
    rows = [{"model": run.name, **row} for run in runs for row in enforced_rows(run)]
    domain = list(dict.fromkeys(row["model"] for row in rows))
    color = alt.Color("model:N", scale=alt.Scale(domain=domain), legend=alt.Legend(title="model"))
    panels = [_panel(rows, what, color, several=True) for what in _judged_by(rows, several=True)]
    if not panels:
        return None
    return Figure(
        name=name,
        title="Quality of several models against density",
        caption="Thin lines: converted; thick ones: fine-tuned; dashed: the original, dense. Perplexities under"
        " different tokenizers cannot be compared. On held-out data, densities on a logarithmic axis.",
        spec=concat(panels, pick="model"),
    )


def enforced_table(run: Run) -> Table:
    """What the chart shows, in numbers."""
    rows = [[row["case"], row["percent"], *map(row.get, _COLUMNS)] for row in enforced_rows(run)]
    columns = [Column("case"), Column("density\nasked (%)", ".4g"), *_COLUMNS.values()]
    note = "Kept and natural: active neurons after and before selection, means over the layers."
    if run.config.get("budgets"):
        note += " The density asked for is the mean over the layers where each has its own."
    return Table(columns, rows, title=f"Each density of {run.name}", notes=[note]).without_empty_columns()


def compared_table(runs: Sequence[Run]) -> Table:
    """One row per model: what it is judged by, at the density asked for; empty columns are left out."""
    cases = ("before", *_CURVES, "control, dense")
    columns = [Column("model"), Column("judged by"), Column("density\nasked (%)", ".4g")]
    columns += [Column(case, "") for case in cases]
    rows = []
    for run in runs:
        found = enforced_rows(run)
        what = next(iter(_judged_by(found)), None)
        by_case = {row["case"]: row for row in found if row["is_asked"] or row["case"] in _LEVELS}
        if what is not None and "converted" in by_case:
            values = [by_case.get(case, {}).get(what) for case in cases]
            texts = [None if value is None else _COLUMNS[what].text(value) for value in values]
            rows.append([run.name, QUALITIES[what], by_case["converted"]["percent"], *texts])
    return Table(columns, rows, title="The converted models").without_empty_columns()


def enforced_summary(run: Run) -> list[str]:
    """Sentences: the quality of the original, what conversion leaves of it, and what fine-tuning gives back."""
    rows = enforced_rows(run)
    what = next(iter(_judged_by(rows)), None)
    by_case = {row["case"]: row for row in rows if row["is_asked"] or row["case"] in _LEVELS}
    if what is None or not {"before", "converted"} <= by_case.keys():
        return []
    values = {case: _said(what, row.get(what)) for case, row in by_case.items()}
    title = {"agreement": "share of first choices that are the original's", "cosine": "cosine with the original"}
    kept = percent(by_case["converted"]["percent"] / 100)
    text = f"The {title.get(what, what)} is {values['before']} before, and {values['converted']} with {kept} of the"
    if what in title:
        text = f"The {title[what]} is {values['converted']} with {kept} of the"
    text += " neurons"
    if "fine-tuned" in values:
        text += f"; after fine-tuning under that selection it is {values['fine-tuned']}"
    sentences = [f"{text}."]
    if "control, dense" in values:
        sentences.append(f"The same fine-tuning without any selection gives {values['control, dense']}.")
    return sentences


def enforced_origin(run: Run) -> str:
    """The model in full, how it was changed, and on which data."""
    how = run.config.get("finetune")
    parts = [f"Model: {run.config.get('model', run.name)}"]
    parts += ["GELU and SiLU swapped for ReLU"] * bool(run.config.get("relufy"))
    if how:
        weight = f", {how['distill']:g} of distillation" if how.get("distill") else ""
        annealed = ", density falling from 1" if run.config.get("anneal") else ""
        parts.append(f"fine-tuned for {how['num_steps']:,} steps at {how['learning_rate']:g}{weight}{annealed}")
    scored = max((r.num_tokens or 0 for r in run.records if r.what in ("agreement", "cosine")), default=0)
    parts.append(f"judged on {scored:,} predictions")
    data = run.config.get("data")
    return "; ".join(parts) + (f". Data: {data}." if data else ".")


def _judged_by(rows: Sequence[Row], several: bool = False) -> list[str]:
    """The qualities to draw: what the model is judged by first, and how near it is to its original."""
    found = [what for what in QUALITIES if any(row.get(what) is not None for row in rows)]
    return found if several else [*found[:1], *(["agreement"] if "agreement" in found[1:] else [])]


def _panel(rows: Sequence[Row], what: str, color: alt.Color, several: bool = False) -> alt.LayerChart:
    part = [row for row in rows if row.get(what) is not None]
    curves = [row for row in part if row["case"] in _CURVES]
    levels = [row for row in part if row["case"] == "before" or (row["case"] in _LEVELS and not several)]
    if what in ("agreement", "cosine"):
        levels = [row for row in levels if row["case"] != "before"]  # it is its own original
    x = settings_axis("percent", "neurons kept (%)", {row["percent"] for row in curves} or {100}, ".3~g")
    values = [row[what] for row in part]
    is_log = what == "perplexity" and min(values) > 0 and max(values) / min(values) > _DECADE
    y = alt.Y(f"{what}:Q", title=QUALITIES[what], scale=alt.Scale(zero=False, nice=True))
    if is_log:
        y = free_log_axis(values, QUALITIES[what], what)
    quality = [*([tooltip("model")] if several else []), tooltip("case"), tooltip(what, QUALITIES[what], ",.4~g")]
    at = [*quality, tooltip("percent", "neurons kept (%)", ".4~g"), tooltip("kept", "measured (%)", ".4~g")]
    width = alt.condition("datum.case == 'fine-tuned'", alt.value(2.6), alt.value(1.2)) if several else alt.value(1.8)
    encoded = {"x": x, "y": y, "color": color, "opacity": picked()}
    lines = (
        alt.Chart(inline([row for row in curves if row["is_uniform"]]))
        .mark_line()
        .encode(**encoded, strokeWidth=width, detail=["case:N", "model:N"] if several else "case:N")
    )
    size = alt.condition("datum.is_asked", alt.value(110), alt.value(32))
    points = alt.Chart(inline(curves)).mark_circle(opacity=1).encode(**encoded, size=size, tooltip=at)
    rules = alt.Chart(inline(levels)).mark_rule(strokeDash=[6, 4], strokeWidth=1.8)
    rules = rules.encode(y=y, color=color, opacity=picked(), tooltip=quality)
    return layered([lines, *([rules] if levels else []), points], "")


def _said(what: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "not a finite number"
    return percent(value / 100) if what in _IN_PERCENT else f"{value:,.4g}"
