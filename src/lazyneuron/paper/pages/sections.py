"""Experiments of result folders to sections of the page: which charts and tables each has, beside the paper's side."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lazyneuron.pages import tables, training_charts
from lazyneuron.pages.charts import Figure, Run
from lazyneuron.paper.pages import (
    firing_charts,
    latency_charts,
    numbers,
    robustness_charts,
    statistical_charts,
    sweep_charts,
    theory_charts,
    topk_charts,
)
from lazyneuron.paper.pages.experiment import Experiment, Member, family, missing
from lazyneuron.paper.pages.numbers import Cell, Numbers
from lazyneuron.paper.pages.paper_side import NOT_NUMBERS, PAPER, PaperSide
from lazyneuron.records.record import Verdict

_FIG1_LEVELS = [(12.0, "the paper's densest layer 12.0 %"), (2.7, "mean 2.7 %"), (1.1, "sparsest 1.1 %")]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one result folder has of an experiment: `lead` stands before the charts, `more` can wait for a click."""

    label: str
    missing: list[str]
    verdicts: list[Verdict]
    lead: list[Numbers] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Numbers] = field(default_factory=list)
    more: list[Figure] = field(default_factory=list)
    more_tables: list[Numbers] = field(default_factory=list)

    @property
    def all_figures(self) -> list[Figure]:
        """Those that are seen at once and those that can wait."""
        return [*self.figures, *self.more]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One experiment on the page; `paper` is None for what is no experiment of the paper's."""

    slug: str
    title: str
    figure: str
    expected: str
    paper: PaperSide | None
    parts: list[Part]

    @property
    def counts(self) -> Counter[str]:
        """How many verdicts of each kind its parts have."""
        return Counter(verdict.verdict for part in self.parts for verdict in part.verdicts)


def sections(by_label: dict[str, list[Experiment]], slugs: Callable[[Sequence[str]], dict[str, str]]) -> list[Section]:
    """One section per experiment of all folders, in the paper's order; `slugs` makes file names of texts."""
    whole = max(by_label.values(), key=len, default=[])
    order = dict.fromkeys(e.name for found in [whole, *by_label.values()] for e in found if e.is_begun)
    names, labels = slugs([*order]), slugs([*by_label])
    found = []
    for name in order:
        parts, shown = [], None
        for label, experiments in by_label.items():
            experiment = next((e for e in experiments if e.name == name and e.is_begun), None)
            if experiment is not None:
                shown = shown or experiment
                suffix = f"-{labels[label]}" if len(by_label) > 1 else ""
                parts.append(_part(label, experiment, f"{names[name]}{suffix}", slugs))
        assert shown is not None
        section = Section(
            slug=f"experiment-{names[name]}",
            title=shown.title,
            figure=shown.figure,
            expected=shown.expected,
            paper=PAPER.get(name, PaperSide(setup="") if shown.figure else None),
            parts=parts,
        )
        found.append(section)
    return found


def not_begun(by_label: dict[str, list[Experiment]]) -> list[str]:
    """Experiments of which no folder has more than the runs that they share with others: figure and title."""
    all_of = [e for found in by_label.values() for e in found]
    begun = {e.name for e in all_of if e.is_begun}
    return list(dict.fromkeys(f"{e.figure} ({e.title})" for e in all_of if e.name not in begun))


def says_no_numbers(section: Section) -> str:
    """The sentence for experiments of which the paper's text gives no numbers."""
    paper = section.paper
    has_numbers = paper is None or paper.numbers or not paper.setup
    return "" if has_numbers or "Figure" not in section.figure else NOT_NUMBERS


def _part(label: str, e: Experiment, name: str, slugs: Callable[[Sequence[str]], dict[str, str]]) -> Part:
    part = Part(label=label, missing=missing(e), verdicts=e.verdicts)
    if e.trained:
        _add_trainings(part, e, name, slugs)
    for kind, add in _STUDIES.items():
        for run in e.studies(kind):
            add(part, e, run, name)
    if (table := numbers.by_setting(e)) is not None:
        part.tables.append(table)
    _add(part.more, sweep_charts.curves(e, name))
    return part


def _add_trainings(part: Part, e: Experiment, name: str, slugs: Callable[[Sequence[str]], dict[str, str]]) -> None:
    layers = sweep_charts.density_by_setting(e, name)
    runs = [member.run for member in e.trained]
    own = slugs([run.name for run in runs])
    if e.name == "fig1" or not e.figure:
        levels = _FIG1_LEVELS if e.name == "fig1" else []
        _add(part.figures, *(_over_training(member, name, own, levels) for member in e.trained))
        part.more.extend(layers)
    elif e.name == "fig2b":
        for run in runs:
            _add(part.figures, training_charts.density_by_layer([run], f"{name}-splits-{own[run.name]}"))
    elif topk_charts.has_selections(e):
        _add(part.figures, topk_charts.quality_against_kept(e, name), topk_charts.difference_to_dense(e, name))
        part.more.extend(layers)
    elif e.axis == "d_ff":
        _add(part.figures, sweep_charts.density_over_setting(e, name))
        part.more.extend(layers)
    elif e.axis == "activation" or e.studies("robustness") or e.studies("statistical"):
        part.more.extend(layers)
    else:
        part.figures.extend(layers)
        if e.name == "fig2a":
            others = [member for member in e.trained if family(member.run) != "T5"]
            _add(part.more, *(_over_training(member, name, own) for member in others))
        if e.is_sweep:
            _add(part.more, sweep_charts.density_over_setting(e, name))


def _over_training(
    member: Member, name: str, own: dict[str, str], levels: Sequence[tuple[float, str]] = ()
) -> Figure | None:
    run = replace(member.run, name=sweep_charts.said_setting(member.setting))
    return training_charts.density_over_training(run, f"{name}-steps-{own[member.run.name]}", levels=levels)


def _add(figures: list[Figure], *found: Figure | None) -> None:
    figures.extend(figure for figure in found if figure is not None)


def _add_tables(part: Part, *found: Numbers | None) -> None:
    part.tables.extend(table for table in found if table is not None)


def _firing(part: Part, e: Experiment, run: Run, name: str) -> None:
    _add(part.figures, firing_charts.firing_by_rank(run, name))
    _add_tables(part, numbers.firing_table(run))


def _robustness(part: Part, e: Experiment, run: Run, name: str) -> None:
    is_table1 = bool(e.trained)
    if is_table1:
        if (table := numbers.table1(e)) is not None:
            part.lead.append(table)
        _add(part.figures, robustness_charts.reliability(e, name))
    else:
        _add_tables(part, numbers.mce_table(e, run))
        _add(part.figures, robustness_charts.relative_errors(e, run, name))
    severity = robustness_charts.accuracy_over_severity(e, run, name)
    _add(part.figures if is_table1 else part.more, severity)


def _statistical(part: Part, e: Experiment, run: Run, name: str) -> None:
    _add(part.figures, statistical_charts.kept_by_layer(e, run, name), statistical_charts.time_over_width(run, name))
    _add_tables(part, numbers.statistical_table(e, run))


def _latency(part: Part, e: Experiment, run: Run, name: str) -> None:
    _add(part.figures, latency_charts.time_per_token(run, name), latency_charts.speedups(run, name))
    _add_tables(part, numbers.latency_table(run))


def _skipping(part: Part, e: Experiment, run: Run, name: str) -> None:
    _add_tables(part, numbers.skipping_table(e, run))


def _theory(part: Part, e: Experiment, run: Run, name: str) -> None:
    _add(part.figures, theory_charts.theorem_cases([run], f"{name}-cases"))
    _add(part.figures, theory_charts.gradient_step0([run], f"{name}-step0"))
    if rows := tables.theorem_rows(run):
        keys = {"value": "mean\ngradient", "error": "standard\nerror", "z": "z", "closed_form": "closed\nform"}
        keys["off"] = "off by\n(errors)"
        head = [("case", False), ("seed", True), *((title, True) for title in keys.values())]
        cells: list[list[Cell]] = [
            [(row["case"], ""), (str(row["seed"]), ""), *((tables.number(row[key]), "") for key in keys)]
            for row in rows
        ]
        note = "z is the mean in units of its standard error."
        part.more_tables.append(Numbers(title="Every case in numbers", head=head, rows=cells, note=note))


_STUDIES: dict[str, Callable[[Part, Experiment, Run, str], None]] = {
    "theory": _theory,
    "firing": _firing,
    "robustness": _robustness,
    "statistical": _statistical,
    "latency": _latency,
    "skipping": _skipping,
}
