"""Judge a model at several densities beside its original, on held-out data, into records; it can be stopped."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from torch import nn

from lazyneuron.cli.loading import failed, progress
from lazyneuron.enforce.enforce import enforce, enforced
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import LazyneuronError, StoppedError
from lazyneuron.load.models import Loaded
from lazyneuron.measure import Probe
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record
from lazyneuron.sites import Site, numbered
from lazyneuron.training.heldout import Data
from lazyneuron.training.model_quality import Evaluation, Scored
from lazyneuron.training.stop import stop_signals

_SECONDS_BETWEEN_CHECKPOINTS = 60.0


ASKED = "asked"
Key = float | str | None


@dataclass
class Judge:
    """Judges a model at some densities, beside its original, `loaded.model`, on the held-out data."""

    loaded: Loaded
    sites: list[Site]
    data: Data
    tokens: int
    folder: RunFolder
    console: Console
    parent: dict[str, Any]
    seen: int = 0

    def __call__(
        self, model: nn.Module, cases: Sequence[tuple[str, float, Key]], doing: str, stage: str
    ) -> list[Record]:
        """Records of `cases`: each a name, its `x`, and of what: a density everywhere, ASKED (as is), None (original).

        It keeps checkpoints under the name of the `stage` and goes on from them. Raises StoppedError after Ctrl-C.
        """
        written = enforced(model)
        specs: dict[float | str, dict[str, Any]] = {}
        for key in dict.fromkeys(key for _, _, key in cases if key is not None):
            uniform = {} if isinstance(key, str) else {"selection": TopK(density=key).to_dict()}
            specs[key] = {name: entry | uniform for name, entry in written.items()}
        found = Evaluation(model, self.loaded.model, self.sites, specs)
        self._run(found, doing, stage)
        enforce(model, written)
        return [r for case, x, key in cases for r in self._records(found, case, x, key)]

    def _run(self, found: Evaluation, doing: str, stage: str) -> None:
        limit, number, self.seen = self.tokens, 0, 0
        if (state := self.folder.load_checkpoint(name=stage)) is not None:
            found.load_state(state["evaluation"])
            number, self.seen = state["step"], state["seen"]
        with stop_signals() as stops, progress(self.console, doing, "tokens", limit) as report:
            saved = time.monotonic()
            for at, batch in enumerate(self.data.evaluation()):
                if at < number:
                    continue
                if self.seen >= limit or stops:
                    break
                try:
                    found.add(batch)
                except LazyneuronError:
                    raise
                except Exception as error:
                    raise failed(self.loaded, error) from error
                number, self.seen = at + 1, self.seen + _num_inputs(batch)
                report(self.seen)
                now = time.monotonic()
                if now - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    saved = now
                    self._checkpoint(found, number, stage)
        if stops and self.seen < limit:
            self._checkpoint(found, number, stage)
            raise StoppedError(f"stopped {doing} after {self.seen:,} of {limit:,}; the same command goes on")

    def _checkpoint(self, found: Evaluation, number: int, stage: str) -> None:
        self.folder.save_checkpoint(number, {"evaluation": found.state(), "seen": self.seen}, keep=1, name=stage)

    def _records(self, found: Evaluation, case: str, x: float, key: Key) -> Iterator[Record]:
        quality = found.tallies[key].quality
        if not quality.num_scored:
            raise LazyneuronError(f"nothing of the held-out data of {self.loaded.name} can be scored: give more data")
        place: dict[str, Any] = {"recipe": "enforce", "split": "eval", "case": case, "x": x, **self.parent}
        perplexity = quality.perplexity if self.data.has_perplexity else None
        accuracy = None if self.data.has_perplexity else quality.accuracy
        numbers = {"loss": (quality.loss, "nats"), "perplexity": (perplexity, ""), "accuracy": (accuracy, "fraction")}
        numbers |= {"agreement": (quality.agreement, "fraction"), "kl": (quality.kl, "nats")}
        numbers |= {"cosine": (quality.cosine, "cosine")}
        for what, (value, unit) in numbers.items():
            if value is not None and math.isnan(value):
                where = "" if key is None else f" at density {x:g}"
                mend = "try --dtype float32"
                raise LazyneuronError(f"the {what} of {self.loaded.name}{where} ({case}) is NaN: {mend}")
            if value is not None:
                yield Record(what=what, value=value, unit=unit, num_tokens=quality.num_scored, **place)
        yield from _densities("density", found.kept[key], place)
        if key is not None:
            yield from _densities("natural_density", found.natural[key], place)


def _densities(what: str, probe: Probe, place: dict[str, Any]) -> Iterator[Record]:
    values, tokens = probe.density, probe.num_tokens
    for stack, layer, site in numbered(probe.sites):
        if tokens[site.name]:
            here = {"stack": stack, "layer": layer, "site": site.name, "num_tokens": tokens[site.name]}
            yield Record(what=what, value=values[site.name], unit="fraction", **here, **place)


def _num_inputs(batch: Scored) -> int:
    """Tokens of a batch, padding left out; of images, how many there are."""
    if (mask := batch.inputs.get("attention_mask")) is not None:
        return int(mask.sum())
    tokens = next((batch.inputs[n] for n in ("decoder_input_ids", "input_ids") if n in batch.inputs), None)
    return tokens.numel() if tokens is not None else len(next(iter(batch.inputs.values())))
