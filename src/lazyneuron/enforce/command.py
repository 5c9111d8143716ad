"""`lazyneuron enforce`: a checkpoint made sparse, fine-tuned, judged against its original, and saved."""

import copy
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from lazyneuron.enforce.enforce import enforce, enforced
from lazyneuron.enforce.finetune import Finetuning, finetune
from lazyneuron.enforce.heldout import Data, image_data, text_data
from lazyneuron.enforce.judge import Judge
from lazyneuron.enforce.pretrained import restore
from lazyneuron.enforce.quality import Scored
from lazyneuron.enforce.relufy import relufy
from lazyneuron.enforce.selection import TopK
from lazyneuron.enforce.verify import verify
from lazyneuron.measure.command import failed, fingerprint, sites_of
from lazyneuron.measure.terminal import counting_bar
from lazyneuron.measure.watch import RELU_LIKE
from lazyneuron.models.load import Loaded, default_folder, load, short_name
from lazyneuron.models.pretrained import quiet
from lazyneuron.record import LazyneuronError, Record, RunFolder, Source, UsageError, device_name
from lazyneuron.sites import Site, find_sites

SWEEP = (1.0, 0.5, 0.25, 0.12, 0.08, 0.04, 0.02)
_SECONDS_BETWEEN_LINES = 20.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to convert: a model (see `models.load`), to which density, how to fine-tune it, and what to judge it by.

    `tokens` is how many tokens of held-out text (or how many images) it is judged by; the last batch is not cut.
    `finetune` None leaves the weights as they are.
    """

    model: str
    density: float = 0.05
    relufy: bool = False
    finetune: Finetuning | None = None
    text: str | None = None
    images: str | None = None
    sweep: tuple[float, ...] = SWEEP
    tokens: int = 20_000
    batch: int = 8
    length: int | None = None
    sites: str = "auto"
    device: str | None = None
    dtype: str | None = None
    out: Path | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("tokens", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more; got {getattr(self, name)}")
        for density in (self.density, *self.sweep):
            if not 0 < density <= 1:
                raise UsageError(f"a density must be above 0 and at most 1 (0.05 keeps 5 %); got {density}")
        if self.finetune is not None and self.dtype not in (None, "float32"):
            raise UsageError(f"fine-tuning in {self.dtype} loses small updates: leave out --dtype")

    @property
    def folder(self) -> Path:
        return self.out or default_folder("enforce", self.model)

    @property
    def command(self) -> str:
        """The command line that asks for this."""
        words = ["lazyneuron", "enforce", self.model, "--density", f"{self.density:g}"]
        words += ["--relufy"] * self.relufy
        if how := self.finetune:
            words += ["--finetune", "--steps", str(how.num_steps), "--lr", f"{how.learning_rate:g}"]
            words += ["--distill", f"{how.distill:g}"] if how.distill else []
            words += ["--seed", str(how.seed)] if how.seed else []
        for name in ("text", "images", "length", "device", "dtype"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name}", str(value)]
        words += ["--sweep", ",".join(f"{density:g}" for density in self.sweep)] if self.sweep != SWEEP else []
        words += ["--tokens", str(self.tokens), "--batch", str(self.batch)]
        words += ["--sites", self.sites] if self.sites != "auto" else []
        words += ["--out", str(self.out)] if self.out else []
        return shlex.join(words + ["--trust-remote-code"] * self.trust_remote_code)


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
    """Load the model, enforce the density, judge it over the sweep, fine-tune and judge it again, and save it.

    Records have `case` "before" (the original), "converted" and "finetuned" (at the density asked for), and "sweep"
    (the converted model at others), with `x` the density asked for: loss, perplexity, accuracy, agreement, kl or cosine
    as `enforce.quality.Quality` has them, and each site's density (kept) and natural_density. A folder that is done is
    read; one that was interrupted goes on. Raises StoppedError after Ctrl-C, UsageError for what cannot be loaded, fed
    or enforced, LazyneuronError where the model gives NaN. The original stays in memory beside the converted model.
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
    config = _config(options, loaded, data, sites) | {"fingerprint": fingerprint(loaded, first.inputs)}
    folder = RunFolder(options.folder, config)
    notes = [*loaded.notes, f"data: {data.about}"]
    if had_selections:
        notes.append(f"{options.model} was saved with selections in force: 'before' is with them")
    if options.finetune and not data.is_labelled and not options.finetune.distill:
        raise UsageError("the data have no labels for this model, so only its original can teach it: give --distill 1")
    if folder.is_done():
        notes.append(f"{folder.path} was made before: its records are shown")
        return Converted(folder.path, folder.records(), sites, notes)
    original = copy.deepcopy(loaded.model).requires_grad_(False)
    sites = _convert(loaded, first, sites, options)
    if smooth := sorted({site.activation for site in sites} - RELU_LIKE):
        notes.append(f"{', '.join(smooth)}: top-k is by magnitude there; --relufy swaps GELU and SiLU for ReLU")
    source = Source.here(device_name(torch.device(device)), torch.get_num_threads())
    seed = options.finetune.seed if options.finetune else 0
    judge = Judge(loaded, original, sites, data, options.tokens, folder, console, {"seed": seed, "source": source})
    if not any(record.case == "converted" for record in folder.records()):
        folder.truncate_records(0)
        densities = list(dict.fromkeys([*sorted(options.sweep, reverse=True), options.density]))
        cases = [("before", 1.0, None), ("converted", options.density, options.density)]
        cases += [("sweep", density, density) for density in densities if density in options.sweep]
        records = judge(densities, cases, "judging")
        _forget_checkpoints(folder)
        folder.append(records)
    if options.finetune:
        _finetune(loaded, original, sites, data, options.finetune, folder, console, source)
        folder.append(judge([options.density], [("finetuned", options.density, options.density)], "judging again"))
    verify(loaded.model, first.inputs)
    _save(loaded, folder)
    folder.mark_done()
    _forget_checkpoints(folder)
    if judge.seen < options.tokens:
        notes.append(f"the held-out data ended after {judge.seen:,} of {options.tokens:,}")
    return Converted(folder.path, folder.records(), sites, notes)


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


def _convert(loaded: Loaded, first: Scored, sites: list[Site], options: Options) -> list[Site]:
    """Swap activations if asked to and enforce the density on `sites`; the sites as they are now."""
    try:
        if options.relufy:
            relufy(loaded.model, first.inputs)
            names = {site.name for site in sites}
            sites = [site for site in find_sites(loaded.model, first.inputs) if site.name in names]
        enforce(loaded.model, TopK(density=options.density), sites, first.inputs)
    except ValueError as error:
        raise UsageError(f"{loaded.name}: {error}") from error
    return sites


def _finetune(
    loaded: Loaded,
    original: torch.nn.Module,
    sites: list[Site],
    data: Data,
    how: Finetuning,
    folder: RunFolder,
    console: Console,
    source: Source,
) -> None:
    told = time.monotonic()
    with counting_bar(console, "steps") as bar:
        task = bar.add_task("fine-tuning", total=how.num_steps)

        def report(step: int, loss: float) -> None:
            nonlocal told
            bar.update(task, completed=step, description=f"fine-tuning, loss {loss:.3f}")
            if not console.is_terminal and time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                line = f"fine-tuning, step {step:,}/{how.num_steps:,}, loss {loss:.3f}"
                console.print(line, highlight=False, soft_wrap=True)

        try:
            finetune(
                loaded.model, data.training, how, folder, sites=sites, original=original, source=source, report=report
            )
        except LazyneuronError:
            raise
        except RuntimeError as error:
            raise failed(loaded, error) from error


def _forget_checkpoints(folder: RunFolder) -> None:
    for checkpoint in folder.checkpoints():
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
        "relufy": options.relufy,
        "sweep": list(options.sweep),
        "finetune": None if how is None else {name: getattr(how, name) for name in how.__dataclass_fields__},
        "tokens": options.tokens,
        "batch_size": options.batch,
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "command": options.command,
        "sites": [{name: getattr(site, name) for name in names} for site in sites],
    }
