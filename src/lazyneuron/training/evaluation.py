"""Batches through a model in eval mode: its quality, its agreement with the original, and its densities."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from lazyneuron.errors import UsageError
from lazyneuron.load.models import forward_arguments
from lazyneuron.measure import Probe, watch
from lazyneuron.records.record import Record
from lazyneuron.sites import Site, numbered
from lazyneuron.training.quality import IGNORED, Agreement, Quality
from lazyneuron.training.sharding import num_processes, process_number


class Answer(NamedTuple):
    """A model's logits [..., V], or the hidden states [..., D] of a model without a head."""

    values: Tensor
    is_logits: bool


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass, and `labels`: the right class at each place of the logits, or IGNORED; None: unknown.

    Labels are int64 of the logits' shape without its last axis: [B, S] for language models, [B] for classifiers.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None = None

    def is_scored(self, answer: Answer) -> Tensor:
        """Which places count, bool: those with a label; without labels all tokens except padding."""
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

    def rows(self, rows: slice, device: torch.device) -> "Batch":
        """Some of the rows, on a device."""
        inputs = {name: value[rows].to(device) for name, value in self.inputs.items()}
        return Batch(inputs, None if self.labels is None else self.labels[rows].to(device))


def answer(model: nn.Module, inputs: dict[str, Tensor]) -> Answer:
    """The model's logits, or else its last hidden states; UsageError where it gives neither."""
    extra: dict[str, Any] = {"use_cache": False} if "use_cache" in forward_arguments(model) else {}
    output = model(**inputs, **{name: value for name, value in extra.items() if name not in inputs})
    if isinstance(output, Tensor):
        return Answer(output, True)
    for name in ("logits", "last_hidden_state"):
        values = getattr(output, name, None)
        if isinstance(values, Tensor) and values.dim() in (2, 3):
            return Answer(values, name == "logits")
    fix = "give a language model, an image classifier, or one without a head"
    raise UsageError(f"{type(model).__name__} gives neither logits nor hidden states to judge it by: {fix}")


class Observer(Protocol):
    """Sees what a model computes while it is open, and adds up what all processes of torch.distributed saw."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...

    def all_reduce(self) -> None: ...


class Evaluation:
    """Quality and densities of one model in eval mode, summed over batches.

    `kept` counts the maps as the down projections see them and `natural`, if asked for, as they are before the
    selection in force; `statistics` are those of `watch`. `agreement` compares with the answers of an original model.
    `observers` are open while the model answers, and `run` adds up what those of all processes saw.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[Site] = (),
        *,
        statistics: Sequence[str] = (),
        has_natural: bool = False,
        quality: Quality | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._model, self.sites = model, list(sites)
        self.quality, self.agreement = quality or Quality(adaptive=False), Agreement()
        self.natural = watch(model, self.sites, before_selection=True) if has_natural else None
        self.kept = watch(model, self.sites, statistics)
        self._probes = [self.kept] if self.natural is None else [self.natural, self.kept]
        self._observers: list[Observer] = [*self._probes, *observers] if self.sites else []

    @torch.no_grad()
    def answer(self, batch: Batch) -> Answer:
        """The model's answer, its densities counted; the model is left in eval mode."""
        with self._observed():
            return answer(self._model, batch.inputs)

    @contextmanager
    def _observed(self) -> Iterator[None]:
        self._model.eval()
        with ExitStack() as stack:
            for observer in self._observers:
                stack.enter_context(observer)
            yield

    @torch.no_grad()
    def add(self, batch: Batch, original: Answer | None = None) -> Answer:
        """Add one batch, compared with the original's answer to it if given, and return the model's answer."""
        found = self.answer(batch)
        self.count(batch, found, original)
        return found

    def count(self, batch: Batch, found: Answer, original: Answer | None = None) -> None:
        """Add to the quality sums what the model answered to a batch."""
        places = batch.is_scored(found).flatten()
        rows = found.values.flatten(0, -2)
        if batch.labels is not None and found.is_logits:
            self.quality.update(rows, batch.labels.flatten())
        if original is not None:
            self.agreement.update(rows[places], original.values.flatten(0, -2)[places], is_logits=found.is_logits)

    @torch.no_grad()
    def run(self, batches: Iterable[Batch], *, is_shared: bool = False) -> Self:
        """Add batches, moved to the model's device.

        With `is_shared` the processes of torch.distributed share the rows of each batch, and all end with the sums of
        all. A process without rows joins in uncounted: sharded weights need all processes in every forward pass.
        """
        number, count = (process_number(), num_processes()) if is_shared else (0, 1)
        device = next(self._model.parameters()).device
        if count == 1:  # hooks cost as much as a small batch: once for all
            with self._observed():
                for batch in batches:
                    mine = batch.rows(slice(None), device)
                    self.count(mine, answer(self._model, mine.inputs))
            return self
        for batch in batches:
            mine = batch.rows(slice(number, None, count), device)
            if len(next(iter(mine.inputs.values()))):
                self.add(mine)
            else:
                Evaluation(self._model).answer(batch.rows(slice(1), device))
        self.quality.all_reduce()
        for observer in self._observers:
            observer.all_reduce()
        return self

    @property
    def num_scored(self) -> int:
        """Predictions or hidden states that were scored."""
        return self.agreement.count or self.quality.count

    @property
    def means(self) -> dict[str, float]:
        """Loss, perplexity and accuracy where there were labels, and the agreement with the original where given."""
        labelled = ("loss", "perplexity", "accuracy") if self.quality.count else ()
        return {name: getattr(self.quality, name) for name in labelled} | self.agreement.means

    def density_records(self, place: dict[str, Any]) -> Iterator[Record]:
        """Density of each site, kept and then natural."""
        yield from site_records(self.kept, {"density": (self.kept.density, "fraction")}, place)
        if self.natural is not None:
            yield from site_records(self.natural, {"natural_density": (self.natural.density, "fraction")}, place)

    def state(self) -> dict[str, Any]:
        """All sums and counts, for `load_state`."""
        probes = [probe.state() for probe in self._probes]
        return {"quality": self.quality.state(), "agreement": self.agreement.sums, "probes": probes}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from the `state()` of an evaluation of the same model and settings."""
        self.quality.load_state(state["quality"])
        self.agreement.sums = state["agreement"]
        for probe, counts in zip(self._probes, state["probes"], strict=True):
            probe.load_state(counts)


def site_records(
    probe: Probe, numbers: Mapping[str, tuple[Mapping[str, float], str]], place: dict[str, Any]
) -> Iterator[Record]:
    """Site after site, a record of each of `numbers`: what it is, its value by site, and its unit."""
    tokens = probe.num_tokens
    for stack, layer, site in numbered(probe.sites):
        if tokens[site.name]:
            here = {"stack": stack, "layer": layer, "site": site.name, "num_tokens": tokens[site.name], **place}
            for what, (values, unit) in numbers.items():
                yield Record(what=what, value=values[site.name], unit=unit, **here)
