"""The page of a reproduction: one section for each experiment, what the paper reports beside what was measured here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lazyneuron.errors import UsageError
from lazyneuron.pages.page import Checked, labelled, write_page
from lazyneuron.pages.section import Part, Section, unique_ids
from lazyneuron.paper.experiment import Experiment
from lazyneuron.paper.markdown import write_markdown
from lazyneuron.paper.registry import EXPERIMENTS
from lazyneuron.paper.results import Results, is_reproduction, missing, results_of, runs_of
from lazyneuron.paper.sweep_charts import training_curves
from lazyneuron.paper.tables import by_setting

_NO_NUMBERS = "The paper shows this as curves; beyond the sentence above no number of theirs is known here."


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the page of any result folders, those of `lazyneuron reproduce` among them, to `out`; return `out`.

    Where `out` ends in ".md" the page is in Markdown, of one folder of `lazyneuron reproduce`.
    """
    tops = labelled(folders)
    if out.suffix == ".md" and len(tops) > 1:
        raise UsageError("a page in Markdown is of one result folder: give one, or --out PAGE.html")
    reproduced = {label: top for label, top in tops.items() if is_reproduction(top)}
    runs = {label: runs_of(label, top) for label, top in reproduced.items()}
    results = {label: results_of(top.recipes(), runs[label], top.verdicts()) for label, top in reproduced.items()}
    if out.suffix != ".md":
        return write_page(tops, out, Checked(runs=runs, sections=sections(results), not_begun=not_begun(results)))
    if not reproduced:
        raise UsageError(
            f"{folders[0]} is no result folder of lazyneuron reproduce: its page is HTML, give --out PAGE.html"
        )
    return write_markdown(folders[0], tops.popitem()[1], sections(results), not_begun(results), out)


def sections(by_label: Mapping[str, Sequence[Results]]) -> list[Section]:
    """One section per experiment of all folders, in the paper's order."""
    whole = max(by_label.values(), key=len, default=[])
    order = dict.fromkeys(e.name for found in [whole, *by_label.values()] for e in found if e.is_begun)
    stems, labels = unique_ids([*order]), unique_ids([*by_label])
    made = []
    for name in order:
        found = {label: e for label, results in by_label.items() for e in results if e.name == name and e.is_begun}
        suffixes = {label: f"-{labels[label]}" if len(by_label) > 1 else "" for label in found}
        first, paper = next(iter(found.values())), EXPERIMENTS.get(name)
        section = Section(
            slug=f"experiment-{stems[name]}",
            title=first.title,
            figure=first.figure,
            expected=first.expected,
            setup=paper.setup if paper else "",
            numbers=paper.numbers if paper else (),
            note=_note(paper) if paper else "",
            parts=[_part(label, results, f"{stems[name]}{suffixes[label]}") for label, results in found.items()],
        )
        made.append(section)
    return made


def not_begun(by_label: Mapping[str, Sequence[Results]]) -> list[str]:
    """Experiments of which no folder has more than the runs that they share with others: figure and title."""
    all_of = [e for found in by_label.values() for e in found]
    begun = {e.name for e in all_of if e.is_begun}
    return list(dict.fromkeys(f"{e.figure} ({e.title})" for e in all_of if e.name not in begun))


def _note(experiment: Experiment) -> str:
    is_curves_only = experiment.setup and not experiment.numbers and "Figure" in experiment.figure
    return _NO_NUMBERS if is_curves_only else experiment.note


def _part(label: str, results: Results, name: str) -> Part:
    part = Part(label=label, missing=missing(results), verdicts=results.verdicts)
    _experiment(results).page.add(part, results, name)
    part.tables += filter(None, [by_setting(results)])
    part.more += filter(None, [training_curves(results, name)])
    return part


def _experiment(results: Results) -> Experiment:
    """The experiment of that name; of a run that stands for itself, the first with such runs."""
    kinds = {member.run.config.get("kind") for member in results.members}
    alike = (e for e in EXPERIMENTS.values() if kinds & {*e.kinds})
    return EXPERIMENTS.get(results.name) or next(alike, EXPERIMENTS["fig1"])
