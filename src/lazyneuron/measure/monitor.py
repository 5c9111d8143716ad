"""Measure density while training, every so many optimizer steps, as records and in trackers."""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from lazyneuron.errors import UsageError
from lazyneuron.measure.probe import Probe
from lazyneuron.measure.probe_records import firing_records
from lazyneuron.measure.trackers import Trackers
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Source, device_name
from lazyneuron.sites import SiteChoice, numbered, unwrap

if TYPE_CHECKING:
    from accelerate import Accelerator


class Monitor:
    """Records every site's activity at each `every`-th optimizer step, in a folder that `lazyneuron report` reads.

    These are density, active neurons per token, neurons that never or rarely fired, and the share of the neurons that
    makes up 90 and 99 % of the activity, all over the tokens of that step.

    `step` counts the training forward passes inside it. Between measured steps it does nothing, and the model has no
    hooks. Unless `sites` is a list, the first measured pass also finds the sites, once.

    Steps count optimizer steps from the start of training; 0 is the untrained model. A run resumes at the first step
    that a monitor sees: records of that step and later steps, left by a crashed run, move to `replaced.jsonl`. `recipe`
    and `seed` name the run in its records.

    Under `torch.distributed` every rank makes the same steps; counts are added up, and only rank 0 writes. A model
    sharded by FSDP (`fully_shard`) needs `sites`, from `find_sites` before sharding.

    `trackers` is a list with "tensorboard" (in the folder), "trackio" and "wandb" (in the active run, or else in a run
    with the folder's name in project "lazyneuron"), or an `Accelerator` after `init_trackers`. They get
    `density/layer.0` (or `density/encoder.0`) and so on, and `density/mean`.

    A compiled model is recompiled twice per measured step: choose a large `every`.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: str | Path,
        *,
        every: int = 100,
        recipe: str = "train",
        seed: int = 0,
        sites: SiteChoice = None,
        trackers: "Sequence[str] | Accelerator" = (),
    ) -> None:
        if every < 1:
            raise UsageError(f"every must be 1 step or more; got {every}")
        if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
            raise UsageError("DataParallel runs its replicas in threads, which cannot be counted: use torchrun and DDP")
        if every < 100 and _is_compiled(model):
            warnings.warn(f"the model is recompiled twice in {every} steps: raise `every`", stacklevel=2)
        self.every, self.density = every, dict[str, float]()
        self._model, self._path, self._sites = model, Path(folder), sites
        self._name = type(unwrap(model)).__name__.removeprefix("FSDP")
        self._config = {"kind": "monitor", "name": recipe, "model": self._name, "seed": seed}
        self._trackers = Trackers(trackers, self._path)
        self._folder = RunFolder(self._path, self._config) if _is_first_rank() else None
        self._source: Source | None = None
        self._probe: Probe | None = None
        self._step: int | None = None
        self._recorded: int | None = None

    def step(self, step: int, *, is_last: bool = True) -> AbstractContextManager[None]:
        """Count the training passes inside `with` and record them at its end, if `step` is a measured step.

        Passes without gradients (evaluation, generation) do not count. With gradient accumulation, put either the whole
        optimizer step inside, or each micro-batch, with `is_last=False` for all but the last of a step. An exception
        inside leaves no hook on the model and no record.
        """
        if self._step is None:
            self._resume_at(step)
        elif step < self._step:
            raise UsageError(
                f"step {step} came after step {self._step}: count optimizer steps over the whole training, not per "
                "epoch; after returning to a checkpoint make a new Monitor"
            )
        if step != self._step:
            self.flush()
        self._step = step
        if step % self.every:
            return contextlib.nullcontext()
        if step == self._recorded:
            raise UsageError(
                f"step {step} is already recorded: with gradient accumulation pass is_last=False for all but the last "
                "micro-batch of a step"
            )
        return self._counting(is_last)

    def flush(self) -> None:
        """Record the counts of the last measured step, unless its `is_last` has done so."""
        if self._probe is not None and self._step is not None:
            self._recorded = self._step
            probe, self._probe = self._probe, None
            self._record(probe, self._recorded)

    def close(self) -> None:
        """Finish the trackers that this monitor opened, and drop the counts of an unfinished step."""
        self._probe = None
        self._trackers.finish()

    @contextlib.contextmanager
    def _counting(self, is_last: bool) -> Iterator[None]:
        self._probe = probe = self._probe or Probe(self._model, self._sites, needs_grad=True)
        try:
            with probe:
                yield
        except BaseException:
            self._probe = None
            raise
        if is_last:
            self.flush()

    def _record(self, probe: Probe, step: int) -> None:
        try:
            self._sites = sites = probe.sites
        except RuntimeError:
            self._nothing_seen(step)
            return
        probe.all_reduce()
        tokens, density = probe.num_tokens, probe.density
        self.density = {name: density[name] for name in density if tokens[name]}
        if not self.density:
            self._nothing_seen(step)
            return
        if self._folder is None:
            return
        if self._source is None:
            device = next(self._model.parameters()).device
            self._source = Source.here(device_name(device), torch.get_num_threads())
        parent: dict[str, Any] = {"recipe": self._config["name"], "seed": self._config["seed"], "source": self._source}
        self._folder.append(firing_records(probe, **parent, split="train", step=step))
        curves = {"density/mean": sum(self.density.values()) / len(self.density)}
        for stack, layer, site in numbered(sites):
            if tokens[site.name]:
                curves[f"density/{stack or 'layer'}.{layer}"] = density[site.name]
        self._trackers.log(curves, step)

    def _nothing_seen(self, step: int) -> None:
        if not self.density:
            raise UsageError(
                f"step {step}: nothing was counted, because {self._name} itself was not called with gradients; give "
                "Monitor the module that the training loop calls"
            )

    def _resume_at(self, step: int) -> None:
        if not _is_first_rank():
            self._folder = None
            return
        folder = self._folder = self._folder or RunFolder(self._path, self._config)
        path = folder.path / "records.jsonl"
        kept = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            if _step_of(line) >= step:
                with (folder.path / "replaced.jsonl").open("ab") as file:
                    file.write(path.read_bytes()[kept:])
                folder.truncate_records(kept)
                break
            kept += len(line)
        folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} step {step}: start")


def _step_of(line: bytes) -> int:
    """The step of a record's line; -1 for a line without a step, or cut short by a crash."""
    try:
        return json.loads(line).get("step", -1)
    except ValueError:
        return -1


def _is_first_rank() -> bool:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def _is_compiled(model: nn.Module) -> bool:
    return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
