"""Shared by commands that load a user's model: its sites and failures, its result folder's config, the progress bar."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lazyneuron.cli.command import ExploitCommand, FeedCommand
from lazyneuron.enforce.saved import restore
from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.load.batches import Inputs, batches
from lazyneuron.load.models import Loaded, load, short_name
from lazyneuron.load.token_rows import num_positions
from lazyneuron.sites import NoSitesError, Site, find_sites

_SECONDS_BETWEEN_LINES = 20.0
_EXPLOIT_LENGTH = 64
_FORWARD_ERRORS = (RuntimeError, TypeError, IndexError, ValueError)


def loaded_on_device(command: FeedCommand, dtype: str | None) -> Loaded:
    """The command's model on its device: the one given, or a GPU if available."""
    device = command.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return load(command.model, device=device, dtype=dtype, trust_remote_code=command.trust_remote_code)


def loaded_to_exploit(command: ExploitCommand) -> tuple[Loaded, list[str]]:
    """The command's model on the CPU, with the selection it was saved with in force, and sentences for the user."""
    loaded = load(command.model, device="cpu", dtype=command.dtype, trust_remote_code=command.trust_remote_code)
    notes = list(loaded.notes)
    if getattr(getattr(loaded.model, "config", None), "lazyneuron", None):
        restore(loaded.model)
        notes = [note for note in notes if "loaded dense" not in note]
        notes.append("the selection that the model was saved with is in force")
    return loaded, notes


def exploit_batches(loaded: Loaded, command: ExploitCommand, batch_size: int, **data: Any) -> tuple[Any, str]:
    """Batches of the command's data, in short windows of text, and what they are."""
    length = command.length
    if length is None and loaded.kind == "text":
        length = min(_EXPLOIT_LENGTH, num_positions(loaded.model) or _EXPLOIT_LENGTH)
    return batches(loaded, text=command.text, batch_size=batch_size, length=length, **data)


def sites_of(loaded: Loaded, first: Inputs, choice: str) -> list[Site]:
    """The sites of a loaded model that `choice` names; a failure of its forward pass is reported in one line."""
    try:
        return find_sites(loaded.model, first, choice)
    except NoSitesError as error:
        raise UsageError(f"{loaded.name}: {error}") from error
    except Exception as error:
        if isinstance(error, ValueError) and choice != "auto":
            raise UsageError(str(error)) from error
        raise _failed(loaded, error) from error


@contextmanager
def explained_failures(loaded: Loaded, kinds: tuple[type[Exception], ...] = _FORWARD_ERRORS) -> Iterator[None]:
    """Report a failure of the model's own forward pass in one line."""
    try:
        yield
    except LazyneuronError:
        raise
    except kinds as error:
        raise _failed(loaded, error) from error


def _failed(loaded: Loaded, error: Exception) -> LazyneuronError:
    first = str(error).strip().splitlines() or [""]
    what = "; ".join([f"{type(error).__name__}: {first[0]}", *getattr(error, "__notes__", ())])
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in what:
        return LazyneuronError(f"{loaded.name} and its batch do not fit in memory ({what}): use a smaller --batch")
    return LazyneuronError(f"the forward pass of {loaded.name} fails on its data ({what})")


def config_of(command: FeedCommand, loaded: Loaded, data: str, first: Inputs, sites: list[Site]) -> dict[str, Any]:
    """What a result folder is resumed with: the model, its data, and how they are run."""
    names = ("name", "activation", "is_gated", "d_model", "d_ff")
    parameter = next(loaded.model.parameters())
    return {
        "name": command.name(),
        "model": command.model,
        "title": short_name(command.model),
        "kind": loaded.kind,
        "data": data,
        "tokens": command.tokens,
        "batch_size": command.batch,
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "command": command.command,
        "sites": [{name: getattr(site, name) for name in names} for site in sites],
        "fingerprint": _fingerprint(loaded, first),
    }


def _fingerprint(loaded: Loaded, first: Inputs) -> str:
    """Distinguishes this model and data from others of the same name: a hash of every weight and the first batch."""
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


@contextmanager
def progress(console: Console, doing: str, unit: str, total: int) -> Iterator[Callable[..., None]]:
    """`report(done, note="")` moves a bar in a terminal; elsewhere it prints a line at most every 20 seconds."""
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=24))
    count = TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit)
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    printed = time.monotonic()

    def report(done: int, note: str = "") -> None:
        nonlocal printed
        bar.update(task, completed=min(done, total), description=doing + note)
        if not console.is_terminal and time.monotonic() - printed > _SECONDS_BETWEEN_LINES and done < total:
            printed = time.monotonic()
            console.print(f"{doing}{note}: {done:,}/{total:,} {unit}", highlight=False, soft_wrap=True)

    with Progress(*columns, count, *times, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=total)
        yield report
