"""Claims: a checkable sentence of the paper, and how the records of runs decide it over seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lazyneuron.paper.interval import mean_interval, student_interval
from lazyneuron.records.record import Record, Verdict, VerdictName

Records = Mapping[str, Sequence[Record]]
"""The records of one seed, by the run's name."""


@dataclass(frozen=True)
class Seen:
    """The metric of one seed and its reason; `verdict` if the seed's own statistics decide instead of bounds."""

    value: float
    reason: str
    verdict: VerdictName | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A checkable sentence about `runs`; `see` computes its metric from the records of one seed (None: not recorded).

    It holds if the metric is within the bounds. With several seeds the 95 % bootstrap interval of their mean decides:
    within the bounds the claim holds, outside it does not, across a bound it cannot be decided. With `every_seed` each
    seed decides by itself and the worst counts: for what must never happen. One seed has no interval: its value
    decides, unless the claim `compares` two trainings, whose difference one seed cannot separate from chance. The
    bootstrap interval of few seeds is too short, so such a difference also has to pass Student's t of the paired seeds.
    The reason given is that of the seed that supports the claim least. `expected` states the bounds in words,
    `reported` what the paper found (arXiv 2210.06313).
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
    every_seed: bool = False

    def admits(self, value: float) -> bool:
        """Whether a value is within the bounds."""
        is_above = value >= self.at_least and (value > self.above or self.above == -math.inf)
        return is_above and value <= self.at_most and (value < self.below or self.below == math.inf)

    def verdict(self, recipe: str, by_seed: Mapping[int, Records]) -> Verdict:
        """The verdict on records by seed, in the recipe `recipe`."""
        found = {seed: seen for seed, records in by_seed.items() if (seen := self.see(records)) is not None}
        values = [seen.value for seen in found.values()]
        is_finite = all(map(math.isfinite, values))
        interval = mean_interval(values) if len(values) > 1 and is_finite else None
        verdict, reason = self._decide(found, interval)
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
            low=interval[0] if interval else None,
            high=interval[1] if interval else None,
            verdict=verdict,
            reason=reason,
        )

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
            if self.compares:
                return "cannot tell", f"{seen[0].reason}; one seed: a difference of trainings needs more"
            return own[0], seen[0].reason
        seed, least = max(found.items(), key=lambda item: self._excess(item[1].value))
        reason = f"seed {seed}: {least.reason}"
        verdict = self._within(interval)
        if self.compares and verdict != "cannot tell":
            low, high = student_interval([one.value for one in seen])
            if self._within((low, high)) != verdict:
                return "cannot tell", f"Student's t of {len(seen)} seeds: {low:.3g} to {high:.3g}; {reason}"
        return verdict, reason

    def _excess(self, value: float) -> float:
        """How far a value is outside the bounds; negative if it is inside."""
        return max(value - min(self.at_most, self.below), max(self.at_least, self.above) - value)

    def _within(self, interval: tuple[float, float]) -> VerdictName:
        low, high = interval
        if self.admits(low) and self.admits(high):
            return "holds"
        is_apart = high < self.at_least or high <= self.above or low > self.at_most or low >= self.below
        return "does not hold" if is_apart else "cannot tell"
