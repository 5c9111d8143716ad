"""Records and verdicts of result folders to the tables of the page, as plain values for the template."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lazyneuron.pages.charts import Run, rounded
from lazyneuron.pages.training_charts import at_the_end
from lazyneuron.records.record import Record, Verdict
from lazyneuron.records.table import Column, Table

PAPER_DENSITY = {"t5": "2.7 to 3.0\u00a0% (T5-Base)", "vit": "6.3\u00a0% (ViT-B/16)"}
_SIZES = ("d_model", "d_ff", "num_layers", "num_steps", "batch_size")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One row of the claims table: `cells` holds the verdicts of each result folder."""

    text: str
    where: str
    metric: str
    expected: str
    reported: str
    on: str
    cells: list[list[Verdict]]


def claims(verdicts: dict[str, list[Verdict]]) -> list[list[Claim]]:
    """The verdicts of all folders (by label), one row per claim, runs, metric and threshold.

    Rows of one claim stand together, under the wording of the last folder that has it.
    """
    rows: dict[tuple[str, ...], dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    wording = {}
    for label, found in verdicts.items():
        for v in found:
            rows[v.claim, v.on, v.metric, v.expected, v.reported][label].append(v)
            wording[v.claim] = {"text": v.text, "where": v.where}
    groups: dict[str, list[Claim]] = {claim: [] for claim in wording}
    for (claim, on, metric, expected, reported), found in rows.items():
        cells = [found[label] for label in verdicts]
        row = Claim(**wording[claim], on=on, metric=metric, expected=expected, reported=reported, cells=cells)
        groups[claim].append(row)
    return list(groups.values())


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts of each kind, in words."""
    count = Counter(v.verdict for v in verdicts)
    parts = (("holds", "hold", "holds"), ("does not hold", "do not hold", "does not hold"), ("cannot tell",) * 3)
    words = [f"{count[name]} {one if count[name] == 1 else many}" for name, many, one in parts if count[name]]
    return ", ".join(words) or "no verdicts"


def interval_note(verdicts: Iterable[Verdict]) -> str:
    """What the intervals under "seen" are and are not, by how many seeds they rest on, and whose the bounds are."""
    verdicts = list(verdicts)
    counts = {len(verdict.seeds) for verdict in verdicts if verdict.seeds}
    said = []
    if counts - {1}:
        said.append("Seen is the mean over seeds, the interval the 95\u00a0% bootstrap interval of that mean.")
        said.append("Why is said of the seed that speaks least for the claim.")
    if 3 in counts:
        said.append(
            "With three seeds it is the range of the three values, and covers the true mean about three quarters of "
            "the time; a difference of trainings must be told by Student's t as well."
        )
    if 1 in counts:
        said.append(f"{'Where there is one' if counts - {1} else 'There is one'} seed: no interval.")
    if any("(ours)" in verdict.expected for verdict in verdicts):
        said.append("Bounds with (ours) are set here: the paper makes the claim without a number.")
    return " ".join(said)


def interval(verdict: Verdict) -> str:
    """The interval of a verdict's value; "" without one."""
    if verdict.low is None or verdict.high is None:
        return ""
    return f"{number(verdict.low)} to {number(verdict.high)}"


def density_rows(run: Run) -> list[dict[str, Any]]:
    """Per layer: density before and after training, on both splits, and active neurons per token; means over seeds."""
    density, num_active = run.pick("density"), run.pick("num_active")
    starts = {split: _by_place(r for r in density if r.step == 0 and r.split == split) for split in ("train", "eval")}
    ends = {split: _by_place(r for r in at_the_end(density) if r.split == split) for split in ("train", "eval")}
    active = {split: _by_place(r for r in at_the_end(num_active) if r.split == split) for split in ("train", "eval")}
    start = starts["train"] or starts["eval"]
    rows = []
    for place in dict.fromkeys([*start, *ends["train"], *ends["eval"]]):
        stack, layer, site = place
        row = {"stack": stack, "layer": layer, "site": site, "start": start.get(place)}
        row |= {"train": ends["train"].get(place), "eval": ends["eval"].get(place)}
        rows.append(row | {"num_active": active["eval"].get(place, active["train"].get(place))})
    return rows


def density_table(run: Run) -> Table:
    """What `density_rows` gives, with the sentences of `density_summary`."""
    columns = [Column("layer"), Column("at step 0", percent), Column("end,\ntraining data", percent)]
    columns += [Column("end,\nevaluation data", percent), Column("active neurons\nper token", number)]
    rows = [
        [
            f"{row['stack']} {'' if row['layer'] is None else row['layer']}".strip(),
            *(row[what] for what in ("start", "train", "eval", "num_active", "site")),
        ]
        for row in density_rows(run)
    ]
    columns.append(Column("site", is_path=True))
    return Table(columns, rows, title="Density by layer", notes=density_summary(run), missing="n/a")


def density_summary(run: Run) -> list[str]:
    """Sentences that put the run's mean density beside the paper's, with the two scales."""
    rows = density_rows(run)
    said = []
    for stack in dict.fromkeys(row["stack"] for row in rows):
        found = [row["train"] for row in rows if row["stack"] == stack and row["train"] is not None]
        if found:
            said.append(
                f"{stack.capitalize() or 'Layers'}: {percent(fmean(found))} of neurons active at the end on average, "
                f"{percent(min(found))} in the sparsest layer and {percent(max(found))} in the densest (training data)."
            )
    both = [(row["train"], row["eval"]) for row in rows if row["train"] and row["eval"] is not None]
    if both:
        gap = max(abs(evaluation / training - 1) for training, evaluation in both)
        said.append(f"Training and evaluation data differ by at most {percent(gap)} of a layer's density.")
    paper = next((text for name, text in PAPER_DENSITY.items() if name in _family(run)), None)
    if paper and said:
        sizes = ", ".join(f"{key} {run.config[key]}" for key in _SIZES if key in run.config)
        said.append(
            f"The paper reports {paper}, for a far larger model and far longer training. This run is a different scale"
            f"{f' ({sizes})' if sizes else ''}: compare the shape of the curves, not the number."
        )
    return said


def progress(run: Run) -> str | None:
    """A warning where the records end before the step the config asked for."""
    last = max((record.step for record in run.records if record.step is not None), default=None)
    asked = run.config.get("num_steps")
    if last is not None and isinstance(asked, int) and last < asked:
        return f"This run is not finished: its last record is of step {last:,} of {asked:,}."
    return None


def provenance(run: Run) -> dict[str, Any]:
    """Where the run's numbers come from: config, sources, seeds and the number of records."""
    sources: dict[str, Any] = {}
    for record in run.records:
        if record.source is not None:
            source = record.source
            sources[json.dumps([source.commit, source.device, source.num_threads, source.versions])] = source
    return {
        "run": run,
        "command": run.config.get("command"),
        "num_records": len(run.records),
        "seeds": sorted({record.seed for record in run.records}),
        "sources": list(sources.values()),
        "config": {key: _config_value(key, value) for key, value in run.config.items()},
    }


def _config_value(key: str, value: Any) -> str:
    if key == "sites" and isinstance(value, list):
        return f"{len(value)}, listed above and in config.json"
    return value if isinstance(value, str) else json.dumps(value)


def percent(fraction: float | None) -> str:
    """A fraction as percent for prose."""
    if fraction is None or rounded(fraction) is None:
        return "n/a"
    shown = almost_all(fraction).replace(">", "over ") or f"{100 * fraction:.3g}"
    return f"{shown}\u00a0%"


def almost_all(fraction: float) -> str:
    """A percentage that three digits would round up to 100, with two decimals and below it; "" for all others."""
    if not 99.95 <= 100 * fraction < 100 - 1e-9:
        return ""
    return f"{100 * fraction:.2f}" if 100 * fraction < 99.995 else ">99.99"


def listed(texts: Sequence[str]) -> str:
    """Texts in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def number(value: float | None) -> str:
    """A number for a table cell, to four digits."""
    return "n/a" if value is None or rounded(value) is None else f"{value:.4g}"


def _by_place(records: Iterable[Record]) -> dict[tuple[str, int | None, str], float]:
    found: dict[tuple[str, int | None, str], list[float]] = defaultdict(list)
    for record in records:
        found[record.stack, record.layer, record.site].append(record.value)
    return {place: fmean(values) for place, values in found.items()}


def _family(run: Run) -> str:
    return f"{run.name} {run.config.get('name', '')} {run.config.get('model', '')}".lower()
