"""The table of claims: the verdicts of result folders, one row per claim, in words."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lazyneuron.pages.prose import number
from lazyneuron.records.record import Verdict


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """One row of the claims table: `cells` holds the verdicts of each result folder."""

    text: str
    where: str
    metric: str
    expected: str
    reported: str
    on: str
    cells: list[list[Verdict]]


def claim_groups(verdicts: dict[str, list[Verdict]]) -> list[list[ClaimRow]]:
    """The verdicts of all folders (by label), one row per claim, runs, metric and threshold.

    Rows of one claim stand together, under the wording of the last folder that has it.
    """
    rows: dict[tuple[str, ...], dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    wording = {}
    for label, found in verdicts.items():
        for v in found:
            rows[v.claim, v.on, v.metric, v.expected, v.reported][label].append(v)
            wording[v.claim] = {"text": v.text, "where": v.where}
    groups: dict[str, list[ClaimRow]] = {claim: [] for claim in wording}
    for (claim, on, metric, expected, reported), found in rows.items():
        cells = [found[label] for label in verdicts]
        row = ClaimRow(**wording[claim], on=on, metric=metric, expected=expected, reported=reported, cells=cells)
        groups[claim].append(row)
    return list(groups.values())


@dataclass(frozen=True, kw_only=True)
class ClaimTable:
    """A table of claims with its place and title; `one_each` if every row has one verdict, which can be spread out."""

    slug: str
    title: str
    caption: str
    groups: list[list[ClaimRow]]
    one_each: bool
    note: str = ""
    interval_note: str = ""


def claim_tables(verdicts: dict[str, list[Verdict]]) -> list[ClaimTable]:
    """The claims that are evidence, and the checks, if there are any, in a table of their own."""
    evidence = {label: [v for v in found if not v.is_check] for label, found in verdicts.items()}
    checks = {label: [v for v in found if v.is_check] for label, found in verdicts.items()}
    note = (
        "No correct implementation can fail these, whatever the data: they say that the code is right, not the paper."
    )
    made = [_claim_table(evidence, "claims", "Claims", "Claims of the paper and what was seen")]
    if any(checks.values()):
        made.append(_claim_table(checks, "checks", "Checks", "Checks of the code and of mathematics", note))
    return made


def _claim_table(verdicts: dict[str, list[Verdict]], slug: str, title: str, caption: str, note: str = "") -> ClaimTable:
    groups = claim_groups(verdicts)
    return ClaimTable(
        slug=slug,
        title=title,
        caption=caption,
        groups=groups,
        one_each=len(verdicts) == 1 and all(len(cell) == 1 for group in groups for row in group for cell in row.cells),
        note=note,
        interval_note=interval_note(v for found in verdicts.values() for v in found),
    )


def checks_tally(verdicts: Iterable[Verdict]) -> str:
    """How many of the checks among the verdicts pass, in words; "" without checks."""
    checks = [verdict.verdict for verdict in verdicts if verdict.is_check]
    if not checks:
        return ""
    passed = checks.count("holds")
    return f"{passed} of {len(checks)} check{'s' * (len(checks) > 1)} pass{'es' * (len(checks) == 1)}"


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts there are of each kind, in words: evidence, then checks."""
    count = Counter(v.verdict for v in verdicts if not v.is_check)
    parts = (("holds", "hold", "holds"), ("does not hold", "do not hold", "does not hold"), ("cannot tell",) * 3)
    words = [f"{count[name]} {one if count[name] == 1 else many}" for name, many, one in parts if count[name]]
    return "; ".join(filter(None, [", ".join(words), checks_tally(verdicts)])) or "no verdicts"


def interval_note(verdicts: Iterable[Verdict]) -> str:
    """How to read the intervals, which depend on the number of seeds, and who set the bounds."""
    verdicts = list(verdicts)
    counts = {len(verdict.seeds) for verdict in verdicts if verdict.seeds}
    several = [verdict for verdict in verdicts if verdict.low is not None]
    sentences = []
    if several:
        sentences.append("Seen is the mean over seeds.")
    by_student = [verdict for verdict in several if verdict.student_low is not None]
    if by_student:
        sentences.append(
            "The interval is Student's 95\u00a0% interval of that mean, and decides; beside it stands the bootstrap's, "
            "which is too short where seeds are few."
        )
    if len(by_student) < len(several):
        which = "Of verdicts of earlier versions it" if by_student else "The interval"
        sentences.append(f"{which} is the 95\u00a0% bootstrap interval of that mean.")
    if any(verdict.student_low is None and len(verdict.seeds) == 3 for verdict in several):
        sentences.append(
            "With three seeds it is the range of the three values, and covers the true mean about three quarters of "
            "the time; a difference between trainings must pass Student's t test as well."
        )
    if counts - {1}:
        sentences.append("The reason given is that of the seed least favourable to the claim.")
    if 1 in counts:
        sentences.append(f"{'Where there is one' if counts - {1} else 'There is one'} seed: no interval.")
    if any("(ours)" in verdict.expected for verdict in verdicts):
        sentences.append("Bounds with (ours) are set here: the paper makes the claim without a number.")
    return " ".join(sentences)


def interval(verdict: Verdict) -> str:
    """The interval that decides: Student's, or in older verdicts the bootstrap's; "" without one."""
    return _range(verdict.student_low, verdict.student_high) or _range(verdict.low, verdict.high)


def bootstrap(verdict: Verdict) -> str:
    """The bootstrap interval where it stands beside Student's, in words; "" elsewhere."""
    return "" if verdict.student_low is None else f"bootstrap {_range(verdict.low, verdict.high)}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"
