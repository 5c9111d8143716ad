"""Claims: a checkable sentence of the paper, and how the records of runs decide it over seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from lazyneuron.paper.interval import detectable, mean_interval, seeds_for, student_interval
from lazyneuron.paper.mlps_used import why_unused
from lazyneuron.records.record import Record, Verdict, VerdictName

Records = Mapping[str, Sequence[Record]]
"""The records of one seed, by the run's name."""


@dataclass(frozen=True)
class Seen:
    """The metric of one seed and its reason; `verdict` if the seed's own statistics decide instead of bounds.

    `density` is what the upper grades of a claim of emergence bound.
    """

    value: float
    reason: str
    verdict: VerdictName | None = None
    density: float | None = None


@dataclass(frozen=True, kw_only=True)
class Grade:
    """A grade of a claim: the bound that the metric, or with `of_density` the density, keeps in its whole interval."""

    name: str
    below: float = math.inf
    at_most: float = math.inf
    of_density: bool = False

    def admits(self, highest: float) -> bool:
        """Whether an interval that ends at `highest` is within the bound."""
        return highest <= self.at_most and highest < self.below


@dataclass(frozen=True)
class Condition:
    """What a claim needs in order to say anything: the mean over seeds of what `measure` finds is at least `at_least`.

    `what` names it, `otherwise` says in words why a mean below that leaves the claim open.
    """

    what: str
    measure: Callable[[Records], float | None]
    at_least: float
    otherwise: Callable[[float], str]

    def unmet(self, by_seed: Mapping[int, Records]) -> str:
        """Why the claim cannot be judged on these records; "" if it can."""
        found = [value for records in by_seed.values() if (value := self.measure(records)) is not None]
        if not found:
            return f"the records do not have {self.what}"
        mean = fmean(found)
        return "" if mean >= self.at_least else self.otherwise(mean)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A checkable sentence about `runs`; `see` computes its metric from the records of one seed (None: not recorded).

    It holds if the metric is within the bounds. With several seeds Student's 95 % interval of their mean decides:
    within the bounds the claim holds, outside it does not, across a bound it cannot be decided; the bootstrap interval,
    too short where seeds are few, is recorded beside it. With `every_seed` each seed decides by itself and the worst
    counts: for what must never happen. One seed has no interval: its value decides, unless the claim `compares` two
    trainings, whose difference one seed cannot separate from chance unless it is `clear` or larger. Such a verdict also
    has the smallest difference that its seeds would have detected; `effect` is the paper's, measured from the bound, in
    the metric's `unit`.
    Where one of the conditions in `needs` is not met, the verdict is "cannot tell" whatever the metric.
    The reason given is that of the seed that supports the claim least. `expected` states the bounds in words,
    `reported` what the paper found (arXiv 2210.06313).

    Of `grades`, in ascending order, the highest is given whose bound the whole interval keeps, as it keeps those of all
    grades below. A claim about quality may name a `control`, a dense run and its control run: where dense does not
    clearly beat the control by `control_by`, the claim cannot be decided. A claim that no correct implementation could
    fail on any data, an identity of the code or of mathematics, `is_check`. `line` puts the claim's verdict under that
    sentence in the page's first table: for the principal runs alone.
    """

    name: str
    text: str
    where: str
    metric: str
    expected: str
    runs: tuple[str, ...]
    see: Callable[[Records], Seen | None]
    on: str = ""
    reported: str = ""
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    compares: bool = False
    clear: float = math.inf
    every_seed: bool = False
    unit: Literal["", "points"] = ""
    effect: float | None = None
    grades: tuple[Grade, ...] = ()
    control: tuple[str, str] | None = None
    control_by: Literal["accuracy", "loss"] = "accuracy"
    is_check: bool = False
    line: str = ""
    needs: tuple[Condition, ...] = ()

    def admits(self, value: float) -> bool:
        """Whether a value is within the bounds."""
        is_above = value >= self.at_least and (value > self.above or self.above == -math.inf)
        return is_above and value <= self.at_most and (value < self.below or self.below == math.inf)

    def verdict(self, recipe: str, by_seed: Mapping[int, Records]) -> Verdict:
        """The verdict on records by seed, in the recipe `recipe`."""
        found = {seed: seen for seed, records in by_seed.items() if (seen := self.see(records)) is not None}
        values = [seen.value for seen in found.values()]
        is_finite = all(map(math.isfinite, values))
        is_several = len(values) > 1 and is_finite
        bootstrap = mean_interval(values) if is_several else (None, None)
        student = student_interval(values) if is_several else None
        is_by_difference = is_several and self.compares and not any(seen.verdict for seen in found.values())
        least = detectable(stdev(values), len(values)) if is_by_difference else None
        verdict, reason = self._decide(found, student)
        if found and (unmet := self._unmet(by_seed)):
            verdict, reason = "cannot tell", "; ".join(unmet)
        elif verdict == "cannot tell" and least is not None:
            reason += f"; {self._power(values, least)}"
        densities = [seen.density for seen in found.values() if seen.density is not None]
        dense = _interval(densities)
        return Verdict(
            claim=self.name,
            text=self.text,
            where=self.where,
            metric=self.metric,
            expected=self.expected,
            reported=self.reported,
            recipe=recipe,
            on=self.on or ", ".join(self.runs),
            seeds=list(found),
            values=values,
            value=math.fsum(values) / len(values) if values and is_finite else None,
            low=bootstrap[0],
            high=bootstrap[1],
            student_low=student[0] if student else None,
            student_high=student[1] if student else None,
            detectable=least,
            grade=self._grade(_interval(values), dense),
            density=fmean(densities) if densities else None,
            density_low=dense[0] if dense and len(densities) > 1 else None,
            density_high=dense[1] if dense and len(densities) > 1 else None,
            is_check=self.is_check,
            line=self.line,
            verdict=verdict,
            reason=reason,
        )

    def _unmet(self, by_seed: Mapping[int, Records]) -> list[str]:
        """Why the claim cannot be judged on these records, whatever its metric."""
        unused = why_unused(*self.control, self.control_by, by_seed.values()) if self.control else ""
        return [*filter(None, [unused, *(need.unmet(by_seed) for need in self.needs)])]

    def _decide(self, found: dict[int, Seen], interval: tuple[float, float] | None) -> tuple[VerdictName, str]:
        if not found:
            return "cannot tell", "the records do not have it: the runs have not come that far"
        seen = list(found.values())
        if lost := [str(seed) for seed, one in found.items() if math.isnan(one.value)]:
            return "cannot tell", f"not a number with seed {', '.join(lost)}: {seen[0].reason}"
        own: list[VerdictName] = [
            one.verdict or ("holds" if self.admits(one.value) else "does not hold") for one in seen
        ]
        is_infinite = any(math.isinf(one.value) for one in seen)
        if self.every_seed or is_infinite or any(one.verdict for one in seen):
            order: tuple[VerdictName, ...] = ("does not hold", "cannot tell", "holds")
            worst: VerdictName = next(name for name in order if name in own)
            return worst, next(one.reason for one, name in zip(seen, own, strict=True) if name == worst)
        if interval is None:
            if self.compares and abs(seen[0].value) < self.clear:
                return "cannot tell", f"{seen[0].reason}; one seed: a difference of trainings needs more"
            return own[0], seen[0].reason
        seed, least = max(found.items(), key=lambda item: self._excess(item[1].value))
        return self._within(interval), f"seed {seed}: {least.reason}"

    def _grade(self, metric: tuple[float, float] | None, density: tuple[float, float] | None) -> str:
        """The highest grade that both intervals support, the grades below it included; "" for none."""
        name = ""
        for grade in self.grades:
            interval = density if grade.of_density else metric
            if interval is None or not grade.admits(interval[1]):
                break
            name = grade.name
        return name

    def _power(self, values: Sequence[float], least: float) -> str:
        """The difference that the seeds would have detected, beside the paper's effect and the seeds that it needs."""
        text = f"{len(values)} seeds could have detected {self._in_unit(least)}"
        if not self.effect:
            return text
        needed = seeds_for(self.effect, stdev(values))
        return f"{text}; the paper's effect is {self._in_unit(self.effect)}" + (
            f", for which {needed} seeds are needed" if needed > len(values) else ""
        )

    def _in_unit(self, value: float) -> str:
        return f"{100 * value:.2g} points" if self.unit == "points" else f"{value:.2g}"

    def _excess(self, value: float) -> float:
        """How far a value is outside the bounds; negative if it is inside."""
        return max(value - min(self.at_most, self.below), max(self.at_least, self.above) - value)

    def _within(self, interval: tuple[float, float]) -> VerdictName:
        low, high = interval
        if self.admits(low) and self.admits(high):
            return "holds"
        is_apart = high < self.at_least or high <= self.above or low > self.at_most or low >= self.below
        return "does not hold" if is_apart else "cannot tell"


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's interval of the mean, of one value the value itself; None where there is none or one is not finite."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return student_interval(values) if len(values) > 1 else (values[0], values[0])
