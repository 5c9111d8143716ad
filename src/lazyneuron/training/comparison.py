"""A model at several densities beside its original, on held-out data: records, and checkpoints to resume from."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lazyneuron.enforce.enforce import enforce, enforced
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import LazyneuronError, StoppedError
from lazyneuron.load.models import Loaded
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record
from lazyneuron.sites import Site
from lazyneuron.training.evaluation import Batch, Evaluation
from lazyneuron.training.split_data import SplitData
from lazyneuron.training.stop import stop_signals

_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_UNITS = {"loss": "nats", "perplexity": "", "accuracy": "fraction", "agreement": "fraction", "kl": "nats"}
_UNITS |= {"cosine": "cosine"}
AS_ENFORCED = "as enforced"
Key = float | str | None
"""What is evaluated: a density at every site, AS_ENFORCED (each site's own), or None for the original."""


class Comparison:
    """A model under several selections beside its original, on the same batches.

    `specs` are selections by key, each as `enforced` returns them. A batch runs once in the original and once under
    each selection, so no logits are kept. Afterwards the last of `specs` is in force. `evaluations` has each key's
    results, and under None those of `reference`, the original.
    """

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module,
        sites: Sequence[Site],
        specs: Mapping[float | str, dict[str, Any]],
    ) -> None:
        self._model, self._specs = model, specs
        self.evaluations: dict[Key, Evaluation] = {None: Evaluation(reference, sites)}
        self.evaluations |= {key: Evaluation(model, sites, has_natural=True) for key in specs}

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        """Run one batch through the original and under each selection."""
        reference = self.evaluations[None]
        original = reference.answer(batch)
        reference.count(batch, original, original)
        for key, spec in self._specs.items():
            enforce(self._model, spec)
            self.evaluations[key].add(batch, original)

    def state(self) -> dict[str, Any]:
        """All sums and counts, for `load_state`."""
        return {"evaluations": [evaluation.state() for evaluation in self.evaluations.values()]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from the `state()` of a comparison of the same models and selections."""
        for evaluation, saved in zip(self.evaluations.values(), state["evaluations"], strict=True):
            evaluation.load_state(saved)


@dataclass
class Comparer:
    """Compares models with the original, `loaded.model`, on `num_inputs` held-out tokens or images.

    `num_seen` is how many the last comparison saw: fewer where the data end, more by what the last batch has too many.
    """

    loaded: Loaded
    sites: list[Site]
    data: SplitData
    num_inputs: int
    folder: RunFolder
    parent: dict[str, Any]
    num_seen: int = 0

    def __call__(
        self,
        model: nn.Module,
        cases: Sequence[tuple[str, float, Key]],
        doing: str,
        stage: str,
        report: Callable[[int], None] = lambda num_seen: None,
    ) -> list[Record]:
        """Records of `cases`, each a name, its `x` and its key; `report` is called after each batch.

        Checkpoints have the name of the `stage`, and it resumes from them. Raises StoppedError after Ctrl-C, with
        `doing` in its message.
        """
        written = enforced(model)
        specs: dict[float | str, dict[str, Any]] = {}
        for key in dict.fromkeys(key for _, _, key in cases if key is not None):
            uniform = {} if isinstance(key, str) else {"selection": TopK(density=key).to_dict()}
            specs[key] = {name: entry | uniform for name, entry in written.items()}
        found = Comparison(model, self.loaded.model, self.sites, specs)
        self._run(found, doing, stage, report)
        enforce(model, written)
        return [record for case in cases for record in self._records(found, *case)]

    def _run(self, found: Comparison, doing: str, stage: str, report: Callable[[int], None]) -> None:
        limit, number, self.num_seen = self.num_inputs, 0, 0
        if (state := self.folder.load_checkpoint(name=stage)) is not None:
            found.load_state(state)
            number, self.num_seen = state["step"], state["num_seen"]

        def save() -> None:
            self.folder.save_checkpoint(number, found.state() | {"num_seen": self.num_seen}, keep=1, name=stage)

        saved = time.monotonic()
        with stop_signals() as stops:
            for at, batch in enumerate(self.data.evaluation()):
                if at < number:
                    continue
                if self.num_seen >= limit or stops:
                    break
                found.add(batch)
                number, self.num_seen = at + 1, self.num_seen + _num_inputs(batch)
                report(self.num_seen)
                if time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    save()
                    saved = time.monotonic()
        if stops and self.num_seen < limit:
            save()
            raise StoppedError(f"stopped {doing} after {self.num_seen:,} of {limit:,}; the same command resumes it")

    def _records(self, found: Comparison, case: str, x: float, key: Key) -> Iterator[Record]:
        evaluation = found.evaluations[key]
        if not evaluation.num_scored:
            raise LazyneuronError(f"nothing of the held-out data of {self.loaded.name} can be scored: give more data")
        place: dict[str, Any] = {"recipe": "enforce", "split": "eval", "case": case, "x": x, **self.parent}
        left_out = "accuracy" if self.data.has_perplexity else "perplexity"
        for what, value in evaluation.means.items():
            if what == left_out:
                continue
            if math.isnan(value):
                where = "" if key is None else f" at density {x:g}"
                raise LazyneuronError(f"the {what} of {self.loaded.name}{where} ({case}) is NaN: try --dtype float32")
            yield Record(what=what, value=value, unit=_UNITS[what], num_tokens=evaluation.num_scored, **place)
        yield from evaluation.density_records(place)


def _num_inputs(batch: Batch) -> int:
    """Tokens of a batch, padding left out; the number of images."""
    if (mask := batch.inputs.get("attention_mask")) is not None:
        return int(mask.sum())
    tokens = next((batch.inputs[n] for n in ("decoder_input_ids", "input_ids") if n in batch.inputs), None)
    return tokens.numel() if tokens is not None else len(next(iter(batch.inputs.values())))
