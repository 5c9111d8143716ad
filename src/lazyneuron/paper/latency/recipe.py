"""Section 4: milliseconds per decoded token, dense and under Top-k, and what skipping inactive neurons changes."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.latency import LATENCY, LESS_TIME
from lazyneuron.paper.latency.run import Latency
from lazyneuron.paper.latency.skipping import Skipping
from lazyneuron.paper.lines import TIME, under
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.trainings import t5, vit
from lazyneuron.records.record import Record


def latency(scale: Scale) -> Recipe:
    """Costs minutes; the timing runs alone.

    Decoders of T5's sizes with random weights, dense against Top-k exploited without loss, in turns, and what skipping
    inactive neurons changes in the outputs of trained models.

    | | paper | here |
    | --- | --- | --- |
    | machine | one TPUv4 | the CPU that it runs on, all cores |
    | sizes | up to T5-11B | Small, Base, Large |
    | weights | trained with Top-k | random: time alone is measured |
    | Top-k | approximate, recall 0.95 | exact, the same tokens as masked Top-k |
    | what is skipped | not stated | rows of up and down that are certainly inactive |
    | precision | not stated | fp32 |
    | compared with | dense | dense in torch and on our threads, in the same round |
    """
    sizes = {"smoke": ("small",), "quick": ("small", "base")}.get(scale, ("small", "base", "large"))
    budgets = {"smoke": (32, 512)}.get(scale, (32, 128, 512, 2048))
    tokens, rounds = {"smoke": (4, 1), "quick": (16, 6)}.get(scale, (16, 9))
    decoding = Latency(name="latency", sizes=sizes, budgets=budgets, num_tokens=tokens, num_rounds=rounds)
    skipping = Skipping(name="skipping", of=(t5(scale), vit(scale)), num_batches=4)
    return Recipe(
        experiment=LATENCY,
        runs=(decoding, skipping),
        claims=(
            skipping_changes_nothing("skipping"),
            flops_are_density("skipping"),
            *under(
                TIME,
                *(decoding_gains("latency", size, budgets[1 if len(budgets) > 2 else 0]) for size in sizes),
                *(larger_gains_more("latency", sizes[0], size, budgets[0]) for size in sizes[1:][-1:]),
                smaller_k_gains_more("latency", sizes[-1], budgets[0], budgets[-1]),
            ),
        ),
    )


def skipping_changes_nothing(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in records[run] if r.what == "skip_error"]
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
        runs=(run,),
        is_check=True,
        see=see,
        at_most=1,
        every_seed=True,
    )


def flops_are_density(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        done = {(r.case, r.site): r.value for r in records[run] if r.what == "skip_flops_share"}
        share = {(r.case, r.site): r.value for r in records[run] if r.what == "density"}
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
        runs=(run,),
        is_check=True,
        see=see,
        below=1e-9,
        every_seed=True,
    )


def decoding_gains(run: str, size: str, budget: int) -> Claim:
    def see(records: Records) -> Seen | None:
        return above_one(list(speedups(records[run], size, budget).values()))

    return Claim(
        name="decoding-gains",
        text="Unbatched greedy decoding gains from Top-k.",
        where="Section 4",
        metric="times as fast as the fastest dense of the round, median of rounds",
        expected="above 1",
        reported=f"about {1 / (1 - LESS_TIME):.1f} (T5-11B, k at most 128, TPUv4)",
        runs=(run,),
        on=f"{size}, k = {budget}",
        see=see,
        above=1,
    )


def larger_gains_more(run: str, small: str, large: str, budget: int) -> Claim:
    def see(records: Records) -> Seen | None:
        return above_one(_ratios(*(speedups(records[run], size, budget) for size in (large, small))))

    return Claim(
        name="larger-gains-more",
        text="Larger models gain more.",
        where="Section 4",
        metric="speed-up of the largest over that of the smallest, median of rounds",
        expected="above 1",
        runs=(run,),
        on=f"{large} against {small}, k = {budget}",
        see=see,
        above=1,
        compares=True,
    )


def smaller_k_gains_more(run: str, size: str, small: int, large: int) -> Claim:
    def see(records: Records) -> Seen | None:
        return above_one(_ratios(*(speedups(records[run], size, budget) for budget in (small, large))))

    return Claim(
        name="smaller-k-gains-more",
        text="A smaller k gains more.",
        where="Section 4",
        metric="speed-up with the smallest k over that with the largest, median of rounds",
        expected="above 1",
        runs=(run,),
        on=size,
        see=see,
        above=1,
        compares=True,
    )


def speedups(records: Sequence[Record], size: str, budget: float) -> dict[int, float]:
    """By round, how much faster a token is than the faster dense one: torch's beside it, or ours on all threads."""
    found: dict[int, float] = {}
    for record in records:
        if record.what in ("speedup", "speedup_threads") and (record.case, record.x) == (size, budget):
            number = record.step or 0
            found[number] = min(record.value, found.get(number, math.inf))
    return found


def _ratios(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [one[number] / other[number] for number in one.keys() & other.keys()]


def above_one(ratios: Sequence[float]) -> Seen | None:
    """Whether the median of rounds is above 1: its 95 % interval between two order statistics of the ratios decides.

    It assumes nothing but that rounds are independent (David and Nagaraja, Order Statistics, 2003, section 7.1): noise
    on a busy machine has long tails. Fewer than six rounds have no such interval.
    """
    if not ratios:
        return None
    ordered, count = sorted(ratios), len(ratios)
    middle = median(ordered)
    seen = f"median of {count} rounds {middle:.3f}, from {ordered[0]:.3f} to {ordered[-1]:.3f}"
    outside = 0
    while 2 * sum(math.comb(count, n) for n in range(outside + 1)) <= 0.05 * 2**count:
        outside += 1
    if not outside:
        return Seen(middle, f"{seen}; fewer than six rounds cannot tell", "cannot tell")
    low, high = ordered[outside - 1], ordered[-outside]
    verdict = "holds" if low > 1 else "does not hold" if high <= 1 else "cannot tell"
    return Seen(middle, f"{seen}; 95 % interval {low:.3f} to {high:.3f}", verdict)
