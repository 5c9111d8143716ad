"""Measure while training: density at every so many optimizer steps, as records and in trackers."""

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
from torch import Tensor, nn

from lazyneuron.errors import UsageError
from lazyneuron.maps.attach import eager
from lazyneuron.measure.probe import Probe, watch
from lazyneuron.measure.trackers import Trackers
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import SiteChoice, is_tracing, numbered, unwrap

if TYPE_CHECKING:
    from accelerate import Accelerator


class Monitor:
    """Records the density of every site at each `every`-th optimizer step, in a folder `lazyneuron report` reads.

    `step` counts the training forward passes inside it. Between measured steps it does nothing, and no hook is on the
    model. The first measured pass also finds the sites, unless `sites` gives them, and they are kept.

    Steps count optimizer steps from the start of training (0 is the untrained model), as in our own runs. The first one
    that a monitor sees is where the run goes on: records of that step and later, left by a run that crashed, move to
    `replaced.jsonl`. `recipe` and `seed` name the run in its records.

    Under `torch.distributed` every rank makes the same steps; counts are summed, and rank 0 alone writes. A model of
    FSDP (`fully_shard`) needs `sites`, from `find_sites` before it was sharded.

    `trackers` are any of "tensorboard" (in the folder), "trackio" and "wandb" (in the active run, or else a run of that
    folder's name in project "lazyneuron"), or an `Accelerator` after `init_trackers`. They get `density/layer.0` (or
    `density/encoder.0`) and so on, and `density/mean`.

    A compiled model is compiled anew twice per measured step: give it a large `every`.
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
            raise UsageError("DataParallel runs its copies in threads, which cannot be counted: use torchrun and DDP")
        if every < 100 and _is_compiled(model):
            warnings.warn(f"the model is compiled anew twice in {every} steps: raise `every`", stacklevel=2)
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
        """Count the training passes inside `with`, and record them at its end, if `step` is one to measure.

        Passes without gradients (evaluation, generation) do not count. With gradient accumulation either the whole
        optimizer step stands inside, or each micro-batch alone, with `is_last` false for all but the last of a step.
        An exception inside leaves no hook on the model and no record.
        """
        if self._step is None:
            self._go_on_from(step)
        elif step < self._step:
            raise UsageError(
                f"step {step} came after step {self._step}: count optimizer steps over the whole training, not over "
                "an epoch; after going back to a checkpoint make a new Monitor"
            )
        if step != self._step:
            self.flush()
        self._step = step
        if step % self.every:
            return contextlib.nullcontext()
        if step == self._recorded:
            raise UsageError(
                f"step {step} is recorded already: with gradient accumulation give is_last=False for all but the last "
                "micro-batch of a step"
            )
        return self._counting(is_last)

    def flush(self) -> None:
        """Record what the last measured step has counted; nothing to do after `is_last`."""
        if self._probe is not None and self._step is not None:
            self._recorded = self._step
            probe, self._probe = self._probe, None
            self._record(probe, self._recorded)

    def close(self) -> None:
        """Finish the trackers that this monitor opened, and forget a step that has not come to its end."""
        self._probe = None
        self._trackers.finish()

    @contextlib.contextmanager
    def _counting(self, is_last: bool) -> Iterator[None]:
        self._probe = probe = self._probe or watch(self._model, self._sites)
        try:
            with _training_passes_only(self._model, probe), probe:
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
        _sum_over_ranks(probe)
        tokens, active, density = probe.num_tokens, probe.num_active, probe.density
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
        records, curves = [], {"density/mean": sum(self.density.values()) / len(self.density)}
        for stack, layer, site in numbered(sites):
            if not tokens[site.name]:
                continue
            place: dict[str, Any] = {"stack": stack, "layer": layer, "site": site.name, "split": "train", "step": step}
            here = {"num_tokens": tokens[site.name], **place, **parent}
            records.append(Record(what="density", value=density[site.name], unit="fraction", **here))
            records.append(Record(what="num_active", value=active[site.name], unit="neurons/token", **here))
            curves[f"density/{stack or 'layer'}.{layer}"] = density[site.name]
        self._folder.append(records)
        self._trackers.log(curves, step)

    def _nothing_seen(self, step: int) -> None:
        if not self.density:
            raise UsageError(
                f"step {step}: {self._name} itself was not called with gradients, so nothing was "
                "counted: give Monitor the module that the training loop calls"
            )

    def _go_on_from(self, step: int) -> None:
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
    """The step of a record's line; -1 for a line without one, such as one that a crash cut short."""
    try:
        return json.loads(line).get("step", -1)
    except ValueError:
        return -1


@contextlib.contextmanager
def _training_passes_only(model: nn.Module, probe: Probe) -> Iterator[None]:
    """While open, calls of `model` without gradients leave the counts of `probe` as they were."""
    before: list[dict[str, Tensor] | None] = []  # one for each call under way; None where the call counts

    def on_call(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not is_tracing():
            before.append(None if torch.is_grad_enabled() else _copy_of_counts(probe))

    def on_return(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if is_tracing() or not before:  # another hook failed before ours was told of the call
            return
        if (counts := before.pop()) is not None:
            with contextlib.suppress(RuntimeError):  # the call failed before it told the sites
                for name, count in probe.state().items():
                    count.copy_(counts[name]) if name in counts else count.zero_()

    handles = [
        model.register_forward_pre_hook(eager(on_call)),
        model.register_forward_hook(eager(on_return), always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copy_of_counts(probe: Probe) -> dict[str, Tensor]:
    try:
        return {name: count.clone() for name, count in probe.state().items()}
    except RuntimeError:  # this call finds the sites
        return {}


def _sum_over_ranks(probe: Probe) -> None:
    """Give every rank's probe the counts of all ranks together."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    # By name: where experts ran in another order, the ranks found the sites in another order.
    state = dict(sorted(probe.state().items()))
    shapes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shapes, [(name, tuple(count.shape)) for name, count in state.items()])
    if any(other != shapes[0] for other in shapes):
        raise UsageError(
            "the ranks hold different sites, whose counts cannot be summed: give Monitor the same `sites` on all ranks"
        )
    device = next((count.device for count in state.values() if count.device.type != "cpu"), torch.device("cpu"))
    if device.type == "cpu" and dist.get_backend() == "nccl":
        device = torch.device("cuda", torch.cuda.current_device())
    flat = torch.cat([count.flatten().to(device) for count in state.values()])
    dist.all_reduce(flat)
    for count, summed in zip(state.values(), flat.split([c.numel() for c in state.values()]), strict=True):
        count.copy_(summed.view_as(count))


def _is_first_rank() -> bool:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def _is_compiled(model: nn.Module) -> bool:
    return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
