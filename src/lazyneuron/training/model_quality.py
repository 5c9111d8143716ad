"""How good a model is, and how near to its original: sums over scored positions, in float64, padding left out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lazyneuron.enforce.enforce import enforce
from lazyneuron.errors import UsageError
from lazyneuron.load.models import forward_arguments
from lazyneuron.measure import Probe, watch
from lazyneuron.sites import Site

IGNORED = -100
_ENTRIES_AT_ONCE = 1 << 22
_SUMS = ("num_scored", "nats", "hits", "agreements", "kl", "cosine", "is_labelled", "has_logits")


@dataclass(frozen=True)
class Scored:
    """Inputs of one forward pass, and `labels`: for each place of the logits what is right, or IGNORED; None: unknown.

    Labels are int64 of the logits' shape without its last axis: [B, S] for language models, [B] for classifiers.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None = None

    def is_scored(self, answer: "Answer") -> Tensor:
        """Which places count, bool: those with a label; without labels the tokens that are no padding, or all."""
        shape = answer.values.shape[:-1]
        if self.labels is not None:
            if self.labels.shape != shape:
                what = f"its answer has shape {tuple(answer.values.shape)}, the labels {tuple(self.labels.shape)}"
                raise UsageError(f"the model is no language model or classifier of these data: {what}")
            return self.labels != IGNORED
        mask = self.inputs.get("attention_mask")
        if mask is not None and mask.shape == shape:
            return mask != 0
        return torch.ones(shape, dtype=torch.bool, device=answer.values.device)


class Answer(NamedTuple):
    """What a model says: logits [..., V], or the hidden states [..., D] of one without a head."""

    values: Tensor
    is_logits: bool


def answer(model: nn.Module, inputs: dict[str, Tensor]) -> Answer:
    """The model's logits, or else its last hidden states; UsageError where it gives neither."""
    extra: dict[str, Any] = {"use_cache": False} if "use_cache" in forward_arguments(model) else {}
    output = model(**inputs, **{name: value for name, value in extra.items() if name not in inputs})
    for name in ("logits", "last_hidden_state"):
        values = getattr(output, name, None)
        if isinstance(values, Tensor) and values.dim() in (2, 3):
            return Answer(values, name == "logits")
    mend = "give a language model, an image classifier, or one without a head"
    raise UsageError(f"{type(model).__name__} gives neither logits nor hidden states to judge it by: {mend}")


@dataclass(frozen=True)
class Quality:
    """Means over the scored places; None where the data or the model do not tell.

    `loss` is the cross-entropy with the labels and `kl` is KL(original || model), both in nats; `accuracy` is how often
    the first choice is the label, `agreement` how often it is the original's first choice. A model without a head has
    `cosine` alone: of its hidden states with the original's.
    """

    num_scored: int
    loss: float | None = None
    accuracy: float | None = None
    agreement: float | None = None
    kl: float | None = None
    cosine: float | None = None

    @property
    def perplexity(self) -> float | None:
        """The exponential of the loss; inf where that is too large for a number."""
        if self.loss is None:
            return None
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf


class Tally:
    """Sums of a model's quality over batches; `sums` is all of its state."""

    def __init__(self) -> None:
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64)

    @torch.no_grad()
    def add(self, batch: Scored, found: Answer, original: Answer) -> None:
        """Add what a model and its original said to a batch, in pieces whose float64 copies are small."""
        places = batch.is_scored(found).flatten().nonzero().squeeze(-1)
        ours, theirs = found.values.flatten(0, -2), original.values.flatten(0, -2)
        labels = None if batch.labels is None else batch.labels.flatten()
        counts = dict.fromkeys(_SUMS, 0.0)
        counts |= {"num_scored": len(places), "is_labelled": labels is not None, "has_logits": found.is_logits}
        for some in places.split(max(1, _ENTRIES_AT_ONCE // ours.shape[-1])):
            a, b = ours[some].double(), theirs[some].double()
            if not found.is_logits:
                counts["cosine"] += torch.cosine_similarity(a, b, dim=-1).sum().item()
                continue
            log_q, log_p = a.log_softmax(-1), b.log_softmax(-1)
            per_entry = log_p.exp() * (log_p - log_q)
            counts["kl"] += per_entry.masked_fill_(log_p == -math.inf, 0).sum().item()
            first = a.argmax(-1)
            counts["agreements"] += (first == b.argmax(-1)).sum().item()
            if labels is not None:
                counts["nats"] -= log_q.gather(-1, labels[some, None]).sum().item()
                counts["hits"] += (first == labels[some]).sum().item()
        self.sums += torch.tensor(list(counts.values()), dtype=torch.float64)

    @property
    def quality(self) -> Quality:
        """The means so far; all None before anything was scored."""
        found = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        count = int(found["num_scored"])
        if not count:
            return Quality(0)
        if not found["has_logits"]:
            return Quality(count, cosine=found["cosine"] / count)
        is_labelled = found["is_labelled"] > 0
        return Quality(
            count,
            loss=found["nats"] / count if is_labelled else None,
            accuracy=found["hits"] / count if is_labelled else None,
            agreement=found["agreements"] / count,
            kl=found["kl"] / count,
        )


class Evaluation:
    """A model at several densities beside its original, on the same batches: quality, and density as measured.

    `specs` are what `enforced` returned, or as it would, by density. Each batch runs once in the original and once for
    each density, so none of their logits is kept. Afterwards the last of `specs` is in force. Results are under the
    key of `specs`, a density or another name, and under None those of the original itself, `reference`.
    """

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module,
        sites: Sequence[Site],
        specs: Mapping[float | str, dict[str, Any]],
    ) -> None:
        self._model, self._reference, self._specs = model, reference, specs
        keys: list[float | str | None] = [None, *specs]
        self.tallies = {key: Tally() for key in keys}
        self.kept: dict[float | str | None, Probe] = {None: watch(reference, sites)}
        self.kept |= {key: watch(model, sites) for key in specs}
        self.natural: dict[float | str | None, Probe] = {
            key: watch(model, sites, before_selection=True) for key in specs
        }

    @torch.no_grad()
    def add(self, batch: Scored) -> None:
        """Run one batch through the original and through each density."""
        self._reference.eval()
        self._model.eval()
        with self.kept[None]:
            original = answer(self._reference, batch.inputs)
        self.tallies[None].add(batch, original, original)
        for key, spec in self._specs.items():
            enforce(self._model, spec)
            with self.natural[key], self.kept[key]:
                found = answer(self._model, batch.inputs)
            self.tallies[key].add(batch, found, original)

    def state(self) -> dict[str, Any]:
        """All sums and counts, for `load_state`."""
        return {
            "sums": [tally.sums for tally in self.tallies.values()],
            "kept": [probe.state() for probe in self.kept.values()],
            "natural": [probe.state() for probe in self.natural.values()],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from the `state()` of an evaluation of the same model and densities."""
        for tally, sums in zip(self.tallies.values(), state["sums"], strict=True):
            tally.sums = sums
        for name, probes in (("kept", self.kept), ("natural", self.natural)):
            for probe, counts in zip(probes.values(), state[name], strict=True):
                probe.load_state(counts)
