"""Figure 5 and Appendix B: sparsity emerges whatever the labels, the images, the architecture and the optimizer."""

from dataclasses import replace

from lazyneuron.paper.claims import comparison, density
from lazyneuron.paper.recipe import Recipe, Scale
from lazyneuron.paper.recipes.base import image_task, longer, mlp_training, t5, varied, vit
from lazyneuron.paper.runs import Training

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
        name="fig5a",
        title="Sparsity needs no true labels",
        figure="Figure 5a",
        expected="sparsity persists with 50, 70 and 100 % of the labels random",
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
        name="fig5b",
        title="Sparsity needs no true images",
        figure="Figure 5b",
        expected="sparsity persists on images whose pixels are i.i.d. uniform in [-1, 1]",
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
        name="fig5c",
        title="Sparsity needs nothing to fit",
        figure="Figure 5c",
        expected="sparsity persists on infinite data: fresh random images and labels, none repeated",
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
        name="mixer",
        title="Sparsity emerges in the MLP-Mixer",
        figure="Appendix B",
        expected="sparsity emerges; numbers not known",
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
        name="mlp",
        title="Sparsity emerges in a 2-layer MLP",
        figure="Appendix B",
        expected="sparsity emerges; numbers not known",
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
        name="optimizers",
        title="Sparsity emerges with any optimizer",
        figure="Appendix B",
        expected="sparsity emerges with SGD, Adam and Adafactor; numbers not known",
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
        name="activation",
        title="ReLU costs little against GELU",
        figure="Section 2",
        expected="ViT on ImageNet-21k: 47.58 % top-1 with ReLU, 47.78 % with GELU",
        runs=(image, gelus[1], text, gelus[0]),
        claims=tuple(
            comparison.relu_costs_little(run.name, gelu.name) for run, gelu in ((image, gelus[1]), (text, gelus[0]))
        ),
        setting="activation",
        settings=("ViT, ReLU", "ViT, GELU", "T5, ReLU", "T5, GELU"),
    )
