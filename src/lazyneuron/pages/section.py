"""A section of a page: what is reported elsewhere, beside the charts, tables and verdicts of each result folder."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lazyneuron.pages.charts import Figure
from lazyneuron.pages.claims_table import checks_tally
from lazyneuron.records.record import Verdict
from lazyneuron.records.table import Table


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """A model that was measured, converted or trained, or several compared; `note` stands where there is no table.

    `neurons` is the file name of its neuron browser, if there is one.
    """

    slug: str
    title: str
    figures: list[Figure]
    tables: list[Table]
    warnings: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    note: str = ""
    neurons: str = ""


@dataclass(kw_only=True)
class Part:
    """What one result folder shows: `lead` stands before the charts, `more` and `more_tables` open at a click."""

    label: str
    missing: list[str]
    verdicts: list[Verdict]
    lead: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    more: list[Figure] = field(default_factory=list)
    more_tables: list[Table] = field(default_factory=list)

    @property
    def checks(self) -> str:
        """How many of its checks pass, in words; "" without checks."""
        return checks_tally(self.verdicts)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One experiment: what is reported of it (in `figure`; empty if nothing is) and what each folder shows."""

    slug: str
    title: str
    figure: str
    expected: str
    setup: str
    numbers: tuple[tuple[str, str], ...]
    note: str
    parts: list[Part]

    @property
    def counts(self) -> Counter[str]:
        """How many verdicts of each kind its parts have, checks apart."""
        return Counter(v.verdict for part in self.parts for v in part.verdicts if not v.is_check)

    @property
    def checks(self) -> str:
        """How many of its parts' checks pass, in words; "" without checks."""
        return checks_tally([verdict for part in self.parts for verdict in part.verdicts])

    @property
    def all_figures(self) -> list[Figure]:
        """The figures that are seen at once and those that open at a click."""
        return [figure for part in self.parts for figure in (*part.figures, *part.more)]


def unique_ids(texts: Sequence[str]) -> dict[str, str]:
    """A different id for each text, for anchors and file names: letters, digits, dots, dashes and underscores."""
    found: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:60] or "run"
        found[text] = next(
            s for n in range(len(texts) + 1) if (s := stem + f"-{n + 1}" * bool(n)) not in found.values()
        )
    return found
