"""Figure 5, Appendix B and section 2: sparsity emerges whatever the labels, the images, the model and the optimizer.

The docstrings name what differs from the paper's set-up beside what `vit` and `t5` say of the shared trainings.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from lazyneuron.data.images import Augmentation
from lazyneuron.paper.ablations import ACTIVATION, FIG5A, FIG5B, FIG5C, GELU, MIXER, MLP, OPTIMIZERS, RELU, RESNET
from lazyneuron.paper.ablations.by_heart import if_memorised, memorised
from lazyneuron.paper.ablations.rates import OPTIMIZERS as CHOSEN
from lazyneuron.paper.claim import Claim
from lazyneuron.paper.comparison_claims import QUALITY_GAP, comparison, difference, if_mlps_are_used, tested
from lazyneuron.paper.density_claims import half_active_at_start, sparsity_emerges, sparsity_emerges_in
from lazyneuron.paper.lines import NOISE, OTHERS, under
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.runs import Training
from lazyneuron.paper.trainings import image_task, mlp_training, t5, varied, vit, without_mlps

RANDOM_LABELS = (0.5, 0.7, 1.0)
_DECAY = 0.1


def fig5a(scale: Scale) -> Recipe:
    """Costs five trainings of ViT: four like the shared one, and one of 160 epochs on 2,000 images.

    All random labels are trained with the weight decay of the shared ViT and without one (or with one where that has
    none), as weight decay alone can make neurons silent where there is nothing to learn. Only the last training has
    steps enough to learn random labels by heart, and is judged where it did.

    | | paper | here |
    | --- | --- | --- |
    | data | ImageNet-21k | as `vit` |
    | weight decay | not stated | with and without |
    | labels learned by heart | not stated | 2,000 images as they are, 160 epochs |
    """
    run = vit(scale)
    noisy = [varied(run, f"labels{100 * share:.0f}", random_labels=share) for share in RANDOM_LABELS]
    other, learned = other_decay(noisy[-1]), memorised(scale)
    names = [f"{100 * share:.0f} % random" for share in RANDOM_LABELS]
    names.append(f"100 % random, {decay_text(other)}")
    claim = ("random-labels", "Sparsity emerges with random labels.", "Fig. 5a")
    by_heart = "100 % random, learned by heart"
    return Recipe(
        experiment=FIG5A,
        num_seeds=5,
        runs=(run, *noisy, other, learned),
        claims=(
            *sparsity_emerges_in(noisy, *claim, on=names[:-1], line=NOISE),
            sparsity_emerges(other.name, *claim, on=names[-1]),
            if_memorised(sparsity_emerges(learned.name, *claim, on=by_heart)),
        ),
        setting="labels",
        settings=("true", *names, by_heart),
    )


def fig5b(scale: Scale) -> Recipe:
    """Costs two trainings of ViT, with weight decay and without.

    | | paper | here |
    | --- | --- | --- |
    | labels | those of ImageNet-21k | those of `vit` |
    | pixels | i.i.d. uniform in [-1, 1] | the same, in 256 steps, one image for each |
    | augmentation | not stated | none |
    | weight decay | not stated | with and without |
    """
    run = vit(scale)
    noise = varied(run, "pixels", pixels="random")
    runs = (noise, other_decay(noise))
    names = ("random pixels", f"random pixels, {decay_text(runs[1])}")
    return Recipe(
        experiment=FIG5B,
        num_seeds=5,
        runs=(run, *runs),
        claims=_with_each_decay(runs, names, "random-images", "Sparsity emerges on random images.", "Fig. 5b"),
        setting="images",
        settings=("true", *names),
    )


def fig5c(scale: Scale) -> Recipe:
    """Costs two trainings of ViT, with weight decay and without.

    | | paper | here |
    | --- | --- | --- |
    | classes | not stated | 10; 1,000 at scale paper |
    | pixels | i.i.d. uniform in [-1, 1] | the same, drawn anew for every batch |
    | weight decay | not stated | with and without |
    """
    run = vit(scale)
    fresh = varied(run, "infinite", pixels="fresh")
    runs = (fresh, other_decay(fresh))
    names = ("fresh random images and labels", f"the same, {decay_text(runs[1])}")
    return Recipe(
        experiment=FIG5C,
        num_seeds=5,
        runs=(run, *runs),
        claims=_with_each_decay(runs, names, "infinite-data", "Sparsity emerges on infinite random data.", "Fig. 5c"),
        setting="data",
        settings=("true", *names),
    )


def _with_each_decay(
    runs: Sequence[Training], names: Sequence[str], name: str, text: str, where: str
) -> tuple[Claim, ...]:
    """That sparsity emerges in a training, which the page's first table has, and with the other weight decay."""
    one, other = (sparsity_emerges(run.name, name, text, where, on=on) for run, on in zip(runs, names, strict=True))
    return (*under(NOISE, one), other)


def other_decay(run: Training) -> Training:
    """The run without its weight decay, or with one of 0.1 if it has none."""
    return varied(run, "nodecay", weight_decay=0.0) if run.weight_decay else varied(run, "decay", weight_decay=_DECAY)


def decay_text(run: Training) -> str:
    """The run's weight decay in words."""
    return f"weight decay {run.weight_decay:g}" if run.weight_decay else "no weight decay"


def mixer(scale: Scale) -> Recipe:
    """Costs one training: at paper scale Mixer-B/16 on ImageNet-1k, 300 epochs.

    | | Mixer's code base (the paper has no numbers) | here |
    | --- | --- | --- |
    | size | Mixer-B/16 | 4 layers, d 64, d_ff 512 over channels, 64 over patches; Mixer-B/16 at scale paper |
    | optimizer | Adam, decay 0.1, rate 3e-3 | as the shared ViT; at scale paper decay 0.1 |
    | augmentation | mixup 0.5, RandAugment | as the shared ViT |
    | stochastic depth | 0.1 | none |
    | activation | GELU (the paper: ReLU) | ReLU |
    """
    image = vit(scale)
    task = replace(image_task(image), model="mixer", size="mixer-b16" if scale == "paper" else "mixer-tiny")
    long = {"num_steps": 375_000, "weight_decay": 0.1} if scale == "paper" else {}
    run = replace(image, name="mixer", task=task, **long)
    claim = ("mixer", "mixer-sparse", "Sparsity emerges in the MLP-Mixer.", "Appendix B")
    channels = sparsity_emerges(*claim, on="mixer, MLPs over channels", sites="channel")
    return Recipe(
        experiment=MIXER,
        num_seeds=5,
        runs=(run,),
        claims=(half_active_at_start("mixer"), *under(OTHERS, sparsity_emerges(*claim)), channels),
        setting="model",
        settings=("MLP-Mixer",),
    )


def mlp(scale: Scale) -> Recipe:
    """Costs one short training.

    | | paper | here |
    | --- | --- | --- |
    | data | not stated | the shared ViT's; at scale paper at 32 x 32 pixels |
    | width | not stated | 512 |
    | optimizer, steps | not stated | the shared ViT's |
    """
    emerges = sparsity_emerges("mlp", "mlp-sparse", "Sparsity emerges in the 2-layer MLP.", "Appendix B")
    return Recipe(
        experiment=MLP,
        num_seeds=5,
        runs=(mlp_training(scale),),
        claims=(half_active_at_start("mlp"), *under(OTHERS, emerges)),
        setting="model",
        settings=("2-layer MLP",),
    )


def resnet(scale: Scale) -> Recipe:
    """Costs one training. Density is that of the ReLU inside each block, over channels and places.

    The paper finds sparsity there "to some extent", without numbers, so the claim is that density falls.

    | | paper | here |
    | --- | --- | --- |
    | model | a ResNet | basic blocks of 3x3 convolutions: ResNet-8; ResNet-20 at scale paper |
    | maps counted | not stated | what enters the second convolution of each block |
    | data | not stated | the shared ViT's; at scale paper at 32 x 32 pixels |
    | optimizer, steps | not stated | the shared ViT's |
    """
    image = vit(scale)
    own = image_task(image)
    is_full = scale == "paper"
    how = Augmentation(canvas=32, flip=True) if is_full else own.augmentation
    size = "resnet20" if is_full else "resnet8"
    task = replace(own, model="resnet", size=size, augmentation=how, d_ff=None, patch_size=None)
    emerges = sparsity_emerges("resnet", "resnet-sparse", "Sparsity emerges in a ResNet, to some extent.", "Appendix B")
    return Recipe(
        experiment=RESNET,
        num_seeds=5,
        runs=(replace(image, name="resnet", task=task),),
        claims=(replace(emerges, expected="below 1 (falls)", reported="to some extent", at_most=math.inf, below=1),),
        setting="model",
        settings=("ResNet",),
    )


def optimizers(scale: Scale) -> Recipe:
    """Costs up to four trainings of ViT, at the rates that `rates` chose by loss; one that is the shared one is shared.

    | | paper | here |
    | --- | --- | --- |
    | optimizers | not stated here; Adam is the code base's | Adam, AdamW, SGD with momentum 0.9, Adafactor |
    | rates | not known | of those with the lowest loss on seed 100 after 4,000 steps of scale laptop, at every scale |
    | weight decay | 0.3 in the code base | 0.1 with AdamW, else none |
    """
    run = vit(scale)
    made = [how.on(run, name) for name, how in CHOSEN.items()]
    runs = tuple(run if replace(own, name=run.name) == run else own for own in made)
    names = tuple(how.title for how in CHOSEN.values())
    return Recipe(
        experiment=OPTIMIZERS,
        num_seeds=5,
        runs=runs,
        claims=sparsity_emerges_in(
            runs, "any-optimizer", "Sparsity emerges with any optimizer.", "Appendix B", on=names, line=OTHERS
        ),
        setting="optimizer",
        settings=names,
    )


def activation(scale: Scale) -> Recipe:
    """Costs a training with GELU of ViT and of T5, and their controls.

    | | paper | here |
    | --- | --- | --- |
    | model | ViT-B/16 on ImageNet-21k | the shared ViT and T5 |
    | quality | top-1 accuracy | accuracy on held-out data; T5: of the next token |
    """
    image, text = vit(scale), t5(scale)
    image_gelu, text_gelu = (varied(run, "gelu", hidden_act="gelu") for run in (image, text))
    return Recipe(
        experiment=ACTIVATION,
        runs=(image, image_gelu, without_mlps(image), text, text_gelu, without_mlps(text)),
        claims=(
            *if_mlps_are_used(image, relu_costs_little(image.name, image_gelu.name)),
            *if_mlps_are_used(text, relu_costs_little(text.name, text_gelu.name)),
        ),
        setting="activation",
        settings=("ViT, ReLU", "ViT, GELU", "ViT, no MLPs", "T5, ReLU", "T5, GELU", "T5, no MLPs"),
    )


def relu_costs_little(relu: str, gelu: str) -> Claim:
    return comparison(
        relu,
        gelu,
        tested("accuracy"),
        difference,
        name="relu-costs-little",
        text="ReLU in place of GELU costs little accuracy.",
        where="Section 2",
        metric="accuracy with ReLU less that with GELU, held-out",
        expected=f"at least {-QUALITY_GAP} (ours)",
        reported=f"{(RELU - GELU) / 100:.3f} ({RELU} against {GELU} %)",
        at_least=-QUALITY_GAP,
        unit="points",
        effect=QUALITY_GAP + (RELU - GELU) / 100,
    )
