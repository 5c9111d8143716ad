"""Figures 2c to 2f and 4: density over the amount of data and the size, depth and width of the model."""

from lazyneuron.paper.experiment import Experiment

FIG2C = Experiment(
    name="fig2c",
    folder=__name__,
    title="The scale of the data matters little",
    figure="Figure 2c",
    expected="ImageNet-21k and ImageNet-1k give much the same density",
    setup="ViT on ImageNet-21k and on ImageNet-1k, by layer.",
)
FIG2DEF = Experiment(
    name="fig2d-f",
    folder=__name__,
    title="Sparse at every size, and larger models more so",
    figure="Figure 2d, 2e and 2f",
    expected="sparse at every size; larger models tend to be sparser",
    setup="ViT and T5 of several sizes, by layer.",
)
FIG4A = Experiment(
    name="fig4a",
    folder=__name__,
    title="Deeper is sparser",
    figure="Figure 4a",
    expected="deeper models are sparser; the middle layers of the 32-layer model below 1 %",
    setup="T5, depth alone varied, up to 32 layers.",
    numbers=(("middle layers of the 32-layer model", "below 1 %"),),
)
FIG4BC = Experiment(
    name="fig4bc",
    folder=__name__,
    title="Wider: a lower fraction, a higher count",
    figure="Figure 4b and 4c",
    expected="the fraction of active neurons falls with d_ff, their number rises",
    setup="T5, d_ff alone varied.",
)
