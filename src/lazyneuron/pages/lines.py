"""The page's first table: a line for each sentence of the paper, with what its principal runs showed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lazyneuron.pages.claims_table import interval
from lazyneuron.pages.prose import number
from lazyneuron.records.record import Verdict

_ORDER = ("does not hold", "cannot tell", "holds")


@dataclass(frozen=True, kw_only=True)
class LineClaim:
    """A claim under a sentence: what the paper reports, and the verdicts, each with the label of its folder.

    `text` is the claim in words, "" where the sentence has no other.
    """

    text: str
    reported: list[str]
    verdicts: list[tuple[str, Verdict]]

    @property
    def worst(self) -> Verdict:
        """The verdict that speaks least for the claim."""
        return min((v for _, v in self.verdicts), key=lambda v: _ORDER.index(v.verdict))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A sentence and the claims under it."""

    text: str
    claims: list[LineClaim]

    @property
    def worst(self) -> LineClaim:
        """The claim whose verdict speaks least for the sentence: its reason is the line's."""
        return min(self.claims, key=lambda claim: _ORDER.index(claim.worst.verdict))


def lines(by_label: Mapping[str, Sequence[Verdict]]) -> list[Line]:
    """The verdicts that stand under a sentence, by sentence and claim, in their order."""
    found: dict[str, dict[str, list[tuple[str, Verdict]]]] = {}
    for label, verdicts in by_label.items():
        for verdict in verdicts:
            if verdict.line:
                found.setdefault(verdict.line, {}).setdefault(verdict.claim, []).append((label, verdict))
    return [
        Line(text=text, claims=[_claim(own, is_alone=len(claims) == 1) for own in claims.values()])
        for text, claims in found.items()
    ]


def _claim(verdicts: list[tuple[str, Verdict]], *, is_alone: bool) -> LineClaim:
    return LineClaim(
        text="" if is_alone else verdicts[-1][1].text,
        reported=list(dict.fromkeys(v.reported for _, v in verdicts if v.reported)),
        verdicts=verdicts,
    )


def seen(verdict: Verdict) -> str:
    """What a verdict saw, with its interval: the density where that is graded, or else the claim's metric."""
    if verdict.density is None:
        within = interval(verdict)
        return number(verdict.value) + (f" ({within})" if within else "")
    is_range = verdict.density_low is not None and verdict.density_high is not None
    within = f" ({number(verdict.density_low)} to {number(verdict.density_high)})" if is_range else ""
    return f"density {number(verdict.density)}{within}"
