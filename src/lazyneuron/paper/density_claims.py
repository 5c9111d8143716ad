"""Densities of trainings and the claims about them that several experiments share."""

from collections.abc import Sequence
from statistics import fmean

from lazyneuron.paper.claim import Claim, Grade, Records, Seen
from lazyneuron.paper.emergence import MEAN, MEANS
from lazyneuron.paper.lines import under
from lazyneuron.paper.runs import Training
from lazyneuron.records.record import Record

INITIAL_GAP = 0.05
SPARSER_FACTOR = 0.5
FEW_PERCENT = 0.10
FALLS, HALVES = Grade(name="falls", below=1), Grade(name="halves", at_most=SPARSER_FACTOR)
TENTH = Grade(name=f"at most {100 * FEW_PERCENT:g} %", at_most=FEW_PERCENT, of_density=True)
PAPERS = {"t5": MEAN / 100, "vit": MEANS["ViT"][0] / 100}
"""The paper's mean density, by the kind of model that a training's name begins with."""
DEAD, BLIND = 0.10, 0.05
"""A layer collapsed if more than `DEAD` of its neurons never fire, or if less than `BLIND` of the variance of their
activity is due to the example rather than to the position (ours)."""

Layer = tuple[str, int | None]
Layers = dict[Layer, float]


def densities(records: Sequence[Record], step: int, split: str = "eval") -> Layers:
    """Density by (stack, layer) at a step."""
    chosen = (r for r in records if r.what == "density" and r.step == step and r.split == split)
    return {(r.stack, r.layer): r.value for r in chosen}


def start_and_end(records: Sequence[Record]) -> tuple[Layers, Layers, int] | None:
    """Held-out densities at step 0 and at the last step measured; None for a run with no step after 0.

    A layer that collapsed is not sparse: at the end it counts with its density at the start.
    """
    if (last := last_step(records)) == 0:
        return None
    start, end = densities(records, 0), densities(records, last)
    return start, end | {layer: start[layer] for layer in collapsed(records) if layer in start}, last


def last_step(records: Sequence[Record]) -> int:
    """The last step at which held-out densities were measured; 0 if there is none after it."""
    return max((r.step or 0 for r in records if r.what == "density" and r.split == "eval"), default=0)


def collapsed(records: Sequence[Record]) -> dict[Layer, str]:
    """The layers that are dead or blind to the example at the end, on held-out data, and why in words."""

    def at_end(what: str) -> Layers:
        held = [r for r in records if r.what == what and r.split in ("test", "eval") and r.step]
        chosen = [r for r in held if r.split == "test"] or held
        last = max((r.step or 0 for r in chosen), default=0)
        return {(r.stack, r.layer): r.value for r in chosen if r.step == last}

    dead = {at: value for at, value in at_end("never_fired").items() if value > DEAD}
    blind = {at: value for at, value in at_end("input_share").items() if value < BLIND}
    found = {at: f"only {100 * value:.2g} % of its activity is due to the example" for at, value in blind.items()}
    return found | {at: f"{100 * value:.2g} % of its neurons never fire" for at, value in dead.items()}


def collapse(records: Sequence[Record]) -> str:
    """Which layers collapsed, in a sentence; "" if none did."""
    return "; ".join(f"{layer_name(at)} collapsed: {why}" for at, why in sorted(collapsed(records).items(), key=str))


def with_collapse(text: str, records: Sequence[Record]) -> str:
    """A reason, and which layers collapsed."""
    return "; ".join(filter(None, [text, collapse(records)]))


def grades(run: str) -> tuple[Grade, ...]:
    """The grades of the mean density of a training: falls, halves, at most 10 %, at most the paper's for its kind."""
    if (paper := PAPERS.get(run.partition("-")[0])) is None:
        return (FALLS, HALVES, TENTH)
    return (FALLS, HALVES, TENTH, Grade(name="at most the paper's", at_most=paper, of_density=True))


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
        is_check=True,
        see=see,
        at_most=INITIAL_GAP,
    )


def sparsity_emerges(
    run: str, name: str, text: str, where: str, on: str = "", sites: str = "", reported: str = ""
) -> Claim:
    """That training makes the mean density half of what it was, or less, where a site's name contains `sites`."""

    def see(records: Records) -> Seen | None:
        own = [r for r in records[run] if sites in r.site]
        if (found := start_and_end(own)) is None:
            return None
        start, end, step = found
        before, after = fmean(start.values()), fmean(end.values())
        spread = f"{min(end.values()):.3f} to {max(end.values()):.3f}"
        reason = f"mean of {len(end)} layers: {before:.3f} at step 0, {after:.3f} ({spread}) at step {step}"
        return Seen(after / before, with_collapse(reason, own), density=after)

    return Claim(
        name=name,
        text=text,
        where=where,
        metric="ratio of final to initial mean density",
        expected=f"at most {SPARSER_FACTOR} (ours)",
        reported=reported,
        runs=(run,),
        on=on,
        see=see,
        at_most=SPARSER_FACTOR,
        grades=grades(run),
    )


def few_active(run: str) -> Claim:
    """That a training of the paper's own kind grows sparse, beside the density that the paper reports."""
    kind = run.partition("-")[0]
    return sparsity_emerges(
        run,
        "sparsity-emerges",
        "Sparsity emerges: training leaves far fewer neurons active than initialisation.",
        "Fig. 1 and 2",
        reported=f"density {PAPERS[kind]:.3f} ({'T5-Base' if kind == 't5' else MEANS['ViT'][1]})",
    )


def sparsity_emerges_in(
    runs: Sequence[Training], name: str, text: str, where: str, on: Sequence[str] = (), line: str = ""
) -> tuple[Claim, ...]:
    """That sparsity emerges in each of these trainings, under the sentence `line`; `on` names them for people."""
    names = on or [""] * len(runs)
    return under(line, *(sparsity_emerges(run.name, name, text, where, n) for run, n in zip(runs, names, strict=True)))
