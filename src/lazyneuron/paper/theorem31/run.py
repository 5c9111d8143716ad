"""Theorem 3.1 measured: Monte Carlo cases, their controls, and real networks at step 0."""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch.nn.functional import cross_entropy

from lazyneuron.paper.estimate import step_seconds
from lazyneuron.paper.runs import Training
from lazyneuron.paper.study import Parts, Study, Trained
from lazyneuron.paper.task import build_model, forward, load_batches
from lazyneuron.paper.theorem31.gradient import CASES, CONTROLS, Case, expected_gradient, step0_gradients
from lazyneuron.records.record import Record
from lazyneuron.sites import find_sites, numbered

_DRAW_S = 9e-6


@dataclass(frozen=True, kw_only=True)
class Theory(Study):
    """Theorem 3.1 by Monte Carlo over `num_draws` random output weights, and in real networks at step 0.

    Each of `networks` is drawn `num_initialisations` times, with a training batch for each.
    """

    name: str = "theorem31"
    num_draws: int
    num_initialisations: int
    networks: tuple[Training, ...]
    on_cpu: ClassVar[bool] = True

    def seconds(self) -> float:
        networks = sum(self.num_initialisations * 2 * step_seconds(network) for network in self.networks)
        return self.num_draws * _DRAW_S * 30 + networks

    def with_trainings(self, change: Callable[[Training], Training]) -> "Theory":
        """Networks take their data from the changed trainings, but no steps: they are measured at step 0."""
        return replace(self, networks=tuple(replace(n, task=change(n).task) for n in self.networks))

    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        parts = [partial(_case, case, "gradient", self.num_draws, n, place) for n, case in enumerate(CASES)]
        parts += [
            partial(_case, case, "gradient_control", self.num_draws, n, place)
            for n, case in enumerate(CONTROLS, len(CASES))
        ]
        parts += [partial(_step0, network, self, cache, place) for network in self.networks]
        for number, part in enumerate(parts, 1):
            yield number, len(parts), list(part())


def _case(case: Case, what: str, num_draws: int, number: int, place: dict[str, Any]) -> Iterator[Record]:
    unit = "loss per unit of pre-activation"
    found = expected_gradient(case, num_draws, hash((place["seed"], number)))
    yield Record(what=what, value=found.mean, error=found.error, unit=unit, case=case.name, **place)
    if what == "gradient":
        yield Record(what="gradient_min_z", value=found.min_z, unit="standard errors", case=case.name, **place)
        yield Record(what="num_active_neurons", value=found.num_active, unit="neurons", case=case.name, **place)
    if found.closed_form is not None:
        closed = {"value": found.closed_form, "error": found.closed_form_error}
        yield Record(what=f"{what}_closed_form", unit=unit, case=case.name, **closed, **place)


def _step0(network: Training, run: Theory, cache: Path, place: dict[str, Any]) -> Iterator[Record]:
    """Mean over initialisations of (mean / root mean square) of the gradient on active entries, for each layer."""
    batches = load_batches(network, place["seed"], cache)
    ratios: dict[str, list[float]] = {}
    sites = None
    for number in range(run.num_initialisations):
        seed = place["seed"] * run.num_initialisations + number
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
            **place,
        )
