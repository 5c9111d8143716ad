"""Figure 2a and b: density by layer in T5 and ViT, on training and on evaluation data."""

from dataclasses import replace

from lazyneuron.data.images import Augmentation
from lazyneuron.reproduce.claims import TRAINING_CLAIMS
from lazyneuron.reproduce.recipe import Recipe, Scale, Training, ViTTask, full_size, smoke
from lazyneuron.reproduce.recipes.fig1 import t5

DIGITS = Augmentation(canvas=12, rotation=30, scale=0.2, shift=1.5, noise=0.125)
SMALL_IMAGES = Augmentation(canvas=28, shift=2, flip=True)

_QUICK = Training(
    name="vit",
    task=ViTTask(size="vit-tiny", augmentation=DIGITS, d_ff=1024),
    num_steps=5000,
    batch_size=64,
    learning_rate=6e-3,
    optimizer="adamw",
    schedule="linear",
    warmup_steps=200,
    clip_norm=1.0,
    num_probes=24,
)


def vit(scale: Scale) -> Training:
    """A ReLU ViT that classifies images, with AdamW.

    smoke: seconds. quick: scikit-learn's digits, each turned, scaled, moved and made noisy on a 12 x 12 canvas so that
    none is seen twice. laptop: Fashion-MNIST. paper: ViT-B/16 on ImageNet-1k (300k steps at batch 1024).
    """
    if scale == "smoke":
        return smoke(_QUICK, num_steps=80)
    if scale == "quick":
        return _QUICK
    if scale == "laptop":
        task = ViTTask(
            size="vit-tiny",
            images="fashion-mnist",
            augmentation=SMALL_IMAGES,
            num_layers=6,
            d_ff=1024,
            patch_size=7,
        )
        return replace(_QUICK, task=task, num_steps=20_000, learning_rate=3e-3)
    return replace(
        full_size(_QUICK),
        task=ViTTask(size="vit-b16", images="hf:ILSVRC/imagenet-1k", augmentation=Augmentation(canvas=224, flip=True)),
        num_steps=112_600,
        batch_size=1024,
        learning_rate=3e-3,
        weight_decay=0.3,
        warmup_steps=10_000,
    )


def fig2ab(scale: Scale) -> Recipe:
    """Figure 2a, b. Reported: sparse in every layer of T5's two stacks and of ViT, alike on both splits."""
    return Recipe(
        name="fig2ab",
        title="Every layer of T5 and ViT is sparse, on training and evaluation data alike",
        figure="Figure 2a and 2b",
        expected="3.0 % (T5-Base) and 6.3 % (ViT-B16) on average; first and last layers denser than the middle",
        runs=(t5(scale), vit(scale)),
        claims=TRAINING_CLAIMS,
    )
