"""Tables of an experiment: means and ranges over seeds, and what every training came to."""

from collections.abc import Iterable, Sequence
from typing import Any

from lazyneuron.pages.charts import Run
from lazyneuron.paper.results import (
    Results,
    Spread,
    at_end,
    by_family,
    differences,
    family,
    over_seeds,
    quality,
    spread,
)
from lazyneuron.paper.sweep_charts import setting_text
from lazyneuron.records.table import Column, Table

RANGE = "Small: the range over seeds."
Cell = tuple[str, str]
"""A text and a small one below it."""


def cell(found: Spread | None, scale: float = 100.0, form: str = ".2f", sign: bool = False) -> Cell:
    """A mean over seeds and, where there are several that differ, its range."""
    if found is None:
        return ("", "")

    def text(value: float) -> str:
        return f"{scale * value:{'+' if sign else ''}{form}}"

    is_range = found.count > 1 and found.low != found.high
    joint = "\u2013" if found.low >= 0 and not sign else " to "
    return (text(found.mean), f"{text(found.low)}{joint}{text(found.high)}" if is_range else "")


def table(
    title: str, names: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[Any]], note: str
) -> Table | None:
    """A table whose columns have the titles `names`, then `numbers`; None without rows."""
    columns = [*map(Column, names), *(Column(number, "") for number in numbers)]
    return Table(columns, rows, title=title, notes=[note]) if rows else None


def by_setting(results: Results) -> Table | None:
    """What every training of an experiment came to; columns that none has are left out."""
    members = [m for m in results.members if m.run.config.get("kind", "training") == "training" and m.run.records]
    members = [m for m in members if m.run.pick("density") or m.run.pick("loss")]
    if not members:
        return None
    less_dense = {
        member.run.name: found
        for _, same in by_family(results.trained)
        for member, found in differences(same, "accuracy")
    }
    kinds = [family(member.run) for member in members]
    has_kinds = all(kind in setting_text(member.setting) for kind, member in zip(kinds, members, strict=True))
    several = len(set(kinds)) > 1 and not has_kinds
    counts = {len({record.seed for record in member.run.records}) for member in members}
    hidden = {"seeds"} if len(counts) == 1 else set()
    if any(member.run.pick("natural_density") for member in members):
        hidden |= {"sparsest\nlayer (%)", "densest\nlayer (%)"}
    rows: list[list[tuple[str, Cell]]] = []
    for member in members:
        run, row = member.run, [(results.axis, (setting_text(member.setting), member.run.name))]
        if several:
            row.append(("model", (family(run), "")))
        row += [
            (title, cell(spread(values), scale, form))
            for title, values, scale, form in _columns(run)
            if title not in hidden
        ]
        if results.has_selections:
            found = less_dense.get(run.name, {})
            row.append(("accuracy less\ndense (points)", cell(spread(found.values()), sign=True)))
        rows.append(row)
    has_range = any(small for row in rows for _, (_, small) in row[1:])
    titles = [title for title, _ in rows[0]]
    note = "Density and active neurons: mean over layers, held-out data, at the last step. "
    if len(counts) == 1:
        note += f"{(count := counts.pop())} seed{'s' * (count > 1)} each. "
    cells = [[found for _, found in row] for row in rows]
    names = 1 + several
    made = table("In numbers", titles[:names], titles[names:], cells, f"{note}{RANGE if has_range else ''}".strip())
    return made and made.without_empty_columns()


def _columns(run: Run) -> list[tuple[str, Iterable[float], float, str]]:
    start = over_seeds(r for r in run.pick("density") if r.step == 0 and r.split in ("eval", ""))
    natural = at_end(run, "natural_density")
    by_layer: dict[int, list[float]] = {}
    for record in at_end(run):
        by_layer.setdefault(record.seed, []).append(record.value)
    return [
        ("seeds", [len({r.seed for r in run.records})], 1, ".0f"),
        ("at step 0\n(%)", start.values(), 100, ".1f"),
        ("density,\nend (%)", over_seeds(at_end(run)).values(), 100, ".2f"),
        ("sparsest\nlayer (%)", [min(found) for found in by_layer.values()], 100, ".2f"),
        ("densest\nlayer (%)", [max(found) for found in by_layer.values()], 100, ".2f"),
        ("active\nper token", over_seeds(at_end(run, "num_active")).values(), 1, ".1f"),
        ("natural,\nend (%)", over_seeds(natural).values(), 100, ".2f"),
        ("accuracy\n(%)", quality(run, "accuracy").values(), 100, ".2f"),
        ("loss\n(nats)", quality(run, "loss").values(), 1, ".4f"),
    ]
