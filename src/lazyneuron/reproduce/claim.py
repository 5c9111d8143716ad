"""One claim of the paper: a checkable sentence, and how the records of a run judge it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lazyneuron.record import Record, Verdict, VerdictName


@dataclass(frozen=True)
class Judgement:
    """A metric as seen (None where there was nothing to see), what it means for the claim, and why."""

    value: float | None
    verdict: VerdictName
    reason: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One checkable sentence: `expected` is its threshold in words, and `judge` applies it to one run's records."""

    name: str
    text: str
    where: str
    metric: str
    expected: str
    judge: Callable[[Sequence[Record]], Judgement]

    def verdict(self, recipe: str, seed: int, records: Sequence[Record]) -> Verdict:
        """The verdict on the run `recipe`, which left `records`."""
        seen = self.judge(records)
        return Verdict(
            claim=self.name,
            text=self.text,
            where=self.where,
            metric=self.metric,
            expected=self.expected,
            value=seen.value,
            verdict=seen.verdict,
            reason=seen.reason,
            recipe=recipe,
            seed=seed,
        )


def nothing(what: str) -> Judgement:
    """Records that lack what the claim is about."""
    return Judgement(None, "cannot tell", f"no {what} in the records: the run has not come that far")


def decide(value: float, holds: bool, reason: str) -> Judgement:
    """Holds or does not, unless the metric is nan."""
    if math.isnan(value):
        return Judgement(None, "cannot tell", "the metric is not a number")
    return Judgement(value, "holds" if holds else "does not hold", reason)
