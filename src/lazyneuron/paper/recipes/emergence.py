"""Figures 1 to 3: sparsity emerges in T5 and ViT, in every layer, on seen and unseen data, at every size."""

from lazyneuron.paper.claims import comparison, density, studies
from lazyneuron.paper.recipe import Recipe, Scale
from lazyneuron.paper.recipes.base import longer, t5, varied, vit
from lazyneuron.paper.runs import Firing

_T5_SIZES = {"paper": ("small", "base", "large")}
_VIT_SIZES = {"paper": ("vit-s16", "vit-b16", "vit-l16")}
_FIRING_TOKENS = {"smoke": 2_000}


def fig1(scale: Scale) -> Recipe:
    """Figure 1. Reported: about 50 % at initialisation, 2.7 % on average after training (1.1 to 12.0 % by layer).

    Costs one training, and one of twice the steps for where the first stays denser than the paper's.
    """
    run = t5(scale)
    runs = (run, longer(run))
    return Recipe(
        name="fig1",
        title="T5 grows sparse while it trains",
        figure="Figure 1",
        expected="about 50 % nonzero at initialisation; after training 2.7 % on average, 12.0 % in the densest layer "
        "and 1.1 % in the sparsest (T5-Base on C4)",
        runs=runs,
        claims=(
            density.half_active_at_start("t5"),
            *(density.every_layer_sparser(run.name) for run in runs),
            *(density.few_percent_active(run.name) for run in runs),
        ),
        setting="model",
        settings=("T5", "T5, twice the steps"),
    )


def fig2a(scale: Scale) -> Recipe:
    """Figure 2a. Reported: sparse in every layer of T5's two stacks and of ViT; first and last layers denser.

    Costs fig1's first training, one of ViT, and one of twice its steps.
    """
    runs = (t5(scale), vit(scale), longer(vit(scale)))
    vits = ("vit", "vit-long")
    return Recipe(
        name="fig2a",
        title="Encoder, decoder and ViT are sparse in every layer",
        figure="Figure 2a",
        expected="3.0 % (T5-Base) and 6.3 % (ViT-B16) on average; first and last few layers denser than the middle",
        runs=runs,
        claims=(
            density.half_active_at_start("vit"),
            *(density.every_layer_sparser(name) for name in vits),
            *(density.few_percent_active(name) for name in vits),
            *(density.every_stack_sparse(name) for name in ("t5", "vit")),
            *(density.ends_denser(name) for name in ("t5", "vit")),
        ),
        setting="model",
        settings=("T5", "ViT", "ViT, twice the steps"),
    )


def fig2b(scale: Scale) -> Recipe:
    """Figure 2b. Reported: densities on training and on evaluation data align closely. Costs nothing beside fig2a."""
    return Recipe(
        name="fig2b",
        title="Training and evaluation data give the same densities",
        figure="Figure 2b",
        expected="the curves of training and evaluation data align closely",
        runs=(t5(scale), vit(scale)),
        claims=(density.train_like_eval("t5"), density.train_like_eval("vit")),
        setting="model",
        settings=("T5", "ViT"),
    )


def fig2c(scale: Scale) -> Recipe:
    """Figure 2c. Reported: ImageNet-21k and -1k give much the same density, so the scale of the data matters little.

    Here all of one data set against a tenth of its images, and against half of its classes. Costs two trainings of ViT.
    """
    run = vit(scale)
    fewer = (varied(run, "tenth", data_share=0.1), varied(run, "half-classes", class_share=0.5))
    settings = ("all", "a tenth of the images", "half of the classes")
    return Recipe(
        name="fig2c",
        title="The scale of the data matters little",
        figure="Figure 2c",
        expected="ImageNet-21k and ImageNet-1k give much the same density",
        runs=(run, *fewer),
        claims=tuple(
            comparison.scale_of_data(less.name, "vit", on=f"vit against {setting}")
            for less, setting in zip(fewer, settings[1:], strict=True)
        ),
        setting="training data",
        settings=settings,
    )


def fig2def(scale: Scale) -> Recipe:
    """Figure 2d to f. Reported: T5 and ViT of all sizes are sparse, larger ones tend to be sparser.

    Costs a smaller and a larger training each of T5 and ViT (and ViT's middle size where the shared one is wider). The
    paper's T5-3B wants model parallelism, which is not here.
    """
    text, image = t5(scale), vit(scale)
    t5_sizes = _T5_SIZES.get(scale, ("micro", "tiny", "mini"))
    vit_sizes = _VIT_SIZES.get(scale, ("vit-micro", "vit-tiny", "vit-mini"))
    of_t5 = [text if size == text.task.size else varied(text, size, size=size) for size in t5_sizes]
    sized = [varied(image, size.removeprefix("vit-"), size=size, d_ff=None) for size in vit_sizes]
    of_vit = [image if run.task == image.task else run for run in sized]
    runs = (*of_t5, *of_vit)
    return Recipe(
        name="fig2d-f",
        title="Sparse at every size, and larger models more so",
        figure="Figure 2d, 2e and 2f",
        expected="sparse at every size; larger models tend to be sparser",
        runs=runs,
        claims=(
            *(
                density.sparsity_emerges(run.name, "every-size-sparse", "Every size grows sparse.", "Fig. 2d-f")
                for run in runs
            ),
            comparison.larger_sparser(of_t5[0].name, of_t5[-1].name),
            comparison.larger_sparser(of_vit[0].name, of_vit[-1].name),
        ),
        setting="size",
        settings=(*(f"T5 {size}" for size in t5_sizes), *(f"ViT {size.removeprefix('vit-')}" for size in vit_sizes)),
    )


def fig3(scale: Scale) -> Recipe:
    """Figure 3. Reported: in the first encoder layer of T5-Base a few neurons fire about half of the time, 93.5 % less
    than a tenth of it, and none never, over 800 x 512 tokens. Costs a minute beside fig1.
    """
    study = Firing(name="firing", of=(t5(scale),), num_tokens=_FIRING_TOKENS.get(scale, 400_000))
    return Recipe(
        name="fig3",
        title="No neuron is dead, and most fire seldom",
        figure="Figure 3",
        expected="a few neurons fire about 50 % of the time, 93.5 % less than 10 % of it, 99 % more than 1 %; the "
        "least 0.001 %, none never (pretrained T5-Base, first encoder layer, 409,600 tokens)",
        runs=(study,),
        claims=(studies.no_neuron_dead(study.name), studies.most_fire_seldom(study.name)),
    )


def fig4a(scale: Scale) -> Recipe:
    """Figure 4a. Reported: deeper is sparser; the middle layers of a T5 of 32 layers are below 1 %.

    Costs two trainings of T5, two and three times as deep as the shared one.
    """
    run = t5(scale)
    depths = {"smoke": (3, 4), "paper": (12, 24, 32)}.get(scale, (3, 6, 9))
    runs = [run, *(varied(run, f"layers{depth}", num_layers=depth) for depth in depths[1:])]
    return Recipe(
        name="fig4a",
        title="Deeper is sparser",
        figure="Figure 4a",
        expected="deeper models are sparser; the middle layers of the 32-layer model below 1 %",
        runs=tuple(runs),
        claims=(comparison.deeper_sparser("t5", runs[-1].name),),
        setting="layers per stack",
        settings=tuple(float(depth) for depth in depths),
    )


def fig4bc(scale: Scale) -> Recipe:
    """Figure 4b, c. Reported: the wider the MLPs, the lower the fraction of active neurons and the higher their number.

    Costs two trainings of T5, a quarter and four times as wide as the shared one.
    """
    run = t5(scale)
    width = {"paper": 3072}.get(scale, 512)
    widths = {"smoke": (width // 4, width)}.get(scale, (width // 4, width, 4 * width))
    runs = [run if d_ff == width else varied(run, f"ff{d_ff}", d_ff=d_ff) for d_ff in widths]
    narrow, wide = runs[0].name, runs[-1].name
    return Recipe(
        name="fig4bc",
        title="Wider: a lower fraction, a higher count",
        figure="Figure 4b and 4c",
        expected="the fraction of active neurons falls with d_ff, their number rises",
        runs=tuple(runs),
        claims=(
            comparison.wider_lower_fraction(narrow, wide),
            comparison.wider_higher_count(narrow, wide),
            *(density.few_percent_active(run.name) for run in runs[-1:] if run.name != "t5"),
        ),
        setting="d_ff",
        settings=tuple(float(d_ff) for d_ff in widths),
    )
