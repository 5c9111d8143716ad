"""The page's first table: a line for each sentence of the paper, with what its principal runs showed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lazyneuron.pages.claims_table import interval
from lazyneuron.pages.prose import number
from lazyneuron.records.record import Verdict

_ORDER = ("does not hold", "cannot tell", "holds")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A sentence, what the paper reports of it, and the verdicts on it, each with the label of its folder."""

    text: str
    reported: list[str]
    verdicts: list[tuple[str, Verdict]]

    @property
    def why(self) -> str:
        """The reason of the verdict that speaks least for the sentence."""
        return min((v for _, v in self.verdicts), key=lambda v: _ORDER.index(v.verdict)).reason


def lines(by_label: Mapping[str, Sequence[Verdict]]) -> list[Line]:
    """The verdicts that stand under a sentence, by sentence, in their order."""
    found: dict[str, list[tuple[str, Verdict]]] = {}
    for label, verdicts in by_label.items():
        for verdict in verdicts:
            if verdict.line:
                found.setdefault(verdict.line, []).append((label, verdict))
    return [
        Line(text=text, reported=list(dict.fromkeys(v.reported for _, v in own if v.reported)), verdicts=own)
        for text, own in found.items()
    ]


def seen(verdict: Verdict) -> str:
    """What a verdict saw, with its interval: the density where that is graded, or else the claim's metric."""
    if verdict.density is None:
        within = interval(verdict)
        return number(verdict.value) + (f" ({within})" if within else "")
    is_range = verdict.density_low is not None and verdict.density_high is not None
    within = f" ({number(verdict.density_low)} to {number(verdict.density_high)})" if is_range else ""
    return f"density {number(verdict.density)}{within}"
