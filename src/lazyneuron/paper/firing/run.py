"""How often each neuron of a trained model fires."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lazyneuron.measure import watch
from lazyneuron.measure.probe_records import probe_records
from lazyneuron.paper.estimate import batch_tokens, forward_seconds
from lazyneuron.paper.study import Parts, Study, Trained
from lazyneuron.records.record import Record
from lazyneuron.sites import numbered

RATES = (0.001, 0.01, 0.1, 0.5)
_PARTS = 20


@dataclass(frozen=True, kw_only=True)
class Firing(Study):
    """How often each neuron fires, over at least `num_tokens` tokens of training data drawn anew.

    "fires_below" is the fraction of the neurons that fire for less than the fraction `x` of the tokens.
    """

    num_tokens: int = 400_000

    def seconds(self) -> float:
        return sum(self.num_tokens / batch_tokens(run) * forward_seconds(run) for run in self.of)

    @torch.no_grad()
    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        for trained in models:
            first, step = trained.sites[0].name, trained.run.num_steps
            with watch(trained.model, trained.sites) as probe:
                reported = 0
                while (seen := probe.num_tokens[first] if step > trained.run.num_steps else 0) < self.num_tokens:
                    if (part := seen * _PARTS // self.num_tokens) > reported:
                        reported = part
                        yield part, _PARTS, []
                    trained.run_batch(trained.batches.train(step))
                    step += 1
            records = list(probe_records(probe, recipe=self.name, seed=place["seed"], source=place["source"]))
            for stack, layer, site in numbered(trained.sites):
                rates = probe.firing_rate[site.name]
                at = {"stack": stack, "layer": layer, "site": site.name, "num_tokens": probe.num_tokens[site.name]}
                for rate in RATES:
                    share = (rates < rate).double().mean().item()
                    records.append(Record(what="fires_below", value=share, unit="fraction", x=rate, **at, **place))
                least = rates.min().item()
                records.append(Record(what="least_firing_rate", value=least, unit="fraction", **at, **place))
            yield _PARTS, _PARTS, records
