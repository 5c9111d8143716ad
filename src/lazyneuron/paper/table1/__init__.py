"""Table 1, and all corruptions of ImageNet-C: Top-k ViT under label noise and input noise, and its calibration."""

from lazyneuron.paper.experiment import Experiment

HEAD = ("natural", "labels 40 %", "labels 80 %", "Gaussian", "impulse", "shot", "ECE")
ROWS = {
    "ViT": (74.85, 59.44, 25.35, 39.54, 37.37, 38.56, 8.42),
    "Top-128 ViT": (74.83, 62.13, 30.80, 42.29, 40.07, 40.68, 7.48),
}
"""The paper's Table 1: accuracy and ECE in %."""

TABLE1 = Experiment(
    name="table1",
    folder=__name__,
    title="Top-k is more robust to noise, and better calibrated",
    figure="Table 1",
    expected="natural accuracy the same; label noise +2.7 (40 %) and +5.5 points (80 %); input noise +2.1 to +2.8 "
    "points; ECE 8.42 to 7.48 %",
    setup="ViT and Top-128 ViT on ImageNet-1k, nothing retuned. Label noise: that share of the training labels "
    "redrawn uniformly. Input noise: ImageNet-C, mean of 5 severities. Accuracy and ECE in %.",
    numbers=tuple((title, f"{b - a:+.2f}") for title, a, b in zip(HEAD, *ROWS.values(), strict=True)),
    note="Differences of Top-128 ViT to ViT, in points; the whole table stands beside ours.",
    kinds=("robustness",),
)
CORRUPTIONS = Experiment(
    name="corruptions",
    folder=__name__,
    title="All 15 common corruptions",
    figure="Beyond Table 1",
    expected="the paper reports Gaussian, impulse and shot noise only",
    kinds=("robustness",),
)
