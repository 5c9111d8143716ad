"""Section 4: milliseconds per decoded token, dense and under Top-k, and what skipping inactive neurons changes."""

from collections.abc import Sequence

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.latency import LATENCY, LESS_TIME
from lazyneuron.paper.latency.run import Latency
from lazyneuron.paper.latency.skipping import Skipping
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.trainings import t5, vit
from lazyneuron.records.record import Record


def latency(scale: Scale) -> Recipe:
    """Costs minutes; the timing runs alone.

    Decoders of T5's sizes with random weights, dense against Top-k exploited without loss, and what skipping inactive
    neurons changes in the outputs of trained models.
    """
    sizes = {"smoke": ("small",), "quick": ("small", "base")}.get(scale, ("small", "base", "large"))
    budgets = {"smoke": (32, 512)}.get(scale, (32, 128, 512, 2048))
    tokens, repeats = {"smoke": (4, 1), "quick": (16, 2)}.get(scale, (32, 3))
    decoding = Latency(name="latency", sizes=sizes, budgets=budgets, num_tokens=tokens, repeats=repeats)
    skipping = Skipping(name="skipping", of=(t5(scale), vit(scale)), num_batches=4)
    return Recipe(
        experiment=LATENCY,
        runs=(decoding, skipping),
        claims=(
            skipping_changes_nothing("skipping"),
            flops_are_density("skipping"),
            *(decoding_gains("latency", size, budgets[1 if len(budgets) > 2 else 0]) for size in sizes),
            *(larger_gains_more("latency", sizes[0], size, budgets[0]) for size in sizes[1:][-1:]),
            smaller_k_gains_more("latency", sizes[-1], budgets[0], budgets[-1]),
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
        see=see,
        below=1e-9,
        every_seed=True,
    )


def decoding_gains(run: str, size: str, budget: int) -> Claim:
    def see(records: Records) -> Seen | None:
        value = _speedup(records[run], size, budget)
        return (
            None if value is None else Seen(value, "the fastest dense token, on our threads too, over an exploited one")
        )

    return Claim(
        name="decoding-gains",
        text="Unbatched greedy decoding gains from Top-k.",
        where="Section 4",
        metric="times as fast as the fastest dense",
        expected="above 1",
        reported=f"about {1 / (1 - LESS_TIME):.1f} (T5-11B, k at most 128, TPUv4)",
        runs=(run,),
        on=f"{size}, k = {budget}",
        see=see,
        above=1,
    )


def larger_gains_more(run: str, small: str, large: str, budget: int) -> Claim:
    def see(records: Records) -> Seen | None:
        a, b = (_speedup(records[run], size, budget) for size in (large, small))
        return None if a is None or b is None else Seen(a / b, f"{large} {a:.2f}, {small} {b:.2f} times")

    return Claim(
        name="larger-gains-more",
        text="Larger models gain more.",
        where="Section 4",
        metric="speed-up of the largest over that of the smallest",
        expected="above 1",
        runs=(run,),
        on=f"{large} against {small}, k = {budget}",
        see=see,
        above=1,
        compares=True,
    )


def smaller_k_gains_more(run: str, size: str, small: int, large: int) -> Claim:
    def see(records: Records) -> Seen | None:
        a, b = (_speedup(records[run], size, budget) for budget in (small, large))
        return None if a is None or b is None else Seen(a / b, f"k = {small}: {a:.2f}, k = {large}: {b:.2f} times")

    return Claim(
        name="smaller-k-gains-more",
        text="A smaller k gains more.",
        where="Section 4",
        metric="speed-up with the smallest k over that with the largest",
        expected="above 1",
        runs=(run,),
        on=size,
        see=see,
        above=1,
        compares=True,
    )


def _speedup(records: Sequence[Record], size: str, budget: float) -> float | None:
    found = [r.value for r in records if r.what == "speedup" and r.case == size and r.x == budget]
    return found[0] if found else None
