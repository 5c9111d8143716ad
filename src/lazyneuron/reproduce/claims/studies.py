"""Claims about what trained models do: firing neurons, skipped zeros, robustness, decoding, statistical top-k."""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from lazyneuron.record import Record
from lazyneuron.reproduce.claim import Claim, Records, Seen
from lazyneuron.reproduce.claims.comparison import QUALITY_GAP, compared, tested

SELDOM = 0.10
SELDOM_SHARE = 0.90
KEPT_GAP = 0.05
LINEAR = 1.15
NOISES = ("gaussian_noise", "impulse_noise", "shot_noise")


def _first_encoder_layer(records: Iterable[Record], what: str) -> list[Record]:
    return [r for r in records if r.what == what and r.stack in ("encoder", "") and r.layer == 0]


def no_neuron_dead(study: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = _first_encoder_layer(records[study], "never_fired")
        return Seen(found[0].value, f"over {found[0].num_tokens or 0:,} tokens") if found else None

    return Claim(
        name="no-neuron-dead",
        text="No neuron of the first encoder layer is dead over 400,000 tokens.",
        where="Fig. 3",
        metric="neurons that never fired",
        expected="0",
        reported="0; the least firing 0.00001 of the time",
        runs=(study,),
        see=see,
        at_most=0,
        every_seed=True,
    )


def most_fire_seldom(study: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in _first_encoder_layer(records[study], "fires_below") if r.x == SELDOM]
        return Seen(found[0].value, f"over {found[0].num_tokens or 0:,} tokens") if found else None

    return Claim(
        name="most-fire-seldom",
        text="Most neurons of the first encoder layer fire less than 10 % of the time.",
        where="Fig. 3",
        metric="fraction of its neurons that do",
        expected=f"at least {SELDOM_SHARE} (ours)",
        reported="0.935",
        runs=(study,),
        see=see,
        at_least=SELDOM_SHARE,
    )


def skipping_changes_nothing(study: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in records[study] if r.what == "skip_error"]
        if not found:
            return None
        worst = max(found, key=lambda r: r.value)
        return Seen(worst.value, f"largest of {len(found)} layers: {worst.case} {worst.site}")

    return Claim(
        name="skipping-changes-nothing",
        text="Skipping inactive neurons in the down projection leaves outputs unchanged.",
        where="Section 4",
        metric="error against float64 over that of the dense product in float32",
        expected="at most 2 (rounding alone)",
        reported="unchanged",
        runs=(study,),
        see=see,
        at_most=2,
        every_seed=True,
    )


def flops_are_density(study: str) -> Claim:
    def see(records: Records) -> Seen | None:
        done = {(r.case, r.site): r.value for r in records[study] if r.what == "skip_flops_share"}
        share = {(r.case, r.site): r.value for r in records[study] if r.what == "density"}
        if not (both := done.keys() & share.keys()):
            return None
        gap = max(abs(done[key] / share[key] - 1) for key in both)
        return Seen(gap, f"counted in {len(both)} layers")

    return Claim(
        name="second-layer-flops",
        text="The second layer's FLOPs are the density times the dense ones.",
        where="Section 4",
        metric="largest relative gap between FLOPs counted and density times dense",
        expected="below 1e-9",
        runs=(study,),
        see=see,
        below=1e-9,
        every_seed=True,
    )


def _corrupted(run: str, corruption: str) -> Callable[[Sequence[Record]], float | None]:
    def metric(records: Sequence[Record]) -> float | None:
        case = f"{run} {corruption}"
        found = [r.value for r in records if r.what == "accuracy" and r.case == case]
        return fmean(found) if found else None

    return metric


def topk_natural(topk: str, dense: str) -> Claim:
    return Claim(
        name="topk-natural-accuracy",
        text="Top-k leaves natural accuracy as it is.",
        where="Table 1",
        metric="accuracy under Top-k less that of the dense model, its size",
        expected=f"at most {QUALITY_GAP} (ours)",
        reported="0.0002 (74.83 against 74.85 %)",
        runs=(topk, dense),
        on=f"{topk} against {dense}",
        see=compared(tested("accuracy"), topk, dense, lambda a, b: abs(a - b)),
        at_most=QUALITY_GAP,
        compares=True,
    )


def topk_label_noise(topk: str, dense: str, percent: int, reported: str) -> Claim:
    return Claim(
        name=f"topk-label-noise-{percent}",
        text=f"Top-k raises accuracy where {percent} % of the training labels are random.",
        where="Table 1",
        metric="accuracy under Top-k less that of the dense model",
        expected="above 0",
        reported=reported,
        runs=(topk, dense),
        on=f"{topk} against {dense}",
        see=compared(tested("accuracy"), topk, dense, lambda a, b: a - b),
        above=0,
        compares=True,
    )


def topk_noise_gains_grow(at_80: tuple[str, str], at_40: tuple[str, str]) -> Claim:
    accuracy = tested("accuracy")

    def see(records: Records) -> Seen | None:
        gains = []
        for topk, dense in (at_80, at_40):
            a, b = accuracy(records[topk]), accuracy(records[dense])
            if a is None or b is None:
                return None
            gains.append(a - b)
        return Seen(gains[0] - gains[1], f"{gains[0]:+.3f} at 80 %, {gains[1]:+.3f} at 40 %")

    return Claim(
        name="topk-label-noise-grows",
        text="Top-k gains more at 80 % label noise than at 40 %.",
        where="Table 1",
        metric="gain in accuracy at 80 % less that at 40 %",
        expected="above 0",
        reported="0.0276 (5.45 against 2.69 points)",
        runs=(*at_80, *at_40),
        on=f"{at_80[0]}, {at_40[0]}",
        see=see,
        above=0,
        compares=True,
    )


def topk_input_noise(study: str, topk: str, dense: str, corruption: str, reported: str) -> Claim:
    def see(records: Records) -> Seen | None:
        a, b = (_corrupted(run, corruption)(records[study]) for run in (topk, dense))
        return None if a is None or b is None else Seen(a - b, f"{topk} {a:.4f}, {dense} {b:.4f}")

    return Claim(
        name=f"topk-{corruption.replace('_', '-')}",
        text=f"Top-k raises accuracy under {corruption.removesuffix('_noise')} noise.",
        where="Table 1",
        metric="accuracy, mean of 5 severities, under Top-k less that of the dense model",
        expected="above 0",
        reported=reported,
        runs=(study,),
        on=f"{topk} against {dense}",
        see=see,
        above=0,
        compares=True,
    )


def topk_calibration(topk: str, dense: str) -> Claim:
    return Claim(
        name="topk-calibration",
        text="Top-k lowers the expected calibration error.",
        where="Table 1",
        metric="ECE under Top-k less that of the dense model",
        expected="below 0",
        reported="-0.0094 (7.48 against 8.42 %)",
        runs=(topk, dense),
        on=f"{topk} against {dense}",
        see=compared(tested("ece"), topk, dense, lambda a, b: a - b),
        below=0,
        compares=True,
    )


def topk_all_corruptions(study: str, topk: str, dense: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r.value for r in records[study] if r.what == "mce" and r.case == topk]
        return Seen(found[0], f"the mean over corruptions of {topk}'s error over {dense}'s") if found else None

    return Claim(
        name="topk-corruptions",
        text="Top-k lowers the error under common corruptions.",
        where="Appendix, beyond the paper's three",
        metric="mean corruption error, the dense model's being 1",
        expected="below 1",
        runs=(study,),
        on=f"{topk} against {dense}",
        see=see,
        below=1,
        compares=True,
    )


def _speedup(records: Sequence[Record], size: str, budget: float) -> float | None:
    found = [r.value for r in records if r.what == "speedup" and r.case == size and r.x == budget]
    return found[0] if found else None


def decoding_gains(study: str, size: str, budget: int) -> Claim:
    def see(records: Records) -> Seen | None:
        value = _speedup(records[study], size, budget)
        return None if value is None else Seen(value, "median time of a dense token over that of an exploited one")

    return Claim(
        name="decoding-gains",
        text="Unbatched greedy decoding gains from Top-k.",
        where="Section 4",
        metric="times as fast as dense",
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
        mean_x, mean_y = (fmean(axis) for axis in zip(*points, strict=True))
        slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
        return Seen(slope, f"slope of log time over log width at {len(points)} widths")

    return Claim(
        name="statistical-is-linear",
        text="Statistical top-k takes time in proportion to the width.",
        where="arXiv 2506.06644",
        metric="exponent of the time in d",
        expected=f"at most {LINEAR} (ours)",
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
        return Seen(
            mean,
            f"{len(found)} layers and densities; farthest {worst.value:.2f} at {worst.site}, asked for {worst.x:g}",
        )

    return Claim(
        name="statistical-on-real-maps",
        text="On a trained model's pre-activations statistical top-k keeps about k too.",
        where="arXiv 2506.06644, measured",
        metric="neurons kept over k, mean over layers",
        expected="between 0.5 and 2 (ours)",
        runs=(study,),
        on=run,
        see=see,
        at_least=0.5,
        at_most=2,
    )
