"""Figure 1: T5's activation maps grow sparse while it learns to fill in spans."""

from dataclasses import replace

from lazyneuron.reproduce.claims import TRAINING_CLAIMS
from lazyneuron.reproduce.recipe import Recipe, Scale, T5Task, Training, full_size, smoke

_QUICK = Training(
    name="t5",
    task=T5Task(size="tiny"),
    num_steps=8000,
    batch_size=8,
    learning_rate=0.02,
    optimizer="adafactor",
    schedule="linear",
    warmup_steps=100,
    z_loss=1e-4,
    num_probes=24,
    probe_batches=32,
)


def t5(scale: Scale) -> Training:
    """T5 v1.0 trained by span corruption with Adafactor.

    smoke: seconds. quick: 64-token spans of the prose that ships with Python, 3 + 3 layers. laptop: twice as deep and
    wide, and longer, on the same text or on your own by --text. paper: T5-Base on C4 as in T5X (100k steps of 256 x 512
    tokens).
    """
    if scale == "smoke":
        return smoke(_QUICK, num_steps=60)
    if scale == "quick":
        return _QUICK
    if scale == "laptop":
        task = T5Task(size="tiny", num_layers=6, d_ff=1024)
        return replace(_QUICK, task=task, num_steps=20_000, batch_size=16, probe_batches=16)
    return replace(
        full_size(_QUICK),
        task=T5Task(
            size="base",
            text="hf:allenai/c4/en",
            vocab_size=32_128,
            input_length=512,
            max_text_bytes=60_000_000_000,
        ),
        num_steps=100_000,
        batch_size=256,
        learning_rate=0.01,
        schedule="constant",
        warmup_steps=0,
    )


def fig1(scale: Scale) -> Recipe:
    """Figure 1. Reported: about 50 % at initialisation, 2.7 % on average after training (1.1 to 12.0 % by layer)."""
    return Recipe(
        name="fig1",
        title="T5 grows sparse while it trains",
        figure="Figure 1",
        expected="about 50 % at initialisation, 2.7 % on average after training (T5-Base on C4)",
        runs=(t5(scale),),
        claims=TRAINING_CLAIMS,
    )
