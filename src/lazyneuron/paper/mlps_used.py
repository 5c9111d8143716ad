"""Controls: a training without its MLPs, or with narrower ones, shows whether its task needs them at all."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from lazyneuron.paper.interval import student_interval
from lazyneuron.records.record import Record

CLEAR = {"accuracy": 0.01, "loss": 0.05}
"""By how much the dense model of a single seed must beat its control: a point, or 0.05 nats (ours)."""
_IN_WORDS = {"nomlp": "without MLPs", "quarter": "with MLPs a quarter as wide"}


def final_quality(records: Iterable[Record], what: str) -> float | None:
    """Quality at the end, on the held-out data in order ("accuracy", "loss", "ece")."""
    return next((r.value for r in records if r.what == what and r.split == "test" and r.case == ""), None)


def at_last_probe(records: Iterable[Record], what: str, split: str) -> float | None:
    """A number of the last probe, on training or on held-out data; None if it is not recorded."""
    found = [r for r in records if r.what == what and r.split == split and r.step is not None]
    return max(found, key=lambda r: r.step or 0).value if found else None


def why_unused(
    dense: str, control: str, what: Literal["accuracy", "loss"], seeds: Iterable[Mapping[str, Sequence[Record]]]
) -> str:
    """Why the run `dense` is not known to need its MLPs; "" where it clearly beats `control`.

    With several seeds Student's 95 % interval of the paired difference has to be above zero; one has to differ by
    `CLEAR`.
    """
    found = [[final_quality(records.get(run, ()), what) for run in (dense, control)] for records in seeds]
    pairs = [(a, b) for a, b in found if a is not None and b is not None]
    if not pairs:
        return f"whether the MLPs are used is not known: the control {control} has no records"
    gains = [a - b if what == "accuracy" else b - a for a, b in pairs]
    least = student_interval(gains)[0] if len(gains) > 1 else round(gains[0] - CLEAR[what], 9)
    if least > 0 or (least == 0 and len(gains) == 1):
        return ""
    words = _IN_WORDS.get(control.rpartition("-")[2], control)
    own, other = (fmean(side) for side in zip(*pairs, strict=True))
    return f"the MLPs are not used: dense {own:.3f}, {words} {other:.3f}"
