"""Densities of trainings and the claims about them that several experiments share."""

from collections.abc import Sequence
from statistics import fmean

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.emergence import MEAN, MEANS
from lazyneuron.paper.runs import Training
from lazyneuron.records.record import Record

INITIAL_GAP = 0.05
SPARSER_FACTOR = 0.5
FEW_PERCENT = 0.10

Layers = dict[tuple[str, int | None], float]


def densities(records: Sequence[Record], step: int, split: str = "eval") -> Layers:
    """Density by (stack, layer) at a step."""
    chosen = (r for r in records if r.what == "density" and r.step == step and r.split == split)
    return {(r.stack, r.layer): r.value for r in chosen}


def start_and_end(records: Sequence[Record]) -> tuple[Layers, Layers, int] | None:
    """Held-out densities at step 0 and at the last step measured; None for a run with no step after 0."""
    steps = {r.step for r in records if r.what == "density" and r.split == "eval" and r.step is not None}
    if not steps or (last := max(steps)) == 0:
        return None
    return densities(records, 0), densities(records, last), last


def mean_density(records: Sequence[Record]) -> float | None:
    """Held-out density at the end, mean over layers."""
    found = start_and_end(records)
    return fmean(found[1].values()) if found else None


def middle_density(records: Sequence[Record]) -> float | None:
    """Held-out density at the end, mean over all layers but the first and the last of each stack."""
    found = start_and_end(records)
    middle = [v for layers in stacks(found[1]).values() for v in layers[1:-1]] if found else []
    return fmean(middle) if middle else None


def stacks(layers: Layers) -> dict[str, list[float]]:
    """Densities of each stack in order of layer."""
    names = sorted({stack for stack, _ in layers})
    ordered = sorted(layers.items(), key=lambda item: item[0][1] or 0)
    return {name: [value for (stack, _), value in ordered if stack == name] for name in names}


def layer_name(layer: tuple[str, int | None]) -> str:
    """A layer for people: "encoder layer 3"."""
    return f"{layer[0]} layer {layer[1]}".strip()


def half_active_at_start(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        if not (start := densities(records[run], 0)):
            return None
        layer, value = max(start.items(), key=lambda item: abs(item[1] - 0.5))
        return Seen(abs(value - 0.5), f"farthest of {len(start)} layers: {value:.3f} in {layer_name(layer)}")

    return Claim(
        name="half-active-at-start",
        text="At initialisation every ReLU MLP layer is about 50 % nonzero.",
        where="Fig. 1",
        metric="distance from 0.5 of the density at step 0, largest over layers",
        expected=f"at most {INITIAL_GAP} (ours)",
        reported="about 0 (about 50 %)",
        runs=(run,),
        see=see,
        at_most=INITIAL_GAP,
    )


def few_percent_active(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        if (found := start_and_end(records[run])) is None:
            return None
        _, end, step = found
        lowest, highest = min(end.values()), max(end.values())
        return Seen(
            fmean(end.values()),
            f"mean of {len(end)} layers from {lowest:.3f} to {highest:.3f} after {step} steps",
        )

    return Claim(
        name="few-percent-active",
        text="After training only a few percent of neurons are active on average.",
        where="Fig. 1",
        metric="mean density over layers at the end",
        expected=f"at most {FEW_PERCENT} (ours)",
        reported=f"{MEAN / 100:.3f} (T5-Base), {MEANS['ViT'][0] / 100:.3f} (ViT-B16)",
        runs=(run,),
        see=see,
        at_most=FEW_PERCENT,
    )


def sparsity_emerges(run: str, name: str, text: str, where: str, on: str = "", sites: str = "") -> Claim:
    """That training makes the mean density half of what it was, or less, where a site's name contains `sites`."""

    def see(records: Records) -> Seen | None:
        if (found := start_and_end([r for r in records[run] if sites in r.site])) is None:
            return None
        start, end, step = found
        before, after = fmean(start.values()), fmean(end.values())
        return Seen(after / before, f"mean over {len(end)} layers: {before:.3f} at step 0, {after:.3f} at step {step}")

    return Claim(
        name=name,
        text=text,
        where=where,
        metric="ratio of final to initial mean density",
        expected=f"at most {SPARSER_FACTOR} (ours)",
        runs=(run,),
        on=on,
        see=see,
        at_most=SPARSER_FACTOR,
    )


def sparsity_emerges_in(
    runs: Sequence[Training], name: str, text: str, where: str, on: Sequence[str] = ()
) -> tuple[Claim, ...]:
    """That sparsity emerges in each of these trainings; `on` names them for people."""
    names = on or [""] * len(runs)
    return tuple(sparsity_emerges(run.name, name, text, where, n) for run, n in zip(runs, names, strict=True))
