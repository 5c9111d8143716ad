"""Figures 1, 2a and 2b: sparsity emerges in T5 and ViT, in every layer, on seen and on unseen data."""

from lazyneuron.paper.experiment import Experiment

FIG1 = Experiment(
    name="fig1",
    folder=__name__,
    title="T5 grows sparse while it trains",
    figure="Figure 1",
    expected="about 50 % nonzero at initialisation; after training 2.7 % on average, 12.0 % in the densest layer "
    "and 1.1 % in the sparsest (T5-Base on C4)",
    setup="T5-Base, span corruption on C4, by training step and layer.",
    numbers=(
        ("active at initialisation", "about 50 %"),
        ("after training, mean over layers", "2.7 %"),
        ("in the densest layer", "12.0 %"),
        ("in the sparsest layer", "1.1 %"),
    ),
)
FIG2A = Experiment(
    name="fig2a",
    folder=__name__,
    title="Encoder, decoder and ViT are sparse in every layer",
    figure="Figure 2a",
    expected="3.0 % (T5-Base) and 6.3 % (ViT-B16) on average; first and last few layers denser than the middle",
    setup="Encoder and decoder of T5, and ViT, by layer.",
    numbers=(("T5-Base, mean", "3.0 %"), ("ViT-B16, mean", "6.3 %")),
)
FIG2B = Experiment(
    name="fig2b",
    folder=__name__,
    title="Training and evaluation data give the same densities",
    figure="Figure 2b",
    expected="the curves of training and evaluation data align closely",
    setup="T5 and ViT, training against evaluation data, by layer.",
)
