"""Studies: measurements of trained models, each in a folder of its own, in minutes at most."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lazyneuron.enforce.enforce import enforce
from lazyneuron.errors import UsageError
from lazyneuron.paper.progress import Progress
from lazyneuron.paper.runs import Report, RunSpec, Training, folder_name, run_config, silent
from lazyneuron.paper.task import Batches, build_model, forward, load_batches, sites_of
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import Site

_CPU = torch.device("cpu")
Parts = Iterator[tuple[int, int, list[Record]]]
"""How many parts are done and how many there are, with the records of the last."""


@dataclass(frozen=True)
class Trained:
    """A model as its training left it, in evaluation mode, its selection in force; its data and its MLPs."""

    run: Training
    batches: Batches
    model: nn.Module
    sites: list[Site]

    def run_batch(self, batch: dict[str, Tensor]) -> None:
        """One forward pass, for hooks to observe."""
        device = next(self.model.parameters()).device
        forward(self.model, {name: value.to(device) for name, value in batch.items()})


@dataclass(frozen=True, kw_only=True)
class Study(RunSpec):
    """A run that measures the final models of the trainings `of`, on a GPU where there is one unless `on_cpu`."""

    name: str
    of: tuple[Training, ...] = ()
    num_threads: int | None = 1
    on_cpu: ClassVar[bool] = False

    @abstractmethod
    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        """Measure part by part; every record gets the recipe, seed and source in `place`."""

    @property
    def needs(self) -> tuple[Training, ...]:
        return self.of

    def with_trainings(self, change: Callable[[Training], Training]) -> Self:
        return replace(self, of=tuple(map(change, self.of)))

    def execute(
        self, path: Path, seed: int, cache: Path, report: Report = silent, device: str = "", sharded: bool = False
    ) -> None:
        """Write the study's records; an unfinished study starts over, a finished one is left alone.

        Reads the models in the folders beside `path`; raises `UsageError` if one is missing.
        """
        folder = RunFolder(path, run_config(self, seed))
        if folder.is_done():
            return
        if self.num_threads:
            torch.set_num_threads(self.num_threads)
        folder.truncate_records(0)
        began = time.monotonic()
        on_gpu = device != "cpu" and torch.cuda.is_available() and not self.on_cpu
        where = torch.device("cuda" if on_gpu else "cpu")
        source = Source.here(device_name(where), torch.get_num_threads())
        folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} start")
        models = [load_trained(training, path.parent, seed, cache, where) for training in self.of]
        place = {"recipe": self.name, "seed": seed, "source": source}
        for done, count, records in self.measure(models, place, cache):
            folder.append(records)
            report(Progress(self.name, done, count))
        folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} done after {time.monotonic() - began:.1f} s")
        folder.mark_done()


def load_trained(run: Training, parent: Path, seed: int, cache: Path, device: torch.device = _CPU) -> Trained:
    """The model of `run` from the newest checkpoint below `parent`; UsageError if the run is not done."""
    path = parent / folder_name(run.name, seed)
    if not (path / "done").exists():
        raise UsageError(f"{path} holds no finished training: run its recipe first, in the same --out")
    state = RunFolder(path).load_checkpoint()
    if state is None:
        raise UsageError(f"{path} has no checkpoint any more: remove the folder and run again")
    batches = load_batches(run, seed, cache)
    model = build_model(batches, seed)
    example = {name: value[:1] for name, value in batches.probe("eval", 0).items() if name != "labels"}
    sites = sites_of(model, example)
    model.load_state_dict(state["model"])
    if run.selection is not None:
        enforce(model, run.selection, sites, example)
    return Trained(run, batches, model.eval().to(device), sites)
