"""The final model of a training, read back from its folder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lazyneuron.enforce.enforce import enforce
from lazyneuron.errors import UsageError
from lazyneuron.paper.runs import Training, folder_name
from lazyneuron.paper.task import Batches, build_model, forward, load_batches
from lazyneuron.records.folder import RunFolder
from lazyneuron.sites import Site, find_sites

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trained:
    """A model as its training left it, in evaluation mode, its selection in force; its data and its MLPs."""

    run: Training
    batches: Batches
    model: nn.Module
    sites: list[Site]

    def run_batch(self, batch: dict[str, Tensor]) -> None:
        """One forward pass, for what hooks see."""
        device = next(self.model.parameters()).device
        forward(self.model, {name: value.to(device) for name, value in batch.items()})


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
    sites = find_sites(model, example)
    model.load_state_dict(state["model"])
    if run.selection is not None:
        enforce(model, run.selection, sites, example)
    return Trained(run, batches, model.eval().to(device), sites)
