"""Fine-tune a model whose selections are in force: one plain loop that can be stopped and goes on bit for bit."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lazyneuron.enforce.enforce import hooks_in_force, set_step
from lazyneuron.enforce.selection import Anneal
from lazyneuron.errors import LazyneuronError, StoppedError, UsageError
from lazyneuron.measure import watch
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source
from lazyneuron.sites import Site, numbered
from lazyneuron.training.model_quality import Answer, Scored, answer
from lazyneuron.training.stop import stop_signals

_SECONDS_BETWEEN_CHECKPOINTS = 300.0
_WARMUP_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """AdamW with linear warm-up over a tenth of the steps and linear decay to zero; norms and biases do not decay.

    The loss is the cross-entropy plus `distill` times KL(original || model), both in nats; of a model without a head,
    `distill` times the squared error of the hidden states, relative to the original's energy.
    """

    num_steps: int = 200
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    distill: float = 0.0
    seed: int = 0
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("num_steps", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"the learning rate must be above 0; got {self.learning_rate}")
        if not (math.isfinite(self.distill) and self.distill >= 0):
            raise UsageError(f"the weight of distillation must be 0 or more; got {self.distill}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or more; got {self.seed}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = max(1, round(_WARMUP_SHARE * self.num_steps))
        return self.learning_rate * min(1.0, (step + 1) / warmup) * (1 - step / self.num_steps)


def objective(batch: Scored, found: Answer, original: Answer | None, distill: float) -> tuple[Tensor, Tensor]:
    """What is minimised, as `Finetuning` says, and of it the loss that is reported: means over the scored places.

    Without labels the reported loss is what the distillation minimises, before its weight. With no place scored both
    are zero. UsageError where there are neither labels nor an original.
    """
    is_scored = batch.is_scored(found)
    values = found.values[is_scored].float()
    if not len(values):
        return found.values.sum() * 0, found.values.new_zeros(())
    loss = None
    if batch.labels is not None and found.is_logits:
        loss = cross_entropy(values, batch.labels[is_scored])
        if not distill:
            return loss, loss.detach()
    if original is None or not distill:
        raise UsageError("the data have no labels for this model, so only its original can teach it: give --distill 1")
    theirs = original.values[is_scored].float()
    if found.is_logits:
        log_p = theirs.log_softmax(-1)
        from_original = (log_p.exp() * (log_p - values.log_softmax(-1))).masked_fill(log_p == -math.inf, 0).sum(-1)
        from_original = from_original.mean()
    else:
        from_original = (values - theirs).square().sum() / theirs.square().sum()
    if loss is None:
        return distill * from_original, from_original.detach()
    return loss + distill * from_original, loss.detach()


def finetune(
    model: nn.Module,
    batches: Callable[[int], Iterator[Scored]],
    how: Finetuning,
    folder: RunFolder,
    *,
    sites: Sequence[Site] = (),
    original: nn.Module | None = None,
    source: Source | None = None,
    case: str = "finetuning",
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train `model` in place, from the newest checkpoint of `folder` if there is one; it is left in eval mode.

    Each `Anneal` in force is brought to the step at hand. Checkpoints and records are those of this `case`.

    `batches(step)` gives the batches from that step on; `original` teaches where `how.distill` is not zero. Records:
    every `log_every` steps the mean loss, and each of the `sites`' density, kept and natural, on that step's batch
    after it, with split "train". `report` is called after each step. On a CPU an interrupted run comes to the same
    bits as one that was not. Raises StoppedError after SIGINT or SIGTERM, between two steps and once a checkpoint is
    written; LazyneuronError, with the step, when the loss is no longer finite.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.dim() > 1], "weight_decay": how.weight_decay},
        {"params": [weight for weight in trained if weight.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=how.learning_rate)
    start, loss_sum = _load(model, optimizer, folder, case)
    is_annealed = any(isinstance(hook.selection, Anneal) for hook in hooks_in_force(model).values())
    parent: dict[str, Any] = {"recipe": "enforce", "seed": how.seed, "source": source}
    parent |= {"case": case, "split": "train"}
    saved = time.monotonic()
    model.train()
    try:
        with stop_signals() as stops:
            # The end comes before the next batch is made: making it may take long.
            for step, batch in zip(range(start, how.num_steps), batches(start), strict=False):
                if stops:
                    break
                if is_annealed:
                    set_step(model, step)
                loss = _update(model, original, optimizer, batch, how, step)
                loss_sum += loss
                report(step + 1, loss)
                if (step + 1) % how.log_every == 0:
                    place: dict[str, Any] = {**parent, "step": step + 1}
                    records = [Record(what="loss", value=loss_sum / how.log_every, unit="nats", **place)]
                    folder.append(records + list(_densities(model, sites, batch, place) if sites else ()))
                    loss_sum = 0.0
                start = step + 1
                now = time.monotonic()
                if now - saved > _SECONDS_BETWEEN_CHECKPOINTS or start == how.num_steps:
                    saved = now
                    _save(model, optimizer, folder, start, loss_sum, case)
            if start < how.num_steps:
                if not stops:
                    raise LazyneuronError(f"the data for training ended at step {start} of {how.num_steps}: give more")
                _save(model, optimizer, folder, start, loss_sum, case)
                raise StoppedError(f"stopped at step {start} of {how.num_steps}; the same command goes on")
        if is_annealed:
            set_step(model, how.num_steps)
    finally:
        model.eval()
        optimizer.zero_grad()


def _update(
    model: nn.Module,
    original: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    batch: Scored,
    how: Finetuning,
    step: int,
) -> float:
    """One step; its loss, from before it."""
    for group in optimizer.param_groups:
        group["lr"] = how.learning_rate_at(step)
    torch.manual_seed(hash((how.seed, step)))
    theirs = None
    if how.distill and original is not None:
        with torch.no_grad():
            theirs = answer(original, batch.inputs)
    total, loss = objective(batch, answer(model, batch.inputs), theirs, how.distill)
    if not math.isfinite(float(total.detach())):
        mend = "run again with a lower --lr in another --out"
        raise LazyneuronError(f"the loss became {float(total.detach())} at step {step + 1} of {how.num_steps}: {mend}")
    optimizer.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(model.parameters(), how.clip_norm)
    optimizer.step()
    return float(loss)


@torch.no_grad()
def _densities(model: nn.Module, sites: Sequence[Site], batch: Scored, place: dict[str, Any]) -> Iterator[Record]:
    """Kept and natural density of each site on a batch, in eval mode: dropout would blur what is natural."""
    model.eval()
    with watch(model, sites, before_selection=True) as natural, watch(model, sites) as kept:
        answer(model, batch.inputs)
    model.train()
    for what, probe in (("density", kept), ("natural_density", natural)):
        values, tokens = probe.density, probe.num_tokens
        for stack, layer, site in numbered(sites):
            here = {"stack": stack, "layer": layer, "site": site.name, "num_tokens": tokens[site.name]}
            if tokens[site.name]:
                yield Record(what=what, value=values[site.name], unit="fraction", **here, **place)


def _save(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: RunFolder, step: int, loss_sum: float, case: str
) -> None:
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        mend = "run again with a lower --lr in another --out"
        raise LazyneuronError(f"a weight is no longer finite at step {step}: {mend}")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loss_sum": loss_sum}
    folder.save_checkpoint(step, state, keep=1, name=case)


def _load(model: nn.Module, optimizer: torch.optim.Optimizer, folder: RunFolder, case: str) -> tuple[int, float]:
    device = next(model.parameters()).device
    state = folder.load_checkpoint(map_location=str(device), name=case)
    if state is None:
        _forget_records(folder, case)
        return 0, 0.0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    folder.truncate_records(state["records_size"])
    return state["step"], state["loss_sum"]


def _forget_records(folder: RunFolder, case: str) -> None:
    """Drop what was recorded of steps that will be run again, for a crash came before their first checkpoint."""
    records = folder.records()
    kept = [record for record in records if record.case != case]
    if len(kept) < len(records):
        folder.truncate_records(0)
        folder.append(kept)
