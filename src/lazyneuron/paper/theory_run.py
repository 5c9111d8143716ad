"""The run of Theorem 3.1: Monte Carlo cases, their controls, and real networks at step 0, written as records."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from lazyneuron.paper.progress import Progress
from lazyneuron.paper.runs import Theory, Training
from lazyneuron.paper.task import build_model, forward, load_batches
from lazyneuron.paper.theory import CASES, CONTROLS, Case, expected_gradient, step0_gradients
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, device_name
from lazyneuron.sites import find_sites, numbered


def check_theory(
    run: Theory,
    folder: RunFolder,
    cache: Path,
    *,
    seed: int,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Write the records of Theorem 3.1 to `folder`, on the CPU; an unfinished run begins again, it takes a minute."""
    if folder.is_done():
        return
    if run.num_threads:
        torch.set_num_threads(run.num_threads)
    folder.truncate_records(0)
    source = Source.here(device_name(torch.device("cpu")), torch.get_num_threads())
    parent: dict[str, Any] = {"recipe": run.name, "seed": seed, "source": source}
    num_parts, began = len(CASES) + len(CONTROLS) + len(run.networks), time.monotonic()
    folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} start")
    parts = [*_cases(run, parent), *(_step0(network, run, cache, parent) for network in run.networks)]
    for number, part in enumerate(parts, 1):
        folder.append(part)
        report(Progress(run.name, number, num_parts))
    folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} done after {time.monotonic() - began:.1f} s")
    folder.mark_done()


def _cases(run: Theory, parent: dict[str, Any]) -> Iterator[Iterator[Record]]:
    for number, case in enumerate(CASES):
        yield _case(case, "gradient", run.num_draws, number, parent)
    for number, case in enumerate(CONTROLS):
        yield _case(case, "gradient_control", run.num_draws, len(CASES) + number, parent)


def _case(case: Case, what: str, num_draws: int, number: int, parent: dict[str, Any]) -> Iterator[Record]:
    unit = "loss per unit of pre-activation"
    found = expected_gradient(case, num_draws, hash((parent["seed"], number)))
    yield Record(what=what, value=found.mean, error=found.error, unit=unit, case=case.name, **parent)
    if what == "gradient":
        yield Record(what="gradient_min_z", value=found.min_z, unit="standard errors", case=case.name, **parent)
        yield Record(what="num_active_neurons", value=found.num_active, unit="neurons", case=case.name, **parent)
    if found.closed_form is not None:
        closed = {"value": found.closed_form, "error": found.closed_form_error}
        yield Record(what=f"{what}_closed_form", unit=unit, case=case.name, **closed, **parent)


def _step0(network: Training, run: Theory, cache: Path, parent: dict[str, Any]) -> Iterator[Record]:
    """Mean over initialisations of (mean / root mean square) of the gradient on active entries, for each layer."""
    batches = load_batches(network, parent["seed"], cache)
    ratios: dict[str, list[float]] = {}
    sites = None
    for number in range(run.num_initialisations):
        seed = parent["seed"] * run.num_initialisations + number
        model, batch = build_model(batches, seed).eval(), batches.train(seed)
        if sites is None:
            sites = find_sites(model, {name: value[:1] for name, value in batch.items() if name != "labels"})
        gradients = step0_gradients(
            model, [site.down for site in sites], lambda m=model, b=batch: cross_entropy(*forward(m, b))
        )
        for site in sites:
            ratios.setdefault(site.name, []).append(gradients[site.down].ratio)
    for stack, layer, site in numbered(sites or []):
        values = ratios[site.name]
        error = statistics.stdev(values) / math.sqrt(len(values))
        yield Record(
            what="gradient_step0",
            value=statistics.fmean(values),
            error=error,
            unit="mean / root mean square",
            case=network.name,
            stack=stack,
            layer=layer,
            site=site.name,
            step=0,
            **parent,
        )
