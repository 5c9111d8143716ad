"""The work of `lazyneuron enforce`: make a checkpoint sparse, fine-tune it, judge it against its original, save it."""

import copy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from lazyneuron.cli.enforce import Enforce
from lazyneuron.cli.loading import config_of, explained_failures, loaded_on_device, progress, sites_of
from lazyneuron.enforce.enforce import assigned, enforce, enforced, release
from lazyneuron.enforce.relufy import relufy
from lazyneuron.enforce.saved import restore
from lazyneuron.enforce.selection import Anneal, TopK
from lazyneuron.enforce.verify import verify
from lazyneuron.errors import UsageError
from lazyneuron.load.checkpoint import quiet
from lazyneuron.load.models import Loaded
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import RELU_LIKE, Site, find_sites
from lazyneuron.training.comparison import AS_ENFORCED, Comparer, Key
from lazyneuron.training.evaluation import Batch
from lazyneuron.training.finetune import Finetuning, finetune
from lazyneuron.training.split_data import SplitData, image_data, text_data


@dataclass(frozen=True)
class Converted:
    """The folder, its records, the sites, and sentences for the user."""

    folder: Path
    records: list[Record]
    sites: list[Site]
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> Path:
        """Where the model is saved, as `save_pretrained` writes it."""
        return self.folder / "model"


def finetuning_of(command: Enforce) -> Finetuning | None:
    """The settings of fine-tuning; None where the weights stay as they are."""
    if not command.finetune:
        return None
    return Finetuning(num_steps=command.steps, learning_rate=command.lr, distill=command.distill, seed=command.seed)


def selection_of(command: Enforce) -> TopK | dict[str, TopK]:
    """`--density` everywhere, or by site with `--density` for those that no budget fits."""
    if not (budgets := command.density_by_site):
        return TopK(density=command.density)
    return {key: TopK(density=density) for key, density in {**budgets, "": budgets.get("", command.density)}.items()}


def convert(command: Enforce, console: Console) -> Converted:
    """Load the model, enforce the selection, judge it over the sweep, fine-tune and judge it again, and save it.

    Records have split "eval", `x` and a `case`. "before" is the original, "converted" the model as asked, at the mean
    over its sites' densities, and "sweep" it at other densities, the same everywhere. "finetuned" is the fine-tuned
    model at all of these, and "control" the original fine-tuned alike (steps, order of data, dropout, loss) without any
    selection, at 1. They hold loss, perplexity, accuracy, agreement, kl or cosine as `training.Evaluation` does, and
    each site's density (kept) and natural_density.

    A folder that is done is read; an interrupted one is resumed. Raises StoppedError after Ctrl-C, UsageError for what
    cannot be loaded, fed or enforced, LazyneuronError where the model gives NaN. The original and one other model at a
    time are in memory.
    """
    how = finetuning_of(command)
    with console.status(f"loading {command.model}"):
        loaded = loaded_on_device(command, command.dtype or ("float32" if how else None))
        data = _data(loaded, command)
        first = next(data.evaluation())
        restore(loaded.model)
        had_selections = bool(enforced(loaded.model))
        sites = sites_of(loaded, first.inputs, command.sites)
        _check_budgets(command, sites)
    folder = RunFolder(command.folder, _config(command, loaded, data, first, sites))
    notes = [*loaded.notes, f"data: {data.about}"]
    if had_selections:
        notes.append(f"{command.model} was saved with selections in force: they hold in 'before' too")
    if how and not data.is_labelled and not how.distill:
        raise UsageError("the data have no labels for this model: distil from the original with --distill 1")
    if how and command.control and not data.is_labelled:
        notes.append("no control: without labels the original could only learn its own answers")
    if folder.is_done():
        notes.append(f"{folder.path} is complete: its records are shown")
        return Converted(folder.path, folder.records(), sites, notes)
    learns = {name for name, weight in loaded.model.named_parameters() if weight.requires_grad}
    loaded.model.requires_grad_(False)
    sparse = _copied(loaded, learns)
    made = _convert(sparse, first, sites, command)
    if smooth := sorted({site.activation for site in made} - RELU_LIKE):
        notes.append(f"{', '.join(smooth)}: top-k is by magnitude there; --relufy replaces GELU and SiLU by ReLU")
    stages = _Stages(command, console, loaded, data, folder, made)
    asked, key = _asked(sparse.model, command)
    sweep = list(dict.fromkeys(sorted(command.sweep_densities, reverse=True)))
    judged = {record.case for record in folder.records() if record.split == "eval"}
    if "converted" not in judged:
        cases: list[tuple[str, float, Key]] = [("before", 1.0, None), ("converted", asked, key)]
        records = stages.judge(sparse, cases + [("sweep", x, x) for x in sweep], "judging", "judging")
        folder.truncate_records(0)
        folder.append(records)
        _remove_checkpoints(folder, "judging")
    if "finetuned" not in judged:
        if how:
            stages.train(sparse, how, made, "finetuning")
        verify(sparse.model, first.inputs)
        _save(sparse, folder)
        if how:
            cases = [("finetuned", asked, key), *(("finetuned", x, x) for x in sweep if x != asked)]
            folder.append(stages.judge(sparse, cases, "judging again", "judging-finetuned"))
            _remove_checkpoints(folder, "finetuning", "judging-finetuned")
    del sparse
    if how and command.control and data.is_labelled and "control" not in judged:
        dense = _copied(loaded, learns)
        release(dense.model)
        stages.train(dense, how, sites, "control")
        enforce(dense.model, TopK(density=1.0), sites, first.inputs)
        folder.append(stages.judge(dense, [("control", 1.0, 1.0)], "judging the control", "judging-control"))
    folder.mark_done()
    _remove_checkpoints(folder, "judging", "finetuning", "judging-finetuned", "control", "judging-control")
    if 0 < stages.num_seen < command.tokens:
        notes.append(f"the held-out data ended after {stages.num_seen:,} of {command.tokens:,}")
    return Converted(folder.path, folder.records(), made, notes)


class _Stages:
    """Judging and fine-tuning the models made from `loaded`, its original, with progress shown on the console."""

    def __init__(
        self,
        command: Enforce,
        console: Console,
        loaded: Loaded,
        data: SplitData,
        folder: RunFolder,
        sites: list[Site],
    ) -> None:
        self._command, self._console, self._loaded, self._data, self._folder = command, console, loaded, data, folder
        device = device_name(next(loaded.model.parameters()).device)
        self._source = Source.here(device, torch.get_num_threads())
        parent = {"seed": command.seed if command.finetune else 0, "source": self._source}
        self._comparer = Comparer(loaded, sites, data, command.tokens, folder, parent)

    @property
    def num_seen(self) -> int:
        """Held-out tokens or images of the last judging."""
        return self._comparer.num_seen

    def judge(self, judged: Loaded, cases: list[tuple[str, float, Key]], doing: str, stage: str) -> list[Record]:
        bar = progress(self._console, doing, "tokens", self._command.tokens)
        with bar as report, explained_failures(self._loaded, (Exception,)):
            return self._comparer(judged.model, cases, doing, stage, report)

    def train(self, trained: Loaded, how: Finetuning, sites: list[Site], case: str) -> None:
        """Fine-tune a model beside its original; the same selections are in force afterwards, annealed or not."""
        doing = "fine-tuning" if case == "finetuning" else "fine-tuning the control"
        written = enforced(trained.model)
        is_annealed = self._command.anneal and bool(written)
        if is_annealed:
            enforce(trained.model, {name: _annealed(entry, how.num_steps) for name, entry in written.items()})
        bar = progress(self._console, doing, "steps", how.num_steps)
        with bar as show, explained_failures(trained, (RuntimeError,)):
            finetune(
                trained.model,
                self._data.training,
                how,
                self._folder,
                sites=sites,
                original=self._loaded.model,
                source=self._source,
                case=case,
                report=lambda step, loss: show(step, f", loss {loss:.3f}"),
            )
        if is_annealed:
            enforce(trained.model, written)


def _copied(loaded: Loaded, learns: set[str]) -> Loaded:
    """A copy of the original in which the weights named in `learns` can be trained."""
    model = copy.deepcopy(loaded.model)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in learns)
    return replace(loaded, model=model)


def _asked(model: nn.Module, command: Enforce) -> tuple[float, Key]:
    """The mean over the sites of the density asked for, and its key in a comparison."""
    if not command.density_by_site:
        return command.density, command.density
    return fmean(entry["selection"]["density"] for entry in enforced(model).values()), AS_ENFORCED


def _data(loaded: Loaded, command: Enforce) -> SplitData:
    kinds = ("text", "images")
    if loaded.kind not in kinds or not hasattr(loaded.model, "save_pretrained"):
        what = f"takes {loaded.kind}" if loaded.kind not in (*kinds, "own") else "is not of transformers"
        hint = "in Python, lazyneuron.enforce(model, TopK(density=0.05)) takes any model"
        raise UsageError(f"{loaded.name} {what}, but this command takes text or image models of transformers: {hint}")
    other = kinds[loaded.kind == "text"]
    if (wrong := getattr(command, other)) is not None:
        raise UsageError(f"{loaded.name} takes {loaded.kind}: leave out {other} ({wrong})")
    seed = command.seed if command.finetune else 0
    how: dict[str, Any] = {"batch_size": command.batch, "seed": seed}
    if loaded.kind == "text":
        return text_data(loaded, command.text, length=command.length, is_split=command.finetune, **how)
    return image_data(loaded, command.images, **how)


def _check_budgets(command: Enforce, sites: list[Site]) -> None:
    """Refuse a wrong expression before the folder is made."""
    try:
        assigned(selection_of(command), sites)
    except ValueError as error:
        raise UsageError(f"--budgets: {error}") from error


def _convert(loaded: Loaded, first: Batch, sites: list[Site], command: Enforce) -> list[Site]:
    """Replace the activations if asked to and enforce the selection on `sites`; returns the sites as they are now."""
    try:
        if command.relufy:
            relufy(loaded.model, first.inputs)
            names = {site.name for site in sites}
            sites = [site for site in find_sites(loaded.model, first.inputs) if site.name in names]
        enforce(loaded.model, selection_of(command), sites, first.inputs)
    except ValueError as error:
        raise UsageError(f"{loaded.name}: {error}") from error
    return sites


def _annealed(entry: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """The entry of a top-k site in `enforced`, with a density that falls from 1 to the same."""
    falling = Anneal(start=1.0, end=entry["selection"]["density"], num_steps=num_steps)
    return entry | {"selection": falling.to_dict()}


def _remove_checkpoints(folder: RunFolder, *stages: str) -> None:
    for stage in stages:
        for checkpoint in folder.checkpoints(stage):
            checkpoint.unlink()


def _save(loaded: Loaded, folder: RunFolder) -> None:
    """Write the model, its selections in its config.json, and what feeds it to the folder's `model`."""
    path, model = folder.path / "model", cast(Any, loaded.model)
    with quiet():
        for part in (model, loaded.tokenizer, loaded.image_processor):
            if part is not None:
                part.save_pretrained(path)


def _config(command: Enforce, loaded: Loaded, data: SplitData, first: Batch, sites: list[Site]) -> dict[str, Any]:
    how = finetuning_of(command)
    return config_of(command, loaded, data.about, first.inputs, sites) | {
        "density": command.density,
        "budgets": command.density_by_site,
        "relufy": command.relufy,
        "sweep": list(command.sweep_densities),
        "finetune": None if how is None else asdict(how),
        "anneal": command.anneal,
        "control": command.control and how is not None,
    }
