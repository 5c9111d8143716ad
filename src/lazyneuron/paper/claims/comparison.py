"""Claims about the difference between two trainings that differ in one thing, paired by seed."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.claims.density import mean_density, middle_density
from lazyneuron.records.record import Record

SCALE_GAP = 0.25
QUALITY_GAP = 0.005
Metric = Callable[[Sequence[Record]], float | None]


def mean_active(records: Sequence[Record]) -> float | None:
    """Active neurons per token at the end on held-out data, mean over layers."""
    found = [r for r in records if r.what == "num_active" and r.split == "eval"]
    last = max((r.step or 0 for r in found), default=0)
    return fmean(r.value for r in found if r.step == last) if last else None


def tested(what: str) -> Metric:
    """Quality at the end, on the held-out data in order ("accuracy", "loss", "ece")."""

    def metric(records: Sequence[Record]) -> float | None:
        return next((r.value for r in records if r.what == what and r.split == "test" and r.case == ""), None)

    return metric


def compared(
    metric: Metric, one: str, other: str, how: Callable[[float, float], float]
) -> Callable[[Records], Seen | None]:
    """`how` of the metric of the run `one` and of the run `other`; infinite where it divides by zero."""

    def see(records: Records) -> Seen | None:
        a, b = metric(records[one]), metric(records[other])
        if a is None or b is None:
            return None
        reason = f"{one} {a:.4g}, {other} {b:.4g}"
        try:
            return Seen(how(a, b), reason)
        except ZeroDivisionError:
            return Seen(math.inf, reason)

    return see


def _difference(a: float, b: float) -> float:
    return a - b


def _ratio(a: float, b: float) -> float:
    return a / b


def scale_of_data(less: str, more: str, on: str) -> Claim:
    return Claim(
        name="data-matters-little",
        text="More data or more classes change the density little.",
        where="Fig. 2c",
        metric="relative change of mean density from less to more data",
        expected=f"between {-SCALE_GAP} and {SCALE_GAP} (ours)",
        reported="little",
        runs=(less, more),
        on=on,
        see=compared(mean_density, more, less, lambda a, b: a / b - 1),
        at_least=-SCALE_GAP,
        at_most=SCALE_GAP,
        compares=True,
    )


def larger_sparser(small: str, large: str) -> Claim:
    return Claim(
        name="larger-is-sparser",
        text="Larger models tend to be sparser.",
        where="Fig. 2d-f",
        metric="mean density of the largest over that of the smallest",
        expected="below 1",
        runs=(large, small),
        on=f"{large} against {small}",
        see=compared(mean_density, large, small, _ratio),
        below=1,
        compares=True,
    )


def deeper_sparser(shallow: str, deep: str) -> Claim:
    return Claim(
        name="deeper-is-sparser",
        text="Deeper models are sparser in their middle layers.",
        where="Fig. 4a",
        metric="density of the middle layers of the deepest over that of the shallowest with a middle",
        expected="below 1",
        reported="below 1 % in the middle of 32 layers",
        runs=(deep, shallow),
        on=f"{deep} against {shallow}",
        see=compared(middle_density, deep, shallow, _ratio),
        below=1,
        compares=True,
    )


def wider_lower_fraction(narrow: str, wide: str) -> Claim:
    return Claim(
        name="wider-lower-fraction",
        text="In wider MLPs a lower fraction of the neurons is active.",
        where="Fig. 4b",
        metric="mean density of the widest over that of the narrowest",
        expected="below 1",
        runs=(wide, narrow),
        on=f"{wide} against {narrow}",
        see=compared(mean_density, wide, narrow, _ratio),
        below=1,
        compares=True,
    )


def wider_higher_count(narrow: str, wide: str) -> Claim:
    return Claim(
        name="wider-higher-count",
        text="In wider MLPs more neurons are active.",
        where="Fig. 4c",
        metric="active neurons per token of the widest over those of the narrowest",
        expected="above 1",
        runs=(wide, narrow),
        on=f"{wide} against {narrow}",
        see=compared(mean_active, wide, narrow, _ratio),
        above=1,
        compares=True,
    )


def relu_costs_little(relu: str, gelu: str) -> Claim:
    return Claim(
        name="relu-costs-little",
        text="ReLU in place of GELU costs little accuracy.",
        where="Section 2",
        metric="accuracy with ReLU less that with GELU, held-out",
        expected=f"at least {-QUALITY_GAP} (ours)",
        reported="-0.002 (47.58 against 47.78 %)",
        runs=(relu, gelu),
        on=f"{relu} against {gelu}",
        see=compared(tested("accuracy"), relu, gelu, _difference),
        at_least=-QUALITY_GAP,
        compares=True,
    )


def topk_enough(topk: str, dense: str, reported: str) -> Claim:
    return Claim(
        name="topk-is-enough",
        text="k of about 4 % (T5) or 8 % (ViT) of d_ff costs about 0.3 points.",
        where="Section 4",
        metric="accuracy under Top-k less that of the dense model, held-out",
        expected=f"at least {-QUALITY_GAP} (ours)",
        reported=reported,
        runs=(topk, dense),
        on=f"{topk} against {dense}",
        see=compared(tested("accuracy"), topk, dense, _difference),
        at_least=-QUALITY_GAP,
        compares=True,
    )


def smaller_k_costs_more(smallest: str, enough: str) -> Claim:
    return Claim(
        name="smaller-k-costs-more",
        text="A much smaller k costs more.",
        where="Section 4",
        metric="loss with the smallest k less that with enough, held-out (nats)",
        expected="above 0",
        runs=(smallest, enough),
        on=f"{smallest} against {enough}",
        see=compared(tested("loss"), smallest, enough, _difference),
        above=0,
        compares=True,
    )


def topk_all_is_dense(all_kept: str, dense: str) -> Claim:
    """That the two runs' numbers are the same, bit for bit."""

    def see(records: Records) -> Seen | None:
        one, other = (
            {(r.what, r.split, r.step, r.site, r.x): r.value for r in records[run]} for run in (all_kept, dense)
        )
        if not (both := one.keys() & other.keys()):
            return None
        differ = sum(one[key] != other[key] for key in both)
        return Seen(differ, f"{len(both):,} numbers of both runs compared, {differ} differ")

    return Claim(
        name="topk-all-is-dense",
        text="k = d_ff is the ordinary model.",
        where="Section 4",
        metric="records of loss, accuracy and density that differ",
        expected="0",
        runs=(all_kept, dense),
        on=f"{all_kept} against {dense}",
        see=see,
        at_most=0,
        every_seed=True,
    )
