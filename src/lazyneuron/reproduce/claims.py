"""The paper's claims (arXiv 2210.06313) as objects that judge the records of one run, and never force a verdict."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean

from lazyneuron.record import Record
from lazyneuron.reproduce.claim import Claim, Judgement, decide, nothing
from lazyneuron.reproduce.theory import bonferroni_z
from lazyneuron.reproduce.topk_claims import TOPK_CLAIMS

INITIAL_DENSITY = (0.45, 0.55)
SPARSER_FACTOR = 0.5
FEW_PERCENT = 0.10
SPLIT_GAP = 0.10


Layers = dict[tuple[str, int | None], float]


def densities(records: Sequence[Record], step: int, split: str = "eval") -> Layers:
    """Density by (stack, layer) at a step."""
    chosen = (r for r in records if r.what == "density" and r.step == step and r.split == split)
    return {(r.stack, r.layer): r.value for r in chosen}


def _start_and_end(records: Sequence[Record]) -> tuple[Layers, Layers, int] | None:
    """Held-out densities at step 0 and at the last step measured; None for a run with no step after 0."""
    steps = {r.step for r in records if r.what == "density" and r.step is not None}
    if not steps or (last := max(steps)) == 0:
        return None
    return densities(records, 0), densities(records, last), last


def _place(layer: tuple[str, int | None]) -> str:
    return f"{layer[0]} layer {layer[1]}".strip()


def _judge_start(records: Sequence[Record]) -> Judgement:
    if not (start := densities(records, 0)):
        return nothing("density at step 0")
    layer, value = max(start.items(), key=lambda item: abs(item[1] - 0.5))
    low, high = INITIAL_DENSITY
    return decide(value, low <= value <= high, f"farthest from 0.5 of {len(start)} layers: {_place(layer)}")


def _judge_every_layer(records: Sequence[Record]) -> Judgement:
    if (found := _start_and_end(records)) is None:
        return nothing("density after training")
    start, end, step = found
    ratios = {layer: end[layer] / start[layer] for layer in end}
    layer, value = max(ratios.items(), key=lambda item: item[1])
    late = sum(ratio > SPARSER_FACTOR for ratio in ratios.values())
    reason = f"{late} of {len(ratios)} layers above it after {step} steps; the largest is {_place(layer)}"
    return decide(value, value <= SPARSER_FACTOR, reason)


def _judge_few_percent(records: Sequence[Record]) -> Judgement:
    if (found := _start_and_end(records)) is None:
        return nothing("density after training")
    _, end, step = found
    lowest, highest = min(end.values()), max(end.values())
    reason = f"mean of {len(end)} layers from {lowest:.3f} to {highest:.3f} after {step} steps"
    return decide(fmean(end.values()), fmean(end.values()) <= FEW_PERCENT, reason)


def _judge_stacks(records: Sequence[Record]) -> Judgement:
    if (found := _start_and_end(records)) is None:
        return nothing("density after training")
    start, end, _ = found
    ratios = {}
    for stack in sorted({stack for stack, _ in end}):
        before, after = (fmean(v for (s, _), v in layers.items() if s == stack) for layers in (start, end))
        ratios[stack or "the one stack"] = after / before
    value = max(ratios.values())
    reason = ", ".join(f"{stack} {ratio:.2f}" for stack, ratio in ratios.items())
    return decide(value, value <= SPARSER_FACTOR, reason)


def _judge_splits(records: Sequence[Record]) -> Judgement:
    if (found := _start_and_end(records)) is None:
        return nothing("density after training")
    _, end, step = found
    train = densities(records, step, "train")
    gaps = {layer: abs(train[layer] - end[layer]) / end[layer] for layer in end.keys() & train.keys() if end[layer]}
    if not gaps:
        return nothing("density on both splits")
    layer, value = max(gaps.items(), key=lambda item: item[1])
    return decide(value, value < SPLIT_GAP, f"largest over {len(gaps)} layers: {_place(layer)}")


def _judge_ends(records: Sequence[Record]) -> Judgement:
    if (found := _start_and_end(records)) is None:
        return nothing("density after training")
    _, end, _ = found
    ratios = {}
    for stack in sorted({stack for stack, _ in end}):
        layers = [v for (s, _), v in sorted(end.items(), key=lambda item: item[0][1] or 0) if s == stack]
        if len(layers) < 3 or not (middle := fmean(layers[1:-1])):
            return Judgement(None, "cannot tell", "a stack needs three layers to have a middle")
        ratios[stack or "the one stack"] = (layers[0] / middle, layers[-1] / middle)
    value = min(min(pair) for pair in ratios.values())
    seen = "; ".join(f"{stack}: first {a:.2f}, last {b:.2f}" for stack, (a, b) in ratios.items())
    return decide(value, value > 1, f"density over that of the middle layers: {seen}")


def _cases(records: Sequence[Record], what: str) -> dict[str, Record]:
    return {r.case: r for r in records if r.what == what}


def _z(value: float, error: float | None) -> float:
    return value / error if error else math.copysign(math.inf, value) if value else 0.0


def _judge_signs(records: Sequence[Record]) -> Judgement:
    if not (found := _cases(records, "gradient_min_z")):
        return nothing("gradient of a case")
    case, worst = min(found.items(), key=lambda item: item[1].value)
    num_tests = int(sum(r.value for r in _cases(records, "num_active_neurons").values()))
    needed = bonferroni_z(num_tests)
    reason = f"smallest z of {num_tests} active neurons in {len(found)} cases: {case}; {needed:.1f} is needed"
    if worst.value >= needed:
        return Judgement(worst.value, "holds", reason)
    return Judgement(worst.value, "does not hold" if worst.value <= -needed else "cannot tell", reason)


def _judge_closed_forms(records: Sequence[Record]) -> Judgement:
    seen, closed = _cases(records, "gradient"), _cases(records, "gradient_closed_form")
    if not (both := seen.keys() & closed.keys()):
        return nothing("closed form")

    def gap(case: str) -> float:
        a, b = seen[case], closed[case]
        return abs(_z(a.value - b.value, math.hypot(a.error or 0, b.error or 0)))

    case = max(sorted(both), key=gap)
    needed = bonferroni_z(len(both), alpha=0.005)
    return decide(gap(case), gap(case) <= needed, f"largest of {len(both)} cases: {case}; at most {needed:.1f}")


def _judge_controls(records: Sequence[Record]) -> Judgement:
    found = [r for r in records if r.what == "gradient_control"]
    if not found:
        return nothing("control")
    highest = max(found, key=lambda r: _z(r.value, r.error))
    value = _z(highest.value, highest.error)
    return decide(value, value <= 0, f"largest z of {len(found)} controls: {highest.case}")


def _judge_step0(records: Sequence[Record], transformers: bool) -> Judgement:
    step0 = [r for r in records if r.what == "gradient_step0" and r.error is not None]
    found = [r for r in step0 if (r.case != "mlp") == transformers]
    if not found:
        return nothing("gradient of such a network at step 0")
    scores = [_z(r.value, r.error) for r in found]
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
        return Judgement(value, "does not hold", reason)
    return Judgement(value, "holds" if positive == len(found) else "cannot tell", reason)


_LOW, _HIGH = INITIAL_DENSITY
CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            name="half-active-at-start",
            text="At initialisation every ReLU MLP layer is about 50 % nonzero.",
            where="Fig. 1",
            metric="density at step 0 of the layer farthest from 0.5",
            expected=f"between {_LOW} and {_HIGH} (ours)",
            judge=_judge_start,
        ),
        Claim(
            name="every-layer-sparser",
            text="After training every layer is far sparser than at initialisation.",
            where="Fig. 1 and 2",
            metric="largest ratio, over layers, of final to initial density",
            expected=f"at most {SPARSER_FACTOR} (ours)",
            judge=_judge_every_layer,
        ),
        Claim(
            name="few-percent-active",
            text="After training only a few percent of neurons are active on average (2.7 % T5-Base, 6.3 % ViT-B16).",
            where="Fig. 1",
            metric="mean density over layers at the end",
            expected=f"at most {FEW_PERCENT} (ours)",
            judge=_judge_few_percent,
        ),
        Claim(
            name="every-stack-sparse",
            text="Sparsity emerges in the encoder, in the decoder, and in vision as in language.",
            where="Fig. 2a",
            metric="largest ratio, over stacks, of final to initial mean density",
            expected=f"at most {SPARSER_FACTOR} (ours)",
            judge=_judge_stacks,
        ),
        Claim(
            name="train-like-eval",
            text="Training and evaluation data give the same densities.",
            where="Fig. 2b",
            metric="largest relative gap, over layers, between the two",
            expected=f"below {SPLIT_GAP} (ours)",
            judge=_judge_splits,
        ),
        Claim(
            name="ends-denser-than-middle",
            text="The first and the last layers are denser than the middle ones.",
            where="Fig. 2",
            metric="smallest ratio, over stacks, of first or last layer to the middle",
            expected="above 1",
            judge=_judge_ends,
        ),
        Claim(
            name="theorem-sign",
            text="Below a random output layer the expected gradient on every active pre-activation is positive.",
            where="Theorem 3.1",
            metric="smallest z of one active neuron's mean gradient",
            expected="above the Bonferroni z at 5 %",
            judge=_judge_signs,
        ),
        Claim(
            name="theorem-closed-forms",
            text="For squared error, and for cross-entropy with Gaussian weights, that gradient has a closed form.",
            where="Theorem 3.1, derived",
            metric="largest distance from the closed form, in standard errors",
            expected="at most the Bonferroni z at 1 %",
            judge=_judge_closed_forms,
        ),
        Claim(
            name="theorem-controls",
            text="Where an assumption of the theorem is broken the sign is lost, as it should be.",
            where="Theorem 3.1, controls",
            metric="largest z of the mean gradient over the controls",
            expected="at most 0",
            judge=_judge_controls,
        ),
        Claim(
            name="theorem-step0-mlp",
            text="In a real 2-layer MLP at step 0 the mean gradient on active pre-activations is positive.",
            where="Theorem 3.1",
            metric="z of the mean gradient over its root mean square",
            expected="above the Bonferroni z at 5 %",
            judge=partial(_judge_step0, transformers=False),
        ),
        Claim(
            name="theorem-step0-transformer",
            text="In a real Transformer at step 0 the mean gradient on active pre-activations is positive.",
            where="Theorem 3.1, read for whole networks",
            metric="smallest z over layers of the mean gradient over its root mean square",
            expected="every layer above the Bonferroni z at 5 %",
            judge=partial(_judge_step0, transformers=True),
        ),
        *TOPK_CLAIMS,
    )
}
TRAINING_CLAIMS = tuple(name for name in CLAIMS if not name.startswith(("theorem-", "topk-")))
THEORY_CLAIMS = tuple(name for name in CLAIMS if name.startswith("theorem-"))
