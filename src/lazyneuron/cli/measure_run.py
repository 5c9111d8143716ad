"""The work of `lazyneuron measure`: run a model over data and record its counts."""

import contextlib
import itertools
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lazyneuron.cli.loading import config_of, explained_failures, loaded_on_device, progress, sites_of
from lazyneuron.cli.measure import Measure
from lazyneuron.errors import LazyneuronError, StoppedError
from lazyneuron.load.batches import Inputs, batches
from lazyneuron.load.models import Loaded, forward_arguments, short_name
from lazyneuron.measure.alarm import Alarm, alarm_texts
from lazyneuron.measure.examples import TopExamples, top_examples
from lazyneuron.measure.examples_file import write_examples, write_images
from lazyneuron.measure.probe import Probe, watch
from lazyneuron.measure.probe_records import probe_records
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import RELU_LIKE, Site
from lazyneuron.training.stop import stop_signals

_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


@dataclass(frozen=True)
class Measured:
    """The folder, its records, the sites, and sentences for the user."""

    folder: Path
    records: list[Record]
    sites: list[Site]
    notes: list[str] = field(default_factory=list)
    stopped: StoppedError | None = None


def measure(command: Measure, console: Console) -> Measured:
    """Load the model, run it over its data, and write the counts to the folder.

    A folder that is done is read, not measured again; an interrupted one is resumed. Ctrl-C stops after the current
    batch: `stopped` is then set, and the records are those of the tokens seen so far. Raises UsageError for what cannot
    be loaded or fed, LazyneuronError where no token was counted.
    """
    with console.status(f"loading {command.model}"):
        loaded = loaded_on_device(command, command.dtype)
        sources = {"text": command.text, "images": command.images, "dataset": command.dataset}
        data, about = batches(loaded, **sources, batch_size=command.batch, length=command.length)
        first = next(data)
        sites = sites_of(loaded, first, command.sites)
    class_token_in = _class_token(loaded)
    config = config_of(command, loaded, about, first, sites)
    folder = RunFolder(command.folder, config | ({"examples": command.examples} if command.examples else {}))
    notes = [*loaded.notes, f"data: {about}"]
    if loaded.kind == "own" and _has_ids_without_mask(first):
        notes.append("no attention_mask among the inputs: every position counts as a token, padding too")
    if folder.is_done():
        notes.append(f"{folder.path} was measured before: its records are shown")
        return Measured(folder.path, folder.records(), sites, notes + _warnings(folder.records(), sites))
    probe = watch(loaded.model, sites, statistics="all")
    examples = top_examples(loaded.model, command.examples, sites) if command.examples else None
    stopped = _run(probe, examples, loaded, itertools.chain([first], data), command, folder, console)
    seen = max(probe.num_tokens.values())
    if not seen and stopped is None:
        why = "the attention mask leaves none; give other data"
        raise LazyneuronError(f"no token of {command.model} was counted: {why}")
    device = next(loaded.model.parameters()).device
    source = Source.here(device_name(device), torch.get_num_threads())
    folder.truncate_records(0)
    folder.append(probe_records(probe, recipe="measure", source=source, class_token_in=class_token_in))
    if stopped is None:
        _save_counts(probe, folder)
        if examples is not None:
            write_examples(examples, loaded.tokenizer, folder.path)
            if loaded.kind == "images":
                again, _ = batches(loaded, **sources, batch_size=command.batch, length=command.length)
                num_tokens = max(len(density) for density in probe.density_by_position.values())
                num_before = int(class_token_in is not None)
                write_images(examples, _pixels(again), num_tokens - num_before, num_before, folder.path)
        folder.mark_done()
        if seen < command.tokens:
            notes.append(f"the data ended after {seen:,} of {command.tokens:,} tokens")
    records = folder.records()
    return Measured(folder.path, records, sites, notes + _warnings(records, sites), stopped)


def _pixels(data: Iterator[Inputs]) -> Iterator[Tensor]:
    """The images [C, H, W] of all batches."""
    for batch in data:
        yield from next(x for x in tree_leaves(batch) if isinstance(x, Tensor) and x.dim() == 4)


def _has_ids_without_mask(first: Inputs) -> bool:
    names = list(first) if isinstance(first, Mapping) else []
    return bool(names) and "input_ids" in names and "attention_mask" not in names


def _run(
    probe: Probe,
    examples: TopExamples | None,
    loaded: Loaded,
    data: Iterator[Inputs],
    command: Measure,
    folder: RunFolder,
    console: Console,
) -> StoppedError | None:
    """Feed batches until enough tokens are counted, the data end, or the user stops."""
    num_batches = 0
    if (state := folder.load_checkpoint()) is not None:
        probe.load_state(state["counts"])
        if examples is not None:
            examples.load_state(state["examples"])
        num_batches = state["step"]
        folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} resumed after {num_batches} batches")
    extra = _savings(loaded)
    bar = progress(console, short_name(command.model)[-30:], "tokens", command.tokens)

    def save() -> None:
        kept = {} if examples is None else {"examples": examples.state()}
        folder.save_checkpoint(num_batches, {"counts": probe.state(), **kept}, keep=1)

    with (
        warnings.catch_warnings(),
        stop_signals() as stops,
        bar as report,
        torch.inference_mode(),
        probe,
        examples or contextlib.nullcontext(),
    ):
        warnings.filterwarnings("ignore", "not what the config says")  # a note says so
        saved = time.monotonic()
        for batch in itertools.islice(data, num_batches, None):
            if max(probe.num_tokens.values()) >= command.tokens or stops:
                break
            with explained_failures(loaded, (Exception,)):
                _call(loaded, batch, extra)
            num_batches += 1
            report(max(probe.num_tokens.values()))
            if time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                saved = time.monotonic()
                save()
    seen = max(probe.num_tokens.values())
    if stops and seen < command.tokens:
        save()
        return StoppedError(f"stopped after {seen:,} of {command.tokens:,} tokens; the same command resumes")
    return None


def _call(loaded: Loaded, batch: Inputs, extra: dict[str, Any]) -> None:
    if isinstance(batch, dict):
        loaded.model(**batch, **{name: value for name, value in extra.items() if name not in batch})
    else:
        loaded.model(*(batch if isinstance(batch, tuple) else (batch,)))


def _savings(loaded: Loaded) -> dict[str, Any]:
    """Arguments that save memory and time and change no activation map: no cache, logits of one token only."""
    if loaded.kind != "text":
        return {}
    arguments = forward_arguments(loaded.model)
    return {name: value for name, value in (("use_cache", False), ("logits_to_keep", 1)) if name in arguments}


def _class_token(loaded: Loaded) -> str | None:
    """A part of the names of the sites whose first position is a class token; None if there is no such token."""
    names = [name for name, _ in loaded.model.named_parameters() if name.rpartition(".")[2] in _CLASS_TOKENS]
    if not names or "images" not in loaded.kind:
        return None
    return "" if loaded.kind == "images" else names[0].partition(".")[0]


def _save_counts(probe: Probe, folder: RunFolder) -> None:
    """Write every neuron's exact counts to `counts.safetensors`, named as in `Probe.state`."""
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
    notes += alarm_texts(Alarm(r.site, r.case, r.value) for r in records if r.what == "unlike_config")
    reached = {record.site for record in records if record.what == "density"}
    if unreached := [site.name or "(model)" for site in sites if site.name not in reached]:
        notes.append(f"no token reached {', '.join(unreached)}")
    if smooth := sorted({site.activation for site in sites} - RELU_LIKE):
        notes.append(f"{', '.join(smooth)}: rarely zero exactly, so look at the share of neurons that holds the energy")
    return notes
