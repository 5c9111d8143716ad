"""Section 4: the accuracy of Top-k T5 and ViT against k."""

from lazyneuron.paper.experiment import Experiment

COST = 0.3
"""About what k = 128 costs T5-3B and k = 256 costs ViT, in points."""

TOPK_ACCURACY = Experiment(
    name="topk-accuracy",
    folder=__name__,
    title="How few neurons per token are enough",
    figure="Section 4, accuracy of Top-k T5 and ViT against k",
    expected="k = 128 (4 % of 3,072) for T5 and 256 (8 %) for ViT do as well as dense, within about 0.3 points",
    setup="T5 Base, Large and 3B on C4; ViT-B16 (d_ff 3,072) on ImageNet-21k.",
    numbers=(
        ("k that suffices for T5", "128"),
        ("k that suffices for ViT", "256"),
        ("loss of T5-3B at 128 and of ViT at 256", f"about {COST} %"),
    ),
)
