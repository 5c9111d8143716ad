"""Figure 5, Appendix B and section 2: other labels, images, models, optimizers and activation functions."""

from lazyneuron.paper.experiment import Experiment

RELU, GELU = 47.58, 47.78
"""Top-1 accuracy of ViT on ImageNet-21k, in %."""

FIG5A = Experiment(
    name="fig5a",
    folder=__name__,
    title="Sparsity needs no true labels",
    figure="Figure 5a",
    expected="sparsity persists with 50, 70 and 100 % of the labels random",
    setup="ViT on ImageNet-21k, 50, 70 and 100 % of the labels replaced by uniform random ones.",
)
FIG5B = Experiment(
    name="fig5b",
    folder=__name__,
    title="Sparsity needs no true images",
    figure="Figure 5b",
    expected="sparsity persists on images whose pixels are i.i.d. uniform in [-1, 1]",
    setup="ViT on images of i.i.d. pixels, uniform in [-1, 1].",
)
FIG5C = Experiment(
    name="fig5c",
    folder=__name__,
    title="Sparsity needs nothing to fit",
    figure="Figure 5c",
    expected="sparsity persists on infinite data: fresh random images and labels, none repeated",
    setup="ViT on random images and labels drawn afresh, none repeated.",
)
MIXER = Experiment(
    name="mixer",
    folder=__name__,
    title="Sparsity emerges in the MLP-Mixer",
    figure="Appendix B",
    expected="sparsity emerges; numbers not known",
    setup="MLP-Mixer.",
)
MLP = Experiment(
    name="mlp",
    folder=__name__,
    title="Sparsity emerges in a 2-layer MLP",
    figure="Appendix B",
    expected="sparsity emerges; numbers not known",
    setup="A 2-layer MLP.",
)
RESNET = Experiment(
    name="resnet",
    folder=__name__,
    title="Sparsity emerges in a ResNet to some extent",
    figure="Appendix B",
    expected='sparsity emerges "to some extent"; numbers not known',
    setup="ResNet.",
)
OPTIMIZERS = Experiment(
    name="optimizers",
    folder=__name__,
    title="Sparsity emerges with any optimizer",
    figure="Appendix B",
    expected="sparsity emerges with SGD, Adam and Adafactor; numbers not known",
    setup="Other optimizers.",
)
ACTIVATION = Experiment(
    name="activation",
    folder=__name__,
    title="ReLU costs little against GELU",
    figure="Section 2",
    expected=f"ViT on ImageNet-21k: {RELU} % top-1 with ReLU, {GELU} % with GELU",
)
