"""A power law with a floor: fitted to densities in the first two thirds of a training, checked on the last third."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from lazyneuron.records.record import Record

FIT_FROM, FIT_TO = 0.01, 2 / 3
"""The steps that are fitted, as shares of all steps (ours): after the initial transient, and before what is checked."""
LEAST_PROBES = 5
ALL, NOT_FIRST = "all layers", "all but the encoder's first layer"
LAYERS = (ALL, NOT_FIRST)
_STEEPEST = 10.0


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """density = floor + c * step ** -alpha, with floor >= 0, c > 0 and alpha > 0."""

    floor: float
    c: float
    alpha: float

    def at(self, step: float) -> float:
        """The density at a step, from 1 on."""
        return self.floor + self.c * step**-self.alpha


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """The law of the densities `fitted`, by step, beside the later ones, `checked`, that it should predict."""

    law: PowerLaw
    fitted: dict[int, float]
    checked: dict[int, float]

    @property
    def error_fitted(self) -> float:
        """The largest |predicted - measured| / measured where it was fitted."""
        return max(map(self._error, self.fitted.items()))

    @property
    def error(self) -> float:
        """The largest |predicted - measured| / measured over the last third."""
        return max(map(self._error, self.checked.items()))

    @property
    def error_unchanged(self) -> float:
        """What `error` would be if the density stayed as it is at the last step fitted."""
        stays = self.fitted[max(self.fitted)]
        return max(_relative(stays, measured) for measured in self.checked.values())

    def _error(self, probe: tuple[int, float]) -> float:
        step, measured = probe
        return _relative(self.law.at(step), measured)


def mean_densities(records: Iterable[Record], layers: str) -> dict[int, float]:
    """Held-out density by step in one seed's records: the mean over `layers`, one of `LAYERS`."""
    found: dict[int, list[float]] = defaultdict(list)
    for record in records:
        is_left_out = layers == NOT_FIRST and (record.stack, record.layer) == ("encoder", 0)
        if record.what == "density" and record.split == "eval" and not is_left_out:
            found[record.step or 0].append(record.value)
    return {step: fmean(values) for step, values in sorted(found.items())}


def extrapolate(densities: Mapping[int, float]) -> Extrapolation | None:
    """The law of the first two thirds beside the last third; None with too few steps to fit, or none to check."""
    end = max(densities, default=0)
    fitted = {step: value for step, value in densities.items() if FIT_FROM * end <= step <= FIT_TO * end and value > 0}
    checked = {step: value for step, value in densities.items() if step > FIT_TO * end}
    if len(fitted) < LEAST_PROBES or not checked:
        return None
    return Extrapolation(law=fit(fitted), fitted=fitted, checked=checked)


def fit(densities: Mapping[int, float]) -> PowerLaw:
    """The law with the least squares of log density, at positive steps; alpha is at most 10.

    Steps are taken relative to the last one and densities to the least, so that the three parameters are of one size.
    The best of several starts is kept, as a floor and a small alpha can stand for one another.
    """
    from scipy.optimize import least_squares

    steps = np.array(list(densities), dtype=float)
    values = np.array(list(densities.values()))
    last, least = steps.max(), values.min()
    x, y = np.log(steps / last), np.log(values / least)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        floor, log_rest, alpha = parameters
        return np.log(floor + np.exp(log_rest - alpha * x)) - y

    starts = [(floor, math.log(1 - floor), alpha) for floor in (0.05, 0.9) for alpha in (0.2, 1.0)]
    bounds = ([0, -np.inf, 0], [np.inf, np.inf, _STEEPEST])
    found = [least_squares(residuals, start, bounds=bounds, xtol=1e-10, ftol=1e-10, gtol=1e-10) for start in starts]
    floor, log_rest, alpha = min(found, key=lambda result: result.cost).x
    return PowerLaw(floor=float(least * floor), c=float(least * np.exp(log_rest) * last**alpha), alpha=float(alpha))


def _relative(predicted: float, measured: float) -> float:
    return abs(predicted - measured) / measured if measured else math.inf
