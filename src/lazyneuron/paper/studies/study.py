"""One study in its folder: from its beginning to its end, for each takes minutes at most."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lazyneuron.paper.progress import Progress
from lazyneuron.paper.runs import Firing, Latency, Robustness, Skipping, Statistical, Study
from lazyneuron.paper.studies.firing import firing
from lazyneuron.paper.studies.latency import latency
from lazyneuron.paper.studies.robustness import robustness
from lazyneuron.paper.studies.skipping import skipping
from lazyneuron.paper.studies.statistical import statistical
from lazyneuron.paper.studies.trained import Trained, load_trained
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name

Parts = Iterator[tuple[int, int, list[Record]]]
"""How many parts are done and how many there are, with the records of the last."""


def study(
    run: Study | Latency,
    folder: RunFolder,
    cache: Path,
    *,
    seed: int,
    device: str | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Write the records of a study to `folder`; an unfinished one begins again, a done one is left alone.

    The models that it reads are those of the folders beside it; UsageError if one is not there. They run on a GPU
    where there is one, unless `device` is "cpu"; latency and skipping are about the CPU.
    """
    if folder.is_done():
        return
    if run.num_threads:
        torch.set_num_threads(run.num_threads)
    folder.truncate_records(0)
    began = time.monotonic()
    on_gpu = device != "cpu" and torch.cuda.is_available() and not isinstance(run, Latency | Skipping)
    where = torch.device("cuda" if on_gpu else "cpu")
    source = Source.here(device_name(where), torch.get_num_threads())
    place: dict[str, Any] = {"recipe": run.name, "seed": seed, "source": source}
    folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} start")
    for done, count, records in _parts(run, folder, cache, seed, where, place):
        folder.append(records)
        report(Progress(run.name, done, count))
    folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} done after {time.monotonic() - began:.1f} s")
    folder.mark_done()


def _parts(
    run: Study | Latency, folder: RunFolder, cache: Path, seed: int, device: torch.device, place: dict[str, Any]
) -> Parts:
    if isinstance(run, Latency):
        return latency(run, seed, place)
    models: list[Trained] = [load_trained(training, folder.path.parent, seed, cache, device) for training in run.of]
    if isinstance(run, Firing):
        return firing(run, models, place)
    if isinstance(run, Robustness):
        return robustness(run, models, seed, place)
    if isinstance(run, Statistical):
        return statistical(run, models, seed, place)
    assert isinstance(run, Skipping)
    return skipping(run, models, place)
