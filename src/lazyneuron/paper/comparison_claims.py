"""Claims about the difference between two trainings that differ in one thing, paired by seed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from lazyneuron.paper.claim import Claim, Condition, Records, Seen
from lazyneuron.paper.density_claims import collapse, mean_density, middle_density
from lazyneuron.paper.mlps_used import final_quality
from lazyneuron.paper.runs import T5Task, Training
from lazyneuron.paper.trainings import without_mlps
from lazyneuron.records.record import Record

QUALITY_GAP = 0.005
Metric = Callable[[Sequence[Record]], float | None]


def tested(what: str) -> Metric:
    """Quality at the end, on the held-out data in order ("accuracy", "loss", "ece")."""
    return partial(final_quality, what=what)


def difference(a: float, b: float) -> float:
    return a - b


def ratio(a: float, b: float) -> float:
    return a / b


def comparison(
    one: str,
    other: str,
    measure: Metric,
    how: Callable[[float, float], float],
    *,
    name: str,
    text: str,
    where: str,
    metric: str,
    expected: str,
    reported: str = "",
    on: str = "",
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
    unit: Literal["", "points"] = "",
    effect: float | None = None,
    control: tuple[str, str] | None = None,
    control_by: Literal["accuracy", "loss"] = "accuracy",
    needs: tuple[Condition, ...] = (),
) -> Claim:
    """A claim on `how` of what `measure` finds in the runs `one` and `other`; infinite where that divides by zero.

    `control` names a dense run and its control: without a clear difference between them the claim is not judged.
    """

    def see(records: Records) -> Seen | None:
        a, b = measure(records[one]), measure(records[other])
        if a is None or b is None:
            return None
        reason = f"{one} {a:.4g}, {other} {b:.4g}"
        if measure in (mean_density, middle_density):
            reason += "".join(f"; {run}: {text}" for run in (one, other) if (text := collapse(records[run])))
        try:
            return Seen(how(a, b), reason)
        except ZeroDivisionError:
            return Seen(math.inf, reason)

    return Claim(
        name=name,
        text=text,
        where=where,
        metric=metric,
        expected=expected,
        reported=reported,
        runs=(one, other),
        on=on or f"{one} against {other}",
        see=see,
        at_least=at_least,
        above=above,
        at_most=at_most,
        below=below,
        compares=True,
        unit=unit,
        effect=effect,
        control=control,
        control_by=control_by,
        needs=needs,
    )


def if_mlps_are_used(dense: Training, *claims: Claim) -> tuple[Claim, ...]:
    """The claims, judged only where a training clearly beats its control without MLPs: a T5 by loss."""
    control, by = (dense.name, without_mlps(dense).name), "loss" if isinstance(dense.task, T5Task) else "accuracy"
    return tuple(replace(claim, control=control, control_by=by) for claim in claims)
