"""`lazyneuron enforce`: a checkpoint made sparse, fine-tuned, judged against its original, and saved."""

import copy
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from rich.console import Console

from lazyneuron.cli.enforce_judge import ASKED, Judge, Key
from lazyneuron.cli.enforce_options import Options
from lazyneuron.cli.measure_run import failed, fingerprint, sites_of
from lazyneuron.cli.measure_terminal import counting_bar
from lazyneuron.enforce.enforce import assigned, enforce, enforced, release
from lazyneuron.enforce.relufy import relufy
from lazyneuron.enforce.saved import restore
from lazyneuron.enforce.selection import Anneal, TopK
from lazyneuron.enforce.verify import verify
from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.load.load import Loaded, load, short_name
from lazyneuron.load.pretrained import quiet
from lazyneuron.measure.probe import RELU_LIKE
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import Site, find_sites
from lazyneuron.training.finetune import Finetuning, finetune
from lazyneuron.training.heldout import Data, image_data, text_data
from lazyneuron.training.model_quality import Scored

_SECONDS_BETWEEN_LINES = 20.0
_STAGES = ("judging", "finetuning", "judging-finetuned", "control", "judging-control")


@dataclass(frozen=True)
class Converted:
    """What `convert` came to: the folder, its records, the sites, and sentences for the user."""

    folder: Path
    records: list[Record]
    sites: list[Site]
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> Path:
        """Where the model is saved, as `save_pretrained` writes it."""
        return self.folder / "model"


def convert(options: Options, console: Console) -> Converted:
    """Load the model, enforce the selection, judge it over the sweep, fine-tune and judge it again, and save it.

    Records have split "eval", `x` and a `case`. "before" is the original, "converted" the model as asked, at the mean
    over its sites' densities, and "sweep" it at other densities, the same everywhere. "finetuned" is the fine-tuned
    model at all of these, and "control" the original fine-tuned alike (steps, order of data, dropout, loss) without any
    selection, at 1. What they hold: loss, perplexity, accuracy, agreement, kl or cosine as `enforce.quality.Quality`
    has them, and each site's density (kept) and natural_density.

    A folder that is done is read; one that was interrupted goes on. Raises StoppedError after Ctrl-C, UsageError for
    what cannot be loaded, fed or enforced, LazyneuronError where the model gives NaN. In memory there are the original
    and one other model at a time.
    """
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with console.status(f"loading {options.model}"):
        dtype = options.dtype or ("float32" if options.finetune else None)
        loaded = load(options.model, device=device, dtype=dtype, trust_remote_code=options.trust_remote_code)
        data = _data(loaded, options)
        first = next(data.evaluation())
        restore(loaded.model)
        had_selections = bool(enforced(loaded.model))
        sites = sites_of(loaded, first.inputs, options.sites)
        _check_budgets(options, sites)
    config = _config(options, loaded, data, sites) | {"fingerprint": fingerprint(loaded, first.inputs)}
    folder, how = RunFolder(options.folder, config), options.finetune
    notes = [*loaded.notes, f"data: {data.about}"]
    if had_selections:
        notes.append(f"{options.model} was saved with selections in force: 'before' is with them")
    if how and not data.is_labelled and not how.distill:
        raise UsageError("the data have no labels for this model, so only its original can teach it: give --distill 1")
    if how and options.control and not data.is_labelled:
        notes.append("no control: without labels the original would only learn its own answers")
    if folder.is_done():
        notes.append(f"{folder.path} was made before: its records are shown")
        return Converted(folder.path, folder.records(), sites, notes)
    learns = {name for name, weight in loaded.model.named_parameters() if weight.requires_grad}
    loaded.model.requires_grad_(False)
    sparse = _copied(loaded, learns)
    made = _convert(sparse, first, sites, options)
    if smooth := sorted({site.activation for site in made} - RELU_LIKE):
        notes.append(f"{', '.join(smooth)}: top-k is by magnitude there; --relufy swaps GELU and SiLU for ReLU")
    source = Source.here(device_name(torch.device(device)), torch.get_num_threads())
    parent = {"seed": how.seed if how else 0, "source": source}
    judge = Judge(loaded, made, data, options.tokens, folder, console, parent)
    asked, key = _asked(sparse.model, options)
    sweep = list(dict.fromkeys(sorted(options.sweep, reverse=True)))
    judged = {record.case for record in folder.records() if record.split == "eval"}
    if "converted" not in judged:
        cases: list[tuple[str, float, Key]] = [("before", 1.0, None), ("converted", asked, key)]
        records = judge(sparse.model, cases + [("sweep", x, x) for x in sweep], "judging", "judging")
        folder.truncate_records(0)
        folder.append(records)
        _forget_checkpoints(folder, "judging")
    if "finetuned" not in judged:
        if how:
            _train(sparse, loaded, made, data, options, folder, console, source, "finetuning")
        verify(sparse.model, first.inputs)
        _save(sparse, folder)
        if how:
            cases = [("finetuned", asked, key), *(("finetuned", x, x) for x in sweep if x != asked)]
            folder.append(judge(sparse.model, cases, "judging again", "judging-finetuned"))
            _forget_checkpoints(folder, "finetuning", "judging-finetuned")
    del sparse
    if how and options.control and data.is_labelled and "control" not in judged:
        dense = _copied(loaded, learns)
        release(dense.model)
        _train(dense, loaded, sites, data, options, folder, console, source, "control")
        enforce(dense.model, TopK(density=1.0), sites, first.inputs)
        folder.append(judge(dense.model, [("control", 1.0, 1.0)], "judging the control", "judging-control"))
    folder.mark_done()
    _forget_checkpoints(folder, *_STAGES)
    if 0 < judge.seen < options.tokens:
        notes.append(f"the held-out data ended after {judge.seen:,} of {options.tokens:,}")
    return Converted(folder.path, folder.records(), made, notes)


def _copied(loaded: Loaded, learns: set[str]) -> Loaded:
    """Another model like the original, of which the weights named in `learns` can be trained."""
    model = copy.deepcopy(loaded.model)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in learns)
    return replace(loaded, model=model)


def _asked(model: torch.nn.Module, options: Options) -> tuple[float, Key]:
    """The mean over the sites of the density asked for, and the key under which a `Judge` judges it."""
    if not options.budgets:
        return options.density, options.density
    return fmean(entry["selection"]["density"] for entry in enforced(model).values()), ASKED


def _data(loaded: Loaded, options: Options) -> Data:
    kinds = ("text", "images")
    if loaded.kind not in kinds or not hasattr(loaded.model, "save_pretrained"):
        what = f"takes {loaded.kind}" if loaded.kind not in (*kinds, "own") else "is not of transformers"
        mend = "in Python, lazyneuron.enforce(model, TopK(density=0.05)) takes any"
        raise UsageError(f"{loaded.name} {what}, and this command takes text or image models of transformers: {mend}")
    other = kinds[loaded.kind == "text"]
    if (wrong := getattr(options, other)) is not None:
        raise UsageError(f"{loaded.name} takes {loaded.kind}: leave out {other} ({wrong})")
    seed, is_split = (options.finetune.seed if options.finetune else 0), options.finetune is not None
    how: dict[str, Any] = {"batch_size": options.batch, "seed": seed}
    if loaded.kind == "text":
        return text_data(loaded, options.text, length=options.length, is_split=is_split, **how)
    return image_data(loaded, options.images, **how)


def _check_budgets(options: Options, sites: list[Site]) -> None:
    """Refuse a wrong expression before the folder is made."""
    try:
        assigned(options.selection, sites)
    except ValueError as error:
        raise UsageError(f"--budgets: {error}") from error


def _convert(loaded: Loaded, first: Scored, sites: list[Site], options: Options) -> list[Site]:
    """Swap activations if asked to and enforce what is asked on `sites`; the sites as they are now."""
    try:
        if options.relufy:
            relufy(loaded.model, first.inputs)
            names = {site.name for site in sites}
            sites = [site for site in find_sites(loaded.model, first.inputs) if site.name in names]
        enforce(loaded.model, options.selection, sites, first.inputs)
    except ValueError as error:
        raise UsageError(f"{loaded.name}: {error}") from error
    return sites


def _train(
    taught: Loaded,
    loaded: Loaded,
    sites: list[Site],
    data: Data,
    options: Options,
    folder: RunFolder,
    console: Console,
    source: Source,
    case: str,
) -> None:
    """Fine-tune `taught` beside its original, `loaded`; what was in force is so afterwards, annealed or not."""
    how, told = options.finetune or Finetuning(), time.monotonic()
    doing = "fine-tuning" if case == "finetuning" else "fine-tuning the control"
    written = enforced(taught.model)
    if options.anneal and written:
        enforce(taught.model, {name: _annealed(entry, how.num_steps) for name, entry in written.items()})
    with counting_bar(console, "steps") as bar:
        task = bar.add_task(doing, total=how.num_steps)

        def report(step: int, loss: float) -> None:
            nonlocal told
            bar.update(task, completed=step, description=f"{doing}, loss {loss:.3f}")
            if not console.is_terminal and time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                line = f"{doing}, step {step:,}/{how.num_steps:,}, loss {loss:.3f}"
                console.print(line, highlight=False, soft_wrap=True)

        settings: dict[str, Any] = {"original": loaded.model, "source": source, "case": case, "report": report}
        try:
            finetune(taught.model, data.training, how, folder, sites=sites, **settings)
        except LazyneuronError:
            raise
        except RuntimeError as error:
            raise failed(taught, error) from error
    if options.anneal and written:
        enforce(taught.model, written)


def _annealed(entry: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """What `enforced` says of a site under top-k, its density falling to the same from 1."""
    falling = Anneal(start=1.0, end=entry["selection"]["density"], num_steps=num_steps)
    return entry | {"selection": falling.to_dict()}


def _forget_checkpoints(folder: RunFolder, *stages: str) -> None:
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


def _config(options: Options, loaded: Loaded, data: Data, sites: list[Site]) -> dict[str, Any]:
    names = ("name", "activation", "is_gated", "d_model", "d_ff")
    parameter = next(loaded.model.parameters())
    how = options.finetune
    return {
        "name": "enforce",
        "model": options.model,
        "title": short_name(options.model),
        "kind": loaded.kind,
        "data": data.about,
        "density": options.density,
        "budgets": dict(options.budgets),
        "relufy": options.relufy,
        "sweep": list(options.sweep),
        "finetune": None if how is None else {name: getattr(how, name) for name in how.__dataclass_fields__},
        "anneal": options.anneal,
        "control": options.control and how is not None,
        "tokens": options.tokens,
        "batch_size": options.batch,
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "command": options.command,
        "sites": [{name: getattr(site, name) for name in names} for site in sites],
    }
