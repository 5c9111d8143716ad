"""Figure 5, Appendix B and section 2: sparsity emerges whatever the labels, the images, the model and the optimizer."""

from dataclasses import replace

from lazyneuron.paper import density_claims as density
from lazyneuron.paper.ablations import ACTIVATION, FIG5A, FIG5B, FIG5C, MIXER, MLP, OPTIMIZERS
from lazyneuron.paper.claim import Claim
from lazyneuron.paper.comparison import QUALITY_GAP, comparison, difference, tested
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.runs import Training
from lazyneuron.paper.trainings import image_task, longer, mlp_training, t5, varied, vit

RANDOM_LABELS = (0.5, 0.7, 1.0)


def fig5a(scale: Scale) -> Recipe:
    """Figure 5a. Reported: sparse with 50, 70 and 100 % of the labels random too.

    Costs three trainings of ViT, and the last once more with twice the steps.
    """
    run = vit(scale)
    noisy = [varied(run, f"labels{100 * share:.0f}", random_labels=share) for share in RANDOM_LABELS]
    noisy.append(longer(noisy[-1]))
    names = (*(f"{100 * share:.0f} % random" for share in RANDOM_LABELS), "100 % random, twice the steps")
    return Recipe(
        experiment=FIG5A,
        runs=(run, *noisy),
        claims=tuple(
            density.sparsity_emerges(
                one.name, "random-labels", "Sparsity emerges with random labels.", "Fig. 5a", on=name
            )
            for one, name in zip(noisy, names, strict=True)
        ),
        setting="labels",
        settings=("true", *names),
    )


def fig5b(scale: Scale) -> Recipe:
    """Figure 5b. Reported: sparse on images of i.i.d. uniform pixels too.

    Costs one training of ViT, and one of twice the steps.
    """
    run = vit(scale)
    noise = varied(run, "pixels", pixels="random")
    return Recipe(
        experiment=FIG5B,
        runs=(run, noise, longer(noise)),
        claims=tuple(
            density.sparsity_emerges(one.name, "random-images", "Sparsity emerges on random images.", "Fig. 5b")
            for one in (noise, longer(noise))
        ),
        setting="images",
        settings=("true", "random pixels", "random pixels, twice the steps"),
    )


def fig5c(scale: Scale) -> Recipe:
    """Figure 5c. Reported: sparse on random images and labels, none seen twice.

    Costs one training of ViT, and one of twice the steps.
    """
    run = vit(scale)
    fresh = varied(run, "infinite", pixels="fresh")
    return Recipe(
        experiment=FIG5C,
        runs=(run, fresh, longer(fresh)),
        claims=tuple(
            density.sparsity_emerges(one.name, "infinite-data", "Sparsity emerges on infinite random data.", "Fig. 5c")
            for one in (fresh, longer(fresh))
        ),
        setting="data",
        settings=("true", "fresh random images and labels", "the same, twice the steps"),
    )


def mixer_training(scale: Scale) -> Training:
    """MLP-Mixer where ViT is; at paper scale Mixer-B/16 on ImageNet-1k, 300 epochs.

    There the original has mixup, RandAugment and stochastic depth, which are not here.
    """
    run = vit(scale)
    task = replace(image_task(run), model="mixer", size="mixer-b16" if scale == "paper" else "mixer-tiny")
    if scale == "paper":
        return replace(run, name="mixer", task=task, num_steps=375_000, weight_decay=0.1)
    return replace(run, name="mixer", task=task)


def mixer(scale: Scale) -> Recipe:
    """Appendix B. Reported: sparsity emerges in the MLP-Mixer too. Costs one training."""
    run = mixer_training(scale)
    return Recipe(
        experiment=MIXER,
        runs=(run,),
        claims=(
            density.half_active_at_start("mixer"),
            *(
                density.sparsity_emerges(
                    "mixer", "mixer-sparse", "Sparsity emerges in the MLP-Mixer.", "Appendix B", **which
                )
                for which in ({}, {"on": "mixer, MLPs over channels", "sites": "channel"})
            ),
        ),
        setting="model",
        settings=("MLP-Mixer",),
    )


def mlp(scale: Scale) -> Recipe:
    """Appendix B. Reported: sparsity emerges in a 2-layer MLP too. Costs one short training."""
    run = mlp_training(scale)
    return Recipe(
        experiment=MLP,
        runs=(run,),
        claims=(
            density.half_active_at_start("mlp"),
            density.sparsity_emerges("mlp", "mlp-sparse", "Sparsity emerges in the 2-layer MLP.", "Appendix B"),
        ),
        setting="model",
        settings=("2-layer MLP",),
    )


def optimizers(scale: Scale) -> Recipe:
    """Appendix B. Reported: sparsity emerges with other optimizers too.

    Costs three trainings of ViT, and SGD's once more with twice the steps; Adam's is the shared one where that has no
    weight decay.
    """
    run = vit(scale)
    adam = varied(run, "adam", weight_decay=0.0) if run.weight_decay else run
    decay = run if run.weight_decay else varied(run, "adamw", weight_decay=0.1)
    sgd = varied(run, "sgd", optimizer="sgd", learning_rate=0.1, weight_decay=0.0)
    adafactor = varied(run, "adafactor", optimizer="adafactor", learning_rate=0.02, weight_decay=0.0)
    runs = (adam, decay, sgd, longer(sgd), adafactor)
    names = ("Adam", f"AdamW, decay {decay.weight_decay}", "SGD, momentum 0.9", "SGD, twice the steps", "Adafactor")
    return Recipe(
        experiment=OPTIMIZERS,
        runs=runs,
        claims=tuple(
            density.sparsity_emerges(
                one.name, "any-optimizer", "Sparsity emerges with any optimizer.", "Appendix B", on=name
            )
            for one, name in zip(runs, names, strict=True)
        ),
        setting="optimizer",
        settings=names,
    )


def activation(scale: Scale) -> Recipe:
    """Section 2. Reported: ReLU in ViT gives 47.58 % on ImageNet-21k, GELU 47.78 %. Costs a GELU training of each."""
    text, image = t5(scale), vit(scale)
    gelus = (varied(text, "gelu", hidden_act="gelu"), varied(image, "gelu", hidden_act="gelu"))
    return Recipe(
        experiment=ACTIVATION,
        runs=(image, gelus[1], text, gelus[0]),
        claims=tuple(relu_costs_little(run.name, gelu.name) for run, gelu in ((image, gelus[1]), (text, gelus[0]))),
        setting="activation",
        settings=("ViT, ReLU", "ViT, GELU", "T5, ReLU", "T5, GELU"),
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
        reported="-0.002 (47.58 against 47.78 %)",
        at_least=-QUALITY_GAP,
    )
