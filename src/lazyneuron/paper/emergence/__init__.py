"""Figures 1, 2a and 2b: sparsity emerges in T5 and ViT, in every layer, on seen and on unseen data."""

from lazyneuron.paper.experiment import Experiment

MEAN, DENSEST, SPARSEST = 2.7, 12.0, 1.1
"""Density of Figure 1's T5-Base after training, in %: over all layers, in the densest and in the sparsest layer."""
MEANS = {"T5": (3.0, "T5-Base"), "ViT": (6.3, "ViT-B16")}
"""Mean density over layers in %, and the model that the paper reports it of, by kind of model."""

FIG1 = Experiment(
    name="fig1",
    folder=__name__,
    title="T5 grows sparse while it trains",
    figure="Figure 1",
    expected=f"about 50 % nonzero at initialisation; after training {MEAN} % on average, {DENSEST} % in the "
    f"densest layer and {SPARSEST} % in the sparsest (T5-Base on C4)",
    setup="T5-Base, span corruption on C4, by training step and layer.",
    numbers=(
        ("active at initialisation", "about 50 %"),
        ("after training, mean over layers", f"{MEAN} %"),
        ("in the densest layer", f"{DENSEST} %"),
        ("in the sparsest layer", f"{SPARSEST} %"),
    ),
)
FIG2A = Experiment(
    name="fig2a",
    folder=__name__,
    title="Encoder, decoder and ViT are sparse in every layer",
    figure="Figure 2a",
    expected=" and ".join(f"{mean} % ({model})" for mean, model in MEANS.values())
    + " on average; first and last few layers denser than the middle",
    setup="Encoder and decoder of T5, and ViT, by layer.",
    numbers=tuple((f"{model}, mean", f"{mean} %") for mean, model in MEANS.values()),
)
FIG2B = Experiment(
    name="fig2b",
    folder=__name__,
    title="Training and evaluation data give the same densities",
    figure="Figure 2b",
    expected="the curves of training and evaluation data align closely",
    setup="T5 and ViT, training against evaluation data, by layer.",
)
