"""Batches through a model that is not being trained: its quality and its densities as records."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lazyneuron.measure import Probe
from lazyneuron.paper.task import forward, rows_of_rank
from lazyneuron.records.record import Record
from lazyneuron.sites import Site, numbered
from lazyneuron.training.quality import Quality


@torch.no_grad()
def feed(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    quality: Quality,
    probes: Sequence[Probe] = (),
    accelerator: Accelerator | None = None,
) -> None:
    """Each rank's rows of each batch through the model; `quality` and the open `probes` then hold those of all ranks.

    Without `accelerator` this process sees all rows, on the model's device, whatever other processes there are. A rank
    without rows in the last batch goes along, uncounted: sharded weights need all ranks in every pass.
    """
    rank, num_ranks = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    device = accelerator.device if accelerator else next(model.parameters()).device
    for batch in batches:
        mine = rows_of_rank(batch, rank, num_ranks)
        is_counted = len(next(iter(mine.values()))) > 0
        if not is_counted:
            mine = {name: value[:1] for name, value in batch.items()}
            for probe in probes:
                probe.detach()
        with accelerator.autocast() if accelerator else nullcontext():
            logits, labels = forward(model, {name: value.to(device) for name, value in mine.items()})
        if is_counted:
            quality.update(logits, labels)
        else:
            for probe in probes:
                probe.attach()
    if num_ranks > 1:
        quality.all_reduce()
        for probe in probes:
            probe.all_reduce()


def quality_records(quality: Quality, place: dict[str, Any]) -> Iterator[Record]:
    """Loss, accuracy, Brier score and calibration; a bin of the reliability diagram is at its mean confidence."""
    place = {"num_tokens": quality.count, **place}
    yield Record(what="loss", value=quality.loss, unit="nats", **place)
    yield Record(what="accuracy", value=quality.accuracy, unit="fraction", **place)
    yield Record(what="brier", value=quality.brier, unit="squared probability", **place)
    yield Record(what="ece", value=quality.ece, unit="fraction", **place)
    if quality.adaptive:
        yield Record(what="adaptive_ece", value=quality.adaptive_ece, unit="fraction", **place)
    for bin in quality.reliability:
        if bin.count and not quality.num_nonfinite:
            here = {**place, "x": bin.confidence, "num_tokens": bin.count}
            yield Record(what="reliability", value=bin.accuracy, unit="fraction", **here)


def density_records(probe: Probe, sites: Sequence[Site], place: dict[str, Any]) -> Iterator[Record]:
    """Density and active neurons per token of each site."""
    density, num_active, tokens = probe.density, probe.num_active, probe.num_tokens
    for stack, layer, site in numbered(sites):
        here = {"site": site.name, "stack": stack, "layer": layer, "num_tokens": tokens[site.name], **place}
        yield Record(what="density", value=density[site.name], unit="fraction", **here)
        yield Record(what="num_active", value=num_active[site.name], unit="neurons/token", **here)
