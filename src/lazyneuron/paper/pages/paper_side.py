"""What the paper itself says of each experiment: set-up and numbers that its main text states, none off a curve."""

from dataclasses import dataclass

NOT_NUMBERS = "The paper shows this as curves; beyond the sentence above no number of theirs is known here."


@dataclass(frozen=True, kw_only=True)
class PaperSide:
    """The paper's set-up, what it says in numbers, and what differs here; empty where nothing is known."""

    setup: str
    numbers: tuple[tuple[str, str], ...] = ()
    note: str = ""


TABLE1_HEAD = ("natural", "labels 40 %", "labels 80 %", "Gaussian", "impulse", "shot", "ECE")
TABLE1 = {
    "ViT": (74.85, 59.44, 25.35, 39.54, 37.37, 38.56, 8.42),
    "Top-128 ViT": (74.83, 62.13, 30.80, 42.29, 40.07, 40.68, 7.48),
}

PAPER = {
    "fig1": PaperSide(
        setup="T5-Base, span corruption on C4, by training step and layer.",
        numbers=(
            ("active at initialisation", "about 50 %"),
            ("after training, mean over layers", "2.7 %"),
            ("in the densest layer", "12.0 %"),
            ("in the sparsest layer", "1.1 %"),
        ),
    ),
    "fig2a": PaperSide(
        setup="Encoder and decoder of T5, and ViT, by layer.",
        numbers=(("T5-Base, mean", "3.0 %"), ("ViT-B16, mean", "6.3 %")),
    ),
    "fig2b": PaperSide(setup="T5 and ViT, training against evaluation data, by layer."),
    "fig2c": PaperSide(setup="ViT on ImageNet-21k and on ImageNet-1k, by layer."),
    "fig2d-f": PaperSide(setup="ViT and T5 of several sizes, by layer."),
    "fig3": PaperSide(
        setup="First encoder layer of a pretrained T5-Base, 800 x 512 tokens.",
        numbers=(
            ("a few neurons fire", "about 50 %"),
            ("fire less than 10 % of the time", "93.5 %"),
            ("fire more than 1 % of the time", "99 %"),
            ("the least active fires", "0.001 %"),
            ("never fire", "none"),
        ),
    ),
    "theorem31": PaperSide(
        setup="A random, zero-mean output layer above a ReLU layer; cross-entropy or squared error; labels independent "
        "of that layer. Then the expected gradient on every active pre-activation is positive, so that a step of "
        "gradient descent lowers it, whatever the data.",
    ),
    "fig4a": PaperSide(
        setup="T5, depth alone varied, up to 32 layers.",
        numbers=(("middle layers of the 32-layer model", "below 1 %"),),
    ),
    "fig4bc": PaperSide(setup="T5, d_ff alone varied."),
    "fig5a": PaperSide(setup="ViT on ImageNet-21k, 50, 70 and 100 % of the labels replaced by uniform random ones."),
    "fig5b": PaperSide(setup="ViT on images of i.i.d. pixels, uniform in [-1, 1]."),
    "fig5c": PaperSide(setup="ViT on random images and labels drawn afresh, none repeated."),
    "topk-accuracy": PaperSide(
        setup="T5 Base, Large and 3B on C4; ViT-B16 (d_ff 3,072) on ImageNet-21k.",
        numbers=(
            ("k that suffices for T5", "128"),
            ("k that suffices for ViT", "256"),
            ("loss of T5-3B at 128 and of ViT at 256", "about 0.3 %"),
        ),
    ),
    "latency": PaperSide(
        setup="T5's decoder, unbatched and greedy, on one TPUv4, by approximate top-k with a recall of 0.95.",
        numbers=(("less time per token for T5-11B at k up to 128", "about 10 %"),),
        note="Skipping exact zeros changes no output; the second product of an MLP falls to the active neurons' share, "
        "at 2.7 % by 97.3 %.",
    ),
    "table1": PaperSide(
        setup="ViT and Top-128 ViT on ImageNet-1k, nothing retuned. Label noise: that share of the training labels "
        "redrawn uniformly. Input noise: ImageNet-C, mean of 5 severities. Accuracy and ECE in %.",
        numbers=tuple((title, f"{b - a:+.2f}") for title, a, b in zip(TABLE1_HEAD, *TABLE1.values(), strict=True)),
        note="Differences of Top-128 ViT to ViT, in points; the whole table stands beside ours.",
    ),
    "mixer": PaperSide(setup="MLP-Mixer."),
    "mlp": PaperSide(setup="A 2-layer MLP."),
    "optimizers": PaperSide(setup="Other optimizers."),
}
