"""Trained models: the table of densities, and sentences about it."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from lazyneuron.pages.charts import Run
from lazyneuron.pages.prose import number, percent
from lazyneuron.pages.training_charts import at_the_end
from lazyneuron.records.record import Record
from lazyneuron.records.table import Column, Table

PAPER_DENSITY = {"t5": "2.7 to 3.0\u00a0% (T5-Base)", "vit": "6.3\u00a0% (ViT-B/16)"}
_SIZES = ("d_model", "d_ff", "num_layers", "num_steps", "batch_size")


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
    """Sentences that compare the run's mean density with the paper's, and say how the scales differ."""
    rows = density_rows(run)
    sentences = []
    for stack in dict.fromkeys(row["stack"] for row in rows):
        found = [row["train"] for row in rows if row["stack"] == stack and row["train"] is not None]
        if found:
            sentences.append(
                f"{stack.capitalize() or 'Layers'}: {percent(fmean(found))} of neurons active at the end on average, "
                f"{percent(min(found))} in the sparsest layer and {percent(max(found))} in the densest (training data)."
            )
    both = [(row["train"], row["eval"]) for row in rows if row["train"] and row["eval"] is not None]
    if both:
        gap = max(abs(evaluation / training - 1) for training, evaluation in both)
        sentences.append(f"Training and evaluation data differ by at most {percent(gap)} of a layer's density.")
    paper = next((text for name, text in PAPER_DENSITY.items() if name in _family(run)), None)
    if paper and sentences:
        sizes = ", ".join(f"{key} {run.config[key]}" for key in _SIZES if key in run.config)
        sentences.append(
            f"The paper reports {paper}, for a far larger model and far longer training. This run is a different scale"
            f"{f' ({sizes})' if sizes else ''}: compare the shape of the curves, not the number."
        )
    return sentences


def progress(run: Run) -> str | None:
    """A warning where the records end before the step the config asked for."""
    last = max((record.step for record in run.records if record.step is not None), default=None)
    asked = run.config.get("num_steps")
    if last is not None and isinstance(asked, int) and last < asked:
        return f"This run is not finished: its last record is of step {last:,} of {asked:,}."
    return None


def _by_place(records: Iterable[Record]) -> dict[tuple[str, int | None, str], float]:
    found: dict[tuple[str, int | None, str], list[float]] = defaultdict(list)
    for record in records:
        found[record.stack, record.layer, record.site].append(record.value)
    return {place: fmean(values) for place, values in found.items()}


def _family(run: Run) -> str:
    return f"{run.name} {run.config.get('name', '')} {run.config.get('model', '')}".lower()
