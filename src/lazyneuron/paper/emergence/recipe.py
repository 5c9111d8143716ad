"""Figures 1, 2a and 2b: a T5 and a ViT while they train, layer by layer."""

from statistics import fmean
from typing import Literal

from lazyneuron.paper import density_claims as density
from lazyneuron.paper.claim import Claim, Condition, Grade, Records, Seen
from lazyneuron.paper.density_claims import SPARSER_FACTOR, densities, last_step, layer_name, stacks, start_and_end
from lazyneuron.paper.emergence import DENSEST, FIG1, FIG2A, FIG2B
from lazyneuron.paper.lines import DATA, SPARSE, under
from lazyneuron.paper.mlps_used import at_last_probe
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.trainings import few_images, few_texts, t5, vit

SPLIT_GAP = 0.10
EPOCHS, ACCURACY_GAP, LOSS_GAP = 10, 0.02, 0.1


def fig1(scale: Scale) -> Recipe:
    """Costs one training of T5. `long-run` continues it.

    | | paper | here |
    | --- | --- | --- |
    | model and training | T5-Base on C4 | as `t5` |
    | data | seen less than once | laptop: 2.5 million tokens, seen twice |
    | density | by layer, over inputs | by layer, over 32 batches of held-out data |
    """
    return Recipe(
        experiment=FIG1,
        num_seeds=5,
        runs=(t5(scale),),
        claims=(
            density.half_active_at_start("t5"),
            *under(SPARSE, every_layer_sparser("t5")),
            *under(SPARSE, density.few_active("t5")),
        ),
        setting="model",
        settings=("T5",),
    )


def fig2a(scale: Scale) -> Recipe:
    """Costs fig1's training and one of ViT.

    | | paper | here |
    | --- | --- | --- |
    | T5 | T5-Base on C4 | as `t5` |
    | ViT | ViT-B/16 on ImageNet-21k | as `vit` |
    | ends against the middle | first and last few layers | the first and the last, against the mean of the others |
    """
    return Recipe(
        experiment=FIG2A,
        num_seeds=5,
        runs=(t5(scale), vit(scale)),
        claims=(
            density.half_active_at_start("vit"),
            *under(SPARSE, density.few_active("vit")),
            *under(SPARSE, every_layer_sparser("vit")),
            *(every_stack_sparse(name) for name in ("t5", "vit")),
            *under(SPARSE, ends_denser("t5"), ends_denser("vit")),
        ),
        setting="model",
        settings=("T5", "ViT"),
    )


def fig2b(scale: Scale) -> Recipe:
    """At scale laptop costs one short training of T5 beside table1, whose dense ViT it shares; elsewhere nothing.

    Densities on seen and on unseen data can only differ where the data were seen often and unseen data are harder.

    | | the paper | here |
    | --- | --- | --- |
    | T5's data | C4, seen less than once | laptop: a twentieth of the text, seen about 10 times; else as `t5` |
    | ViT's data | ImageNet-21k | laptop: 5,000 images, seen 60 times (`few_images`); else as `vit` |
    | judged by | curves that align closely | 10 % of each layer's density, after 10 epochs and a generalisation gap |
    """
    text, images = few_texts(scale), few_images(scale)
    return Recipe(
        experiment=FIG2B,
        num_seeds=5,
        runs=(text, images),
        claims=under(
            DATA,
            train_like_eval(text.name, gap(text.name, "loss", LOSS_GAP)),
            train_like_eval(images.name, gap(images.name, "accuracy", ACCURACY_GAP)),
        ),
        setting="model",
        settings=("T5", "ViT"),
    )


def every_layer_sparser(run: str) -> Claim:
    """Its last grade bounds the densest layer: by the paper's for T5, and by a tenth where the paper states none."""
    paper = Grade(name="at most the paper's", at_most=DENSEST / 100, of_density=True)
    last = paper if run.partition("-")[0] == "t5" else density.TENTH

    def see(records: Records) -> Seen | None:
        if (found := start_and_end(records[run])) is None:
            return None
        start, end, step = found
        ratios = {layer: end[layer] / start[layer] for layer in end}
        layer, value = max(ratios.items(), key=lambda item: item[1])
        late = sum(ratio > SPARSER_FACTOR for ratio in ratios.values())
        return Seen(
            value,
            density.with_collapse(
                f"{late} of {len(ratios)} layers above it after {step} steps; the largest is {layer_name(layer)}",
                records[run],
            ),
            density=max(end.values()),
        )

    return Claim(
        name="every-layer-sparser",
        text="After training every layer is far sparser than at initialisation.",
        where="Fig. 1 and 2",
        metric="largest ratio, over layers, of final to initial density",
        expected=f"at most {SPARSER_FACTOR} (ours)",
        reported=f"density {DENSEST / 100:g} in the densest layer",
        runs=(run,),
        see=see,
        at_most=SPARSER_FACTOR,
        grades=(density.FALLS, density.HALVES, last),
    )


def every_stack_sparse(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        if (found := start_and_end(records[run])) is None:
            return None
        before, after = (stacks(layers) for layers in found[:2])
        ratios = {name or "the one stack": fmean(after[name]) / fmean(before[name]) for name in after}
        reason = ", ".join(f"{stack} {ratio:.2f}" for stack, ratio in ratios.items())
        worst = max(fmean(layers) for layers in after.values())
        return Seen(max(ratios.values()), density.with_collapse(reason, records[run]), density=worst)

    return Claim(
        name="every-stack-sparse",
        text="Sparsity emerges in the encoder, in the decoder, and in vision as in language.",
        where="Fig. 2a",
        metric="largest ratio, over stacks, of final to initial mean density",
        expected=f"at most {SPARSER_FACTOR} (ours)",
        runs=(run,),
        see=see,
        at_most=SPARSER_FACTOR,
        grades=density.grades(run),
    )


def train_like_eval(run: str, gap: Condition) -> Claim:
    def see(records: Records) -> Seen | None:
        if (step := last_step(records[run])) == 0:
            return None
        end, train = densities(records[run], step), densities(records[run], step, "train")
        gaps = {at: abs(train[at] - end[at]) / end[at] for at in end.keys() & train.keys() if end[at]}
        if not gaps:
            return None
        layer, value = max(gaps.items(), key=lambda item: item[1])
        return Seen(value, f"largest over {len(gaps)} layers: {layer_name(layer)}")

    return Claim(
        name="train-like-eval",
        text="Training and evaluation data give the same densities.",
        where="Fig. 2b",
        metric="largest relative gap, over layers, between the two",
        expected=f"below {SPLIT_GAP}, after {EPOCHS} epochs or more and with a generalisation gap (ours)",
        reported="curves align closely",
        runs=(run,),
        see=see,
        below=SPLIT_GAP,
        needs=(seen_often(run), gap),
    )


def seen_often(run: str) -> Condition:
    return Condition(
        "how often the training data were seen",
        lambda records: next((r.value for r in records[run] if r.what == "epochs"), None),
        EPOCHS,
        lambda epochs: f"the training data were seen {epochs:.2g} times only",
    )


def gap(run: str, what: Literal["accuracy", "loss"], at_least: float) -> Condition:
    """That a model does better on training than on held-out data, by so much at the last probe."""

    def measure(records: Records) -> float | None:
        train = at_last_probe(records[run], "probe_loss" if what == "loss" else what, "train")
        held_out = at_last_probe(records[run], what, "eval")
        if train is None or held_out is None:
            return None
        return held_out - train if what == "loss" else train - held_out

    def otherwise(value: float) -> str:
        return f"no generalisation gap: {f'{value:.2f} nats' if what == 'loss' else f'{100 * value:.1f} points'}"

    return Condition(f"{what} on training and on held-out data", measure, at_least, otherwise)


def ends_denser(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        if (found := start_and_end(records[run])) is None:
            return None
        ratios = {}
        for stack, layers in stacks(found[1]).items():
            if len(layers) < 3 or not (middle := fmean(layers[1:-1])):
                return None
            ratios[stack or "the one stack"] = (layers[0] / middle, layers[-1] / middle)
        seen = "; ".join(f"{stack}: first {a:.2f}, last {b:.2f}" for stack, (a, b) in ratios.items())
        reason = f"density over that of the middle layers: {seen}"
        return Seen(min(min(pair) for pair in ratios.values()), density.with_collapse(reason, records[run]))

    return Claim(
        name="ends-denser-than-middle",
        text="The first and the last layers are denser than the middle ones.",
        where="Fig. 2",
        metric="smallest ratio, over stacks, of first or last layer to the middle",
        expected="above 1",
        runs=(run,),
        see=see,
        above=1,
    )
