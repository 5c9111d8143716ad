"""Claims of Theorem 3.1: each judges by the standard errors of its own Monte Carlo, seed by seed."""

import math
from collections.abc import Sequence

from lazyneuron.paper.claim import Claim, Seen
from lazyneuron.paper.lines import THEOREM, under
from lazyneuron.paper.theorem31.gradient import CONTROLS, bonferroni_z, z_score
from lazyneuron.records.record import Record


def _cases(records: Sequence[Record], what: str) -> dict[str, Record]:
    return {r.case: r for r in records if r.what == what}


def _see_signs(records: Sequence[Record]) -> Seen | None:
    if not (found := _cases(records, "gradient_min_z")):
        return None
    case, worst = min(found.items(), key=lambda item: item[1].value)
    num_tests = int(sum(r.value for r in _cases(records, "num_active_neurons").values()))
    needed = bonferroni_z(num_tests)
    reason = f"smallest z of {num_tests} active neurons in {len(found)} cases: {case}; {needed:.1f} is needed"
    if worst.value >= needed:
        return Seen(worst.value, reason, "holds")
    return Seen(worst.value, reason, "does not hold" if worst.value <= -needed else "cannot tell")


def _see_closed_forms(records: Sequence[Record]) -> Seen | None:
    seen, closed = _cases(records, "gradient"), _cases(records, "gradient_closed_form")
    if not (both := seen.keys() & closed.keys()):
        return None

    def gap(case: str) -> float:
        a, b = seen[case], closed[case]
        return abs(z_score(a.value - b.value, math.hypot(a.error or 0, b.error or 0)))

    case = max(sorted(both), key=gap)
    needed = bonferroni_z(len(both), alpha=0.005)
    verdict = "holds" if gap(case) <= needed else "does not hold"
    return Seen(gap(case), f"largest of {len(both)} cases: {case}; at most {needed:.1f}", verdict)


def _see_controls(records: Sequence[Record]) -> Seen | None:
    """The control that shows its sign least: z of minus the mean, or, where the gradient is zero, its very value."""
    found = {r.case: r for r in records if r.what == "gradient_control"}
    signs = {case.name: sign for case, sign in CONTROLS.items() if case.name in found}
    if not signs:
        return None
    broken = [name for name, sign in signs.items() if sign == 0 and found[name].value != 0]
    if broken:
        return Seen(math.inf, f"{broken[0]} should be exactly 0", "does not hold")
    scores = {name: z_score(found[name].value, found[name].error) for name, sign in signs.items() if sign}
    if not scores:
        return None
    name = max(scores, key=lambda name: scores[name])
    needed = bonferroni_z(len(scores))
    verdict = "holds" if scores[name] <= -needed else "does not hold" if scores[name] >= needed else "cannot tell"
    reason = f"largest z of {len(scores)} controls that should be negative: {name}; -{needed:.1f} is needed"
    return Seen(scores[name], reason, verdict)


def _see_step0(records: Sequence[Record], transformers: bool) -> Seen | None:
    step0 = [r for r in records if r.what == "gradient_step0" and r.error is not None]
    found = [r for r in step0 if (r.case != "mlp") == transformers]
    if not found:
        return None
    scores = [z_score(r.value, r.error) for r in found]
    needed, against = bonferroni_z(len(found)), bonferroni_z(len(found), alpha=0.005)
    positive, negative = sum(z >= needed for z in scores), sum(z <= -against for z in scores)
    value = min(scores)
    reason = (
        f"positive in {positive} of {len(found)} layers (z >= {needed:.1f}), negative in {negative} "
        f"(z <= -{against:.1f}), within noise of 0 in {len(found) - positive - negative}"
    )
    if transformers and positive < len(found):
        reason += ". A norm below a random isotropic head makes the expected loss the same whatever is below it"
    if negative:
        return Seen(value, reason, "does not hold")
    return Seen(value, reason, "holds" if positive == len(found) else "cannot tell")


def theorem(run: str) -> tuple[Claim, ...]:
    """Every claim of Theorem 3.1 on the run of that name."""
    return (
        *under(
            THEOREM,
            Claim(
                name="theorem-sign",
                text="Below a random output layer the expected gradient on every active pre-activation is positive.",
                where="Theorem 3.1",
                metric="smallest z of one active neuron's mean gradient",
                expected="above the Bonferroni z at 5 %",
                runs=(run,),
                is_check=True,
                see=lambda records: _see_signs(records[run]),
            ),
            Claim(
                name="theorem-step0-mlp",
                text="In a real 2-layer MLP at step 0 the mean gradient on active pre-activations is positive.",
                where="Theorem 3.1",
                metric="z of the mean gradient over its root mean square",
                expected="above the Bonferroni z at 5 %",
                runs=(run,),
                is_check=True,
                see=lambda records: _see_step0(records[run], transformers=False),
            ),
            Claim(
                name="theorem-step0-transformer",
                text="In a real Transformer at step 0 the mean gradient on active pre-activations is positive.",
                where="Theorem 3.1, read for whole networks",
                metric="smallest z over layers of the mean gradient over its root mean square",
                expected="every layer above the Bonferroni z at 5 %",
                runs=(run,),
                see=lambda records: _see_step0(records[run], transformers=True),
            ),
        ),
        Claim(
            name="theorem-closed-forms",
            text="For squared error, and for cross-entropy with Gaussian weights, that gradient has a closed form.",
            where="Theorem 3.1, derived",
            metric="largest distance from the closed form, in standard errors",
            expected="at most the Bonferroni z at 1 %",
            runs=(run,),
            is_check=True,
            see=lambda records: _see_closed_forms(records[run]),
        ),
        Claim(
            name="theorem-controls",
            text="Where an assumption of the theorem is broken the sign is lost, as it should be.",
            where="Theorem 3.1, controls",
            metric="largest z of the mean gradient over the controls",
            expected="below minus the Bonferroni z at 5 %, and exactly 0 with one class",
            runs=(run,),
            is_check=True,
            see=lambda records: _see_controls(records[run]),
        ),
    )
