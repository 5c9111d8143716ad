"""The work of `lazyneuron advise`: measure what exploiting a model would gain, and record it."""

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from rich.console import Console

from lazyneuron.cli.advise import Advise
from lazyneuron.cli.loading import explained_failures, exploit_batches, loaded_to_exploit, sites_of
from lazyneuron.exploit.advice import Advice
from lazyneuron.exploit.advice_records import advice_records
from lazyneuron.exploit.advise import advise
from lazyneuron.load.models import short_name
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Source, device_name


@dataclass(frozen=True)
class Advised:
    """The advice, the folder of its records, and sentences for the user."""

    advice: Advice
    folder: Path
    notes: list[str]


def advise_on(command: Advise, console: Console) -> Advised:
    """Load the model, run it over its data and advise; records and `advice.json` go to the folder.

    Raises UsageError as `load` and `batches` do.
    """
    folder = RunFolder(command.folder, {"name": "advise", "model": command.model})
    sizes = command.batch_sizes
    with console.status(f"loading {command.model}") as status:
        loaded, notes = loaded_to_exploit(command)
        data, about = exploit_batches(loaded, command, max(sizes), images=command.images)
        first = next(data)
        sites = sites_of(loaded, first, command.sites)
        notes.append(f"data: {about}")

        def report(what: str) -> None:
            status.update(f"{short_name(command.model)}: {what}")
            if not console.is_terminal:
                console.print(what, highlight=False)

        with explained_failures(loaded):
            advice = advise(
                loaded.model,
                chain([first], data),
                sites,
                batch_sizes=sizes,
                num_tokens=command.tokens,
                head=command.head,
                projections=command.projections,
                on_progress=report,
            )
    timed = {speed.num_rows for speed in advice.speeds}
    if timed and (missing := [str(size) for size in sizes if size not in timed]):
        notes.append(f"the data have too few rows: the model was not timed at {', '.join(missing)} rows")
    source = Source.here(device_name(torch.device("cpu")), torch.get_num_threads())
    folder.truncate_records(0)
    folder.append(list(advice_records(advice, source)))
    (folder.path / "advice.json").write_text(json.dumps(advice.to_dict(), indent=1) + "\n")
    return Advised(advice, folder.path, notes)
