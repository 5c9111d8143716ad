"""Fine-tune a model with its selections in force, with labels, by distillation from its original, or both."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lazyneuron.enforce.enforce import hooks_in_force, set_step
from lazyneuron.enforce.selection import Anneal
from lazyneuron.errors import UsageError
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source
from lazyneuron.sites import Site
from lazyneuron.training.evaluation import Answer, Batch, Evaluation, answer
from lazyneuron.training.loop import Loop, learning_rate_at
from lazyneuron.training.weight_decay import decay_groups

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
        warmup_steps = max(1, round(_WARMUP_SHARE * self.num_steps))
        how: dict[str, Any] = {"num_steps": self.num_steps, "warmup_steps": warmup_steps, "schedule": "linear"}
        return learning_rate_at(step, peak=self.learning_rate, **how)


def objective(batch: Batch, found: Answer, original: Answer | None, distill: float) -> tuple[Tensor, Tensor]:
    """The loss to minimise, as defined in `Finetuning`, and the loss to report: means over the scored places.

    With labels the cross-entropy is reported, without them the distance from the original before its weight. Both are
    zero if no place is scored. UsageError where there are neither labels nor an original.
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
        raise UsageError("the data have no labels for this model: distil from the original with --distill 1")
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
    batches: Callable[[int], Iterator[Batch]],
    how: Finetuning,
    folder: RunFolder,
    *,
    sites: Sequence[Site] = (),
    original: nn.Module | None = None,
    source: Source | None = None,
    case: str = "finetuning",
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train `model` in place, from the newest checkpoint of this `case` in `folder` if any, and leave it in eval mode.

    `batches(step)` gives the batches from that step on; `original` is the teacher where `how.distill` is not zero.
    Each `Anneal` in force advances with the steps. Records, with split "train" and this `case`: every `log_every` steps
    the mean loss, and the density of each of `sites`, kept and natural, on that step's batch after the step. `report`
    is called after each step. Stops, resumes and refuses a loss that is not finite as `Loop` does.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = decay_groups(trained, how.weight_decay)
    is_annealed = any(isinstance(hook.selection, Anneal) for hook in hooks_in_force(model).values())
    parent: dict[str, Any] = {"recipe": "enforce", "seed": how.seed, "source": source, "case": case, "split": "train"}

    def loss_of(batch: Batch) -> tuple[Tensor, Tensor]:
        theirs = None
        if how.distill and original is not None:
            with torch.no_grad():
                theirs = answer(original, batch.inputs)
        return objective(batch, answer(model, batch.inputs), theirs, how.distill)

    def record(step: int, loss: float, batch: Batch) -> None:
        place: dict[str, Any] = parent | {"step": step}
        records = [Record(what="loss", value=loss, unit="nats", **place)]
        if sites:
            evaluation = Evaluation(model, sites, has_natural=True)
            evaluation.answer(batch)  # in eval mode: dropout would add zeros to the natural density
            records += evaluation.density_records(place)
            model.train()
        folder.append(records)

    try:
        Loop(
            name=case,
            model=model,
            optimizer=torch.optim.AdamW(groups, lr=how.learning_rate),
            batches=batches,
            loss_of=loss_of,
            folder=folder,
            num_steps=how.num_steps,
            learning_rate=how.learning_rate_at,
            seed=how.seed,
            clip_norm=how.clip_norm,
            log_every=how.log_every,
            num_checkpoints=1,
            case=case,
            at_step=lambda step: set_step(model, step) if is_annealed else None,
            on_loss=report,
            on_log=record,
        ).run()
    finally:
        model.eval()
