"""Claims about what trained models do: firing neurons, skipped zeros, robustness."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.claims.comparison import QUALITY_GAP, compared, tested
from lazyneuron.records.record import Record

SELDOM = 0.10
SELDOM_SHARE = 0.90
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
        metric="error against float64 over the largest that rounding can make in float32",
        expected="at most 1 (rounding alone)",
        reported="unchanged",
        runs=(study,),
        see=see,
        at_most=1,
        every_seed=True,
    )


def flops_are_density(study: str) -> Claim:
    def see(records: Records) -> Seen | None:
        done = {(r.case, r.site): r.value for r in records[study] if r.what == "skip_flops_share"}
        share = {(r.case, r.site): r.value for r in records[study] if r.what == "density"}
        if not (both := done.keys() & share.keys()):
            return None
        gap = max(abs(done[key] - share[key]) for key in both)
        return Seen(gap, f"counted in {len(both)} layers")

    return Claim(
        name="second-layer-flops",
        text="The second layer's FLOPs are the density times the dense ones.",
        where="Section 4",
        metric="largest gap between the share of FLOPs counted and the density",
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
        metric="accuracy under Top-k less that of the dense model",
        expected=f"between {-QUALITY_GAP} and {QUALITY_GAP} (ours)",
        reported="-0.0002 (74.83 against 74.85 %)",
        runs=(topk, dense),
        on=f"{topk} against {dense}",
        see=compared(tested("accuracy"), topk, dense, lambda a, b: a - b),
        at_least=-QUALITY_GAP,
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
