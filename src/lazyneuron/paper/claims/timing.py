"""Claims about time: decoding under Top-k, and statistical top-k beside what it keeps."""

import math
from collections.abc import Sequence
from statistics import fmean

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.records.record import Record

KEPT_GAP = 0.05
LINEAR = 1.15


def _speedup(records: Sequence[Record], size: str, budget: float) -> float | None:
    found = [r.value for r in records if r.what == "speedup" and r.case == size and r.x == budget]
    return found[0] if found else None


def decoding_gains(study: str, size: str, budget: int) -> Claim:
    def see(records: Records) -> Seen | None:
        value = _speedup(records[study], size, budget)
        return (
            None if value is None else Seen(value, "the fastest dense token, on our threads too, over an exploited one")
        )

    return Claim(
        name="decoding-gains",
        text="Unbatched greedy decoding gains from Top-k.",
        where="Section 4",
        metric="times as fast as the fastest dense",
        expected="above 1",
        reported="about 1.1 (T5-11B, k at most 128, TPUv4)",
        runs=(study,),
        on=f"{size}, k = {budget}",
        see=see,
        above=1,
    )


def larger_gains_more(study: str, small: str, large: str, budget: int) -> Claim:
    def see(records: Records) -> Seen | None:
        a, b = (_speedup(records[study], size, budget) for size in (large, small))
        return None if a is None or b is None else Seen(a / b, f"{large} {a:.2f}, {small} {b:.2f} times")

    return Claim(
        name="larger-gains-more",
        text="Larger models gain more.",
        where="Section 4",
        metric="speed-up of the largest over that of the smallest",
        expected="above 1",
        runs=(study,),
        on=f"{large} against {small}, k = {budget}",
        see=see,
        above=1,
        compares=True,
    )


def smaller_k_gains_more(study: str, size: str, small: int, large: int) -> Claim:
    def see(records: Records) -> Seen | None:
        a, b = (_speedup(records[study], size, budget) for budget in (small, large))
        return None if a is None or b is None else Seen(a / b, f"k = {small}: {a:.2f}, k = {large}: {b:.2f} times")

    return Claim(
        name="smaller-k-gains-more",
        text="A smaller k gains more.",
        where="Section 4",
        metric="speed-up with the smallest k over that with the largest",
        expected="above 1",
        runs=(study,),
        on=size,
        see=see,
        above=1,
        compares=True,
    )


def keeps_about_k(study: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in records[study] if r.what == "kept_ratio" and r.case == "gaussian"]
        if not found:
            return None
        worst = max(found, key=lambda r: abs(r.value - 1))
        return Seen(abs(worst.value - 1), f"largest of {len(found)} densities: asked for {worst.x:g}")

    return Claim(
        name="statistical-keeps-k",
        text="Statistical top-k keeps about k of Gaussian input.",
        where="arXiv 2506.06644",
        metric="relative gap between neurons kept and k",
        expected=f"at most {KEPT_GAP} (ours)",
        runs=(study,),
        see=see,
        at_most=KEPT_GAP,
    )


def statistical_is_linear(study: str) -> Claim:
    def see(records: Records) -> Seen | None:
        points = [(math.log(r.x or 1), math.log(r.value)) for r in records[study] if r.what == "statistical_ms"]
        if len(points) < 2:
            return None
        (x, y), (wider, slower) = sorted(points)[-2:]
        return Seen((slower - y) / (wider - x), f"from width {math.exp(x):.0f} to {math.exp(wider):.0f}")

    return Claim(
        name="statistical-is-linear",
        text="Statistical top-k takes time about in proportion to the width.",
        where="arXiv 2506.06644",
        metric="exponent of the time in d, at the two largest widths",
        expected=f"at most {LINEAR} (ours; a factor log d would be about 0.1 of it)",
        runs=(study,),
        see=see,
        at_most=LINEAR,
    )


def statistical_on_real_maps(study: str, run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in records[study] if r.what == "kept_ratio" and r.case == run]
        if not found:
            return None
        worst = max(found, key=lambda r: abs(math.log(r.value)) if r.value else math.inf)
        mean = fmean(r.value for r in found)
        where = f"{worst.site}, asked for {worst.x:g}"
        return Seen(worst.value, f"farthest of {len(found)} layers and densities: {where}; mean {mean:.2f}")

    return Claim(
        name="statistical-on-real-maps",
        text="On a trained model's pre-activations statistical top-k keeps about k too.",
        where="arXiv 2506.06644, measured",
        metric="neurons kept over k, the farthest from 1 of all layers",
        expected="between 0.5 and 2 (ours)",
        runs=(study,),
        on=run,
        see=see,
        at_least=0.5,
        at_most=2,
    )
