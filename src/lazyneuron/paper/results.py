"""What a result folder holds of an experiment: its runs by setting, and their numbers over seeds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from lazyneuron.pages.charts import Run
from lazyneuron.pages.training_charts import at_the_end
from lazyneuron.paper.registry import KINDS
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Verdict

_MODELS = {"t5": "T5", "vit": "ViT", "mixer": "MLP-Mixer", "mlp": "MLP", "resnet": "ResNet"}
_SELECTIONS = {"topk": "Top-k ", "statistical_topk": "Statistical top-k "}
_TRAINED = ("density", "loss", "accuracy", "num_active")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A run of an experiment under its setting, a text or a number on the experiment's axis."""

    setting: str | float
    run: Run


@dataclass(frozen=True, kw_only=True)
class Results:
    """An experiment in one result folder: its runs that have records, in order; `absent` names those that have none.

    `names` gives the model of each run of the folder in words, `seeds` the seeds asked for, or all seeds of a folder
    that does not say. An experiment is begun if a run is there that no experiment before it has, or if it has no such
    run.
    """

    name: str
    title: str
    figure: str
    expected: str
    axis: str
    members: list[Member]
    absent: list[str] = field(default_factory=list)
    names: Mapping[str, str] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    is_begun: bool = True

    @property
    def trained(self) -> list[Member]:
        """The trainings; where some settings are numbers, only those, as the others are not part of the figure."""
        found = [member for member in self.members if any(member.run.pick(what) for what in _TRAINED)]
        found = [member for member in found if member.run.config.get("kind", "training") == "training"]
        numbers = [member for member in found if not isinstance(member.setting, str)]
        return numbers or found

    @property
    def is_sweep(self) -> bool:
        """Whether the settings are numbers."""
        return any(not isinstance(member.setting, str) for member in self.trained)

    @property
    def has_selections(self) -> bool:
        """Whether it compares several shares of neurons kept."""
        return self.is_sweep and any("selection" in member.run.config for member in self.trained)

    def studies(self, kind: str) -> list[Run]:
        """The runs of a kind: "firing", "robustness", ..."""
        return [member.run for member in self.members if member.run.config.get("kind") == kind]

    def model(self, run: str) -> str:
        """A run's model in words, or the run's name where its records are not there."""
        return self.names.get(run, run)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over seeds: its mean and its range."""

    mean: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float]) -> Spread | None:
    """Mean and range of values over seeds; None for none."""
    found = list(values)
    return spread_of(found) if found else None


def spread_of(values: Iterable[float]) -> Spread:
    """Mean and range of one value or more."""
    found = list(values)
    return Spread(mean=fmean(found), low=min(found), high=max(found), count=len(found))


def is_reproduction(top: RunFolder) -> bool:
    """Whether a result folder is one of `lazyneuron reproduce`, or a member of one."""
    return top.config.get("kind") in {"reproduce", *KINDS}


def runs_of(label: str, top: RunFolder) -> list[Run]:
    """The runs of a reproduction, or of a member of one, all seeds of a run in one."""
    members = top.members()
    by_name: dict[str, list[RunFolder]] = {}
    for folder in members or ([top] if top.config.get("kind") != "reproduce" else []):
        by_name.setdefault(str(folder.config.get("name", folder.path.name)), []).append(folder)
    runs = []
    for name, found in by_name.items():
        found.sort(key=lambda folder: folder.config.get("seed", 0))
        config = dict(found[0].config)
        if len(found) > 1:
            config["seed"] = [folder.config.get("seed", 0) for folder in found]
        records = [record for folder in found for record in folder.records()]
        runs.append(Run(label=label, name=name, config=config, records=records))
    return runs


def results_of(recipes: Sequence[dict[str, Any]], runs: Sequence[Run], verdicts: Sequence[Verdict]) -> list[Results]:
    """The experiments of a result folder in the paper's order; a run that no recipe names is an experiment alone."""
    by_name = {run.name: run for run in runs}
    named = {name for recipe in recipes for name in recipe["runs"]}
    alone = [{"name": run.name, "title": run.name, "runs": [run.name]} for run in runs if run.name not in named]
    seeds = sorted({seed for run in runs for seed in seeds_of(run)})
    names = {run.name: model_of(run) for run in runs}
    found, before = [], set[str]()
    for recipe in [*recipes, *alone]:
        own = set(recipe["runs"]) - before
        before |= own
        settings = recipe.get("settings") or recipe["runs"]
        pairs = list(zip(settings, recipe["runs"], strict=True))
        results = Results(
            name=recipe["name"],
            title=recipe["title"],
            figure=recipe.get("figure", ""),
            expected=recipe.get("expected", ""),
            axis=recipe.get("setting") or "run",
            members=[Member(setting=setting, run=by_name[name]) for setting, name in pairs if name in by_name],
            absent=[name for name in recipe["runs"] if name not in by_name],
            names=names,
            seeds=recipe.get("seeds") or seeds,
            verdicts=[verdict for verdict in verdicts if verdict.recipe == recipe["name"]],
            is_begun=not own or not own.isdisjoint(by_name),
        )
        found.append(results)
    return found


def by_family(members: Sequence[Member]) -> list[tuple[str, list[Member]]]:
    """Members by the kind of model that they trained."""
    found: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        found[family(member.run)].append(member)
    return list(found.items())


def family(run: Run) -> str:
    """The kind of model that a run trained: "T5", "ViT", "MLP-Mixer", "MLP"; its name where the config does not say."""
    task = run.config.get("task")
    if not isinstance(task, dict) or "size" not in task:
        return run.name
    return _MODELS.get(task.get("model", "t5"), run.name)


def model_of(run: Run) -> str:
    """A run's model in words: "ViT", "Top-k ViT"."""
    selection = run.config.get("selection") or {}
    return _SELECTIONS.get(selection.get("kind", ""), "Top-k " if selection else "") + family(run)


def seeds_of(run: Run) -> list[int]:
    """The seeds of a run's records."""
    return sorted({record.seed for record in run.records})


def differences(members: Sequence[Member], what: str) -> list[tuple[Member, dict[int, float]]]:
    """Each member with a selection, and its quality by seed less the dense member's of that seed."""
    dense = next((m for m in members if "selection" not in m.run.config), None)
    base = quality(dense.run, what) if dense else {}
    found = []
    for member in members:
        if "selection" in member.run.config:
            found.append((member, less(quality(member.run, what), base)))
    return found


def less(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """The difference by seed, of the seeds that both have."""
    return {seed: one[seed] - other[seed] for seed in one if seed in other}


def at_end(run: Run, what: str = "density") -> list[Record]:
    """Held-out records at the last step of each seed; on training data where there are no others."""
    found = run.pick(what)
    held = [record for record in found if record.split == "eval"]
    return at_the_end(held or found)


def over_seeds(records: Iterable[Record]) -> dict[int, float]:
    """The mean of records by seed: of a density over layers."""
    found: dict[int, list[float]] = defaultdict(list)
    for record in records:
        found[record.seed].append(record.value)
    return {seed: fmean(values) for seed, values in sorted(found.items())}


def quality(run: Run, what: str) -> dict[int, float]:
    """Accuracy, loss or ece on all held-out data by seed, of the trained model."""
    return {record.seed: record.value for record in run.tested(what) if record.case == "" and record.x is None}


def place_of(run: Run, record: Record) -> tuple[str, int]:
    """Panel and layer of a site: its stack; an MLP-Mixer's two MLPs of a block stand in panels of their own."""
    layer = record.layer or 0
    if family(run) == "MLP-Mixer" and not record.stack:
        return ("MLPs over patches" if "token" in record.site else "MLPs over channels"), layer // 2
    return record.stack, layer


def missing(results: Results) -> list[str]:
    """Sentences: which runs and seeds are not there, or not at their end."""
    lines = []
    if results.absent:
        lines.append(f"Not there yet: {', '.join(results.absent)}.")
    for member in results.members:
        run, asked = member.run, member.run.config.get("num_steps")
        seeds = seeds_of(run)
        if not seeds:
            lines.append(f"{run.name} has no records yet.")
            continue
        if lacking := [str(seed) for seed in results.seeds if seed not in seeds]:
            lines.append(f"{run.name} lacks seed{'s' * (len(lacking) > 1)} {', '.join(lacking)}.")
        cut = []
        for seed in seeds:
            last = max((r.step for r in run.records if r.seed == seed and r.step is not None), default=None)
            if last is not None and isinstance(asked, int) and last < asked:
                cut.append(f"seed {seed} at step {last:,}")
        if cut:
            lines.append(f"{run.name} is not finished: {', '.join(cut)} of {asked:,}.")
    return lines
