"""Figure 5, Appendix B and section 2: sparsity emerges whatever the labels, the images, the model and the optimizer."""

from dataclasses import replace

from lazyneuron.paper.ablations import ACTIVATION, FIG5A, FIG5B, FIG5C, GELU, MIXER, MLP, OPTIMIZERS, RELU
from lazyneuron.paper.claim import Claim
from lazyneuron.paper.comparison_claims import QUALITY_GAP, comparison, difference, tested
from lazyneuron.paper.density_claims import half_active_at_start, sparsity_emerges, sparsity_emerges_in
from lazyneuron.paper.lines import NOISE, OTHERS, under
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.trainings import image_task, longer, mlp_training, t5, varied, vit

RANDOM_LABELS = (0.5, 0.7, 1.0)


def fig5a(scale: Scale) -> Recipe:
    """Costs three trainings of ViT, and the last once more with twice the steps."""
    run = vit(scale)
    noisy = [varied(run, f"labels{100 * share:.0f}", random_labels=share) for share in RANDOM_LABELS]
    noisy.append(longer(noisy[-1]))
    names = (*(f"{100 * share:.0f} % random" for share in RANDOM_LABELS), "100 % random, twice the steps")
    return Recipe(
        experiment=FIG5A,
        num_seeds=5,
        runs=(run, *noisy),
        claims=sparsity_emerges_in(
            noisy, "random-labels", "Sparsity emerges with random labels.", "Fig. 5a", on=names, line=NOISE
        ),
        setting="labels",
        settings=("true", *names),
    )


def fig5b(scale: Scale) -> Recipe:
    """Costs one training of ViT, and one with twice the steps."""
    run = vit(scale)
    noise = varied(run, "pixels", pixels="random")
    runs = (noise, longer(noise))
    return Recipe(
        experiment=FIG5B,
        num_seeds=5,
        runs=(run, *runs),
        claims=sparsity_emerges_in(runs, "random-images", "Sparsity emerges on random images.", "Fig. 5b", line=NOISE),
        setting="images",
        settings=("true", "random pixels", "random pixels, twice the steps"),
    )


def fig5c(scale: Scale) -> Recipe:
    """Costs one training of ViT, and one with twice the steps."""
    run = vit(scale)
    fresh = varied(run, "infinite", pixels="fresh")
    runs = (fresh, longer(fresh))
    return Recipe(
        experiment=FIG5C,
        num_seeds=5,
        runs=(run, *runs),
        claims=sparsity_emerges_in(
            runs, "infinite-data", "Sparsity emerges on infinite random data.", "Fig. 5c", line=NOISE
        ),
        setting="data",
        settings=("true", "fresh random images and labels", "the same, twice the steps"),
    )


def mixer(scale: Scale) -> Recipe:
    """Costs one training: at paper scale Mixer-B/16 on ImageNet-1k, 300 epochs.

    The original also uses mixup, RandAugment and stochastic depth, which are not implemented here.
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
    """Costs one short training."""
    emerges = sparsity_emerges("mlp", "mlp-sparse", "Sparsity emerges in the 2-layer MLP.", "Appendix B")
    return Recipe(
        experiment=MLP,
        num_seeds=5,
        runs=(mlp_training(scale),),
        claims=(half_active_at_start("mlp"), *under(OTHERS, emerges)),
        setting="model",
        settings=("2-layer MLP",),
    )


def optimizers(scale: Scale) -> Recipe:
    """Costs three trainings of ViT, and SGD's once more with twice the steps.

    Adam's is the shared one where that has no weight decay.
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
        num_seeds=5,
        runs=runs,
        claims=sparsity_emerges_in(
            runs, "any-optimizer", "Sparsity emerges with any optimizer.", "Appendix B", on=names, line=OTHERS
        ),
        setting="optimizer",
        settings=names,
    )


def activation(scale: Scale) -> Recipe:
    """Costs a training with GELU of ViT and of T5."""
    image, text = vit(scale), t5(scale)
    image_gelu, text_gelu = (varied(run, "gelu", hidden_act="gelu") for run in (image, text))
    return Recipe(
        experiment=ACTIVATION,
        runs=(image, image_gelu, text, text_gelu),
        claims=(relu_costs_little(image.name, image_gelu.name), relu_costs_little(text.name, text_gelu.name)),
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
        reported=f"{(RELU - GELU) / 100:.3f} ({RELU} against {GELU} %)",
        at_least=-QUALITY_GAP,
        unit="points",
        effect=QUALITY_GAP + (RELU - GELU) / 100,
    )
