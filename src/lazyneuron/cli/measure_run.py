"""`lazyneuron measure`: a model by name, data to run it on, and its counts as records."""

import hashlib
import itertools
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lazyneuron.cli.measure_terminal import counting_bar
from lazyneuron.errors import LazyneuronError, StoppedError, UsageError
from lazyneuron.load.feed import Inputs, batches
from lazyneuron.load.load import Loaded, default_folder, forward_arguments, load, short_name
from lazyneuron.measure.probe import RELU_LIKE, Probe, watch
from lazyneuron.measure.probe_records import probe_records
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import NoSitesError, Site, find_sites
from lazyneuron.training.stop import stop_signals

_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_SECONDS_BETWEEN_LINES = 20.0
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure: a model (see `models.load`), its data (see `models.feed`), how many tokens, where to keep it.

    `tokens` counts what the busiest site sees, padding left out; the last batch is not cut.
    """

    model: str
    text: str | None = None
    images: str | None = None
    dataset: str | None = None
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

    @property
    def folder(self) -> Path:
        return self.out or default_folder("measure", self.model)

    @property
    def command(self) -> str:
        """The command line that asks for this."""
        words = ["lazyneuron", "measure", self.model]
        for name in ("text", "images", "dataset", "length", "device", "dtype"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name}", str(value)]
        words += ["--tokens", str(self.tokens), "--batch", str(self.batch)]
        words += ["--sites", self.sites] if self.sites != "auto" else []
        words += ["--out", str(self.out)] if self.out else []
        return shlex.join(words + ["--trust-remote-code"] * self.trust_remote_code)


@dataclass(frozen=True)
class Measured:
    """What `measure` came to: the folder, its records, the sites, and sentences for the user."""

    folder: Path
    records: list[Record]
    sites: list[Site]
    notes: list[str] = field(default_factory=list)
    stopped: StoppedError | None = None


def measure(options: Options, console: Console) -> Measured:
    """Load the model, run it over its data, and write what was counted to the folder.

    A folder that is done is read, not measured again; one that was interrupted goes on. Ctrl-C stops after the batch at
    hand: `stopped` is then set and the records are those of the tokens seen so far. UsageError for what cannot be
    loaded or fed, LazyneuronError where no token was counted.
    """
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with console.status(f"loading {options.model}"):
        loaded = load(options.model, device=device, dtype=options.dtype, trust_remote_code=options.trust_remote_code)
        data, about = batches(
            loaded,
            text=options.text,
            images=options.images,
            dataset=options.dataset,
            batch_size=options.batch,
            length=options.length,
        )
        first = next(data)
        sites = sites_of(loaded, first, options.sites)
    class_token_in = _class_token(loaded)
    folder = RunFolder(
        options.folder, _config(options, loaded, about, sites) | {"fingerprint": fingerprint(loaded, first)}
    )
    notes = [*loaded.notes, f"data: {about}"]
    if loaded.kind == "own" and _has_ids_without_mask(first):
        notes.append("no attention_mask among the inputs: every position counts as a token, padding too")
    if folder.is_done():
        notes.append(f"{folder.path} was measured before: its records are shown")
        return Measured(folder.path, folder.records(), sites, notes + _warnings(folder.records(), sites))
    probe = watch(loaded.model, sites, statistics="all")
    stopped = _run(probe, loaded, itertools.chain([first], data), options, folder, console)
    seen = max(probe.num_tokens.values())
    if not seen and stopped is None:
        raise LazyneuronError(
            f"no token of {options.model} was counted: the attention mask leaves none; give other data"
        )
    source = Source.here(device_name(torch.device(device)), torch.get_num_threads())
    folder.truncate_records(0)
    folder.append(probe_records(probe, recipe="measure", source=source, class_token_in=class_token_in))
    if stopped is None:
        _keep(probe, folder)
        folder.mark_done()
        if seen < options.tokens:
            notes.append(f"the data ended after {seen:,} of {options.tokens:,} tokens")
    records = folder.records()
    return Measured(folder.path, records, sites, notes + _warnings(records, sites), stopped)


def sites_of(loaded: Loaded, first: Inputs, choice: str) -> list[Site]:
    """The sites of a loaded model that `choice` names; a failure of its forward pass in one line."""
    try:
        return find_sites(loaded.model, first, choice)
    except NoSitesError as error:
        raise UsageError(f"{loaded.name}: {error}") from error
    except ValueError as error:
        if choice != "auto":
            raise UsageError(str(error)) from error
        raise failed(loaded, error) from error
    except Exception as error:
        raise failed(loaded, error) from error


def failed(loaded: Loaded, error: Exception) -> LazyneuronError:
    """A failure of the model's own forward pass, in one line."""
    first = str(error).strip().splitlines() or [""]
    what = "; ".join([f"{type(error).__name__}: {first[0]}", *getattr(error, "__notes__", ())])
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in what:
        return LazyneuronError(f"{loaded.name} and its batch do not fit in memory ({what}): use a smaller --batch")
    return LazyneuronError(f"the forward pass of {loaded.name} fails on its data ({what})")


def _config(options: Options, loaded: Loaded, about: str, sites: list[Site]) -> dict[str, Any]:
    table = [
        {
            "name": site.name,
            "activation": site.activation,
            "is_gated": site.is_gated,
            "d_model": site.d_model,
            "d_ff": site.d_ff,
        }
        for site in sites
    ]
    parameter = next(loaded.model.parameters())
    return {
        "name": "measure",
        "model": options.model,
        "title": short_name(options.model),
        "kind": loaded.kind,
        "data": about,
        "tokens": options.tokens,
        "batch_size": options.batch,
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "command": options.command,
        "sites": table,
    }


def fingerprint(loaded: Loaded, first: Inputs) -> str:
    """What tells this model and data from others of the same name: of every weight's bits, and of the first batch."""
    found = hashlib.sha256()
    for name, tensor in [*loaded.model.state_dict().items(), *enumerate(tree_leaves(first))]:
        if not isinstance(tensor, Tensor):
            found.update(f"{name} {tensor!r}".encode())
            continue
        data = tensor.detach().contiguous().flatten().view(torch.uint8)
        whole = data[: data.numel() // 8 * 8].view(torch.int64)
        numbers = whole.sum().item(), whole[::3].sum().item(), data[whole.numel() * 8 :].tolist()
        found.update(f"{name} {tuple(tensor.shape)} {numbers}".encode())
    return found.hexdigest()[:16]


def _has_ids_without_mask(first: Inputs) -> bool:
    names = list(first) if isinstance(first, Mapping) else []
    return bool(names) and "input_ids" in names and "attention_mask" not in names


def _run(
    probe: Probe, loaded: Loaded, data: Iterator[Inputs], options: Options, folder: RunFolder, console: Console
) -> StoppedError | None:
    """Feed batches until enough tokens are counted, the data end, or the user stops it."""
    num_batches = 0
    if (state := folder.load_checkpoint()) is not None:
        probe.load_state(state["counts"])
        num_batches = state["step"]
        folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} goes on after {num_batches} batches")
    extra = _savings(loaded)
    with stop_signals() as stops, counting_bar(console, "tokens") as bar, torch.inference_mode(), probe:
        task = bar.add_task(short_name(options.model)[-30:], total=options.tokens)
        saved = told = time.monotonic()
        for batch in itertools.islice(data, num_batches, None):
            seen = max(probe.num_tokens.values())
            if seen >= options.tokens or stops:
                break
            try:
                _call(loaded, batch, extra)
            except Exception as error:
                raise failed(loaded, error) from error
            num_batches += 1
            seen = max(probe.num_tokens.values())
            bar.update(task, completed=min(seen, options.tokens))
            now = time.monotonic()
            if not console.is_terminal and now - told > _SECONDS_BETWEEN_LINES and seen < options.tokens:
                told = now
                console.print(f"{options.model} {seen:,}/{options.tokens:,} tokens", highlight=False, soft_wrap=True)
            if now - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                saved = now
                folder.save_checkpoint(num_batches, {"counts": probe.state()}, keep=1)
    seen = max(probe.num_tokens.values())
    if stops and seen < options.tokens:
        folder.save_checkpoint(num_batches, {"counts": probe.state()}, keep=1)
        return StoppedError(f"stopped after {seen:,} of {options.tokens:,} tokens; the same command goes on")
    return None


def _call(loaded: Loaded, batch: Inputs, extra: dict[str, Any]) -> None:
    if isinstance(batch, dict):
        loaded.model(**batch, **{name: value for name, value in extra.items() if name not in batch})
    else:
        loaded.model(*(batch if isinstance(batch, tuple) else (batch,)))


def _savings(loaded: Loaded) -> dict[str, Any]:
    """What spares memory and time and changes no activation map: no cache, and logits of one token only."""
    if loaded.kind != "text":
        return {}
    arguments = forward_arguments(loaded.model)
    return {name: value for name, value in (("use_cache", False), ("logits_to_keep", 1)) if name in arguments}


def _class_token(loaded: Loaded) -> str | None:
    """What the names of the sites contain whose first position is a class token; None if there are none."""
    names = [name for name, _ in loaded.model.named_parameters() if name.rpartition(".")[2] in _CLASS_TOKENS]
    if not names or "images" not in loaded.kind:
        return None
    return "" if loaded.kind == "images" else names[0].partition(".")[0]


def _keep(probe: Probe, folder: RunFolder) -> None:
    """Every neuron's counts, exact, beside the records: `counts.safetensors`, named as in `Probe.state`."""
    from safetensors.torch import save

    counts = {name: counts.cpu() for name, counts in probe.state().items()}
    (folder.path / "counts.safetensors").write_bytes(save(counts))
    for checkpoint in folder.checkpoints():
        checkpoint.unlink()


def _warnings(records: list[Record], sites: list[Site]) -> list[str]:
    notes = []
    if broken := {r.site: r.value for r in records if r.what == "num_nan" and r.value}:
        named = ", ".join(f"{number:,.0f} at {name or '(model)'}" for name, number in broken.items())
        notes.append(f"NaN in the activation maps, counted apart: {named}; the other numbers are doubtful")
    reached = {record.site for record in records if record.what == "density"}
    if unreached := [site.name or "(model)" for site in sites if site.name not in reached]:
        notes.append(f"no token reached {', '.join(unreached)}")
    if smooth := sorted({site.activation for site in sites} - RELU_LIKE):
        notes.append(f"{', '.join(smooth)}: rarely zero exactly, so look at the share of neurons that holds the energy")
    return notes
