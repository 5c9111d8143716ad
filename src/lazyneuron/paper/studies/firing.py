"""How often each neuron of a trained model fires (arXiv 2210.06313, Figure 3)."""

from collections.abc import Iterator
from typing import Any

import torch

from lazyneuron.measure import watch
from lazyneuron.measure.probe_records import probe_records
from lazyneuron.paper.runs import Firing
from lazyneuron.paper.studies.trained import Trained
from lazyneuron.records.record import Record
from lazyneuron.sites import numbered

RATES = (0.001, 0.01, 0.1, 0.5)
_PARTS = 20


@torch.no_grad()
def firing(run: Firing, models: list[Trained], place: dict[str, Any]) -> Iterator[tuple[int, int, list[Record]]]:
    """Training data drawn anew through the model until its first site has seen `num_tokens` tokens.

    "fires_below" is the fraction of the neurons that fire for less than the fraction `x` of the tokens.
    """
    for trained in models:
        first, step = trained.sites[0].name, trained.run.num_steps
        with watch(trained.model, trained.sites) as probe:
            told = 0
            while (seen := probe.num_tokens[first] if step > trained.run.num_steps else 0) < run.num_tokens:
                if (part := seen * _PARTS // run.num_tokens) > told:
                    told = part
                    yield part, _PARTS, []
                trained.run_batch(trained.batches.train(step))
                step += 1
        found = list(probe_records(probe, recipe=run.name, seed=place["seed"], source=place["source"]))
        for stack, layer, site in numbered(trained.sites):
            rates = probe.firing_rate[site.name]
            here = {
                "stack": stack,
                "layer": layer,
                "site": site.name,
                "num_tokens": probe.num_tokens[site.name],
                **place,
            }
            for rate in RATES:
                share = (rates < rate).double().mean().item()
                found.append(Record(what="fires_below", value=share, unit="fraction", x=rate, **here))
            found.append(Record(what="least_firing_rate", value=rates.min().item(), unit="fraction", **here))
        yield _PARTS, _PARTS, found
