"""ViT with ReLU in place of GELU, as in the paper (architecture: arXiv 2010.11929)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import ViTForImageClassification


@dataclass(frozen=True)
class ViTSize:
    """Layers, widths and the patch's side in pixels."""

    num_layers: int
    d_model: int
    d_ff: int
    num_heads: int
    patch_size: int


VIT_SIZES = {
    "vit-micro": ViTSize(3, 32, 256, 2, 3),
    "vit-tiny": ViTSize(4, 64, 512, 4, 3),
    "vit-mini": ViTSize(5, 96, 768, 6, 3),
    "vit-ti16": ViTSize(12, 192, 768, 3, 16),
    "vit-s16": ViTSize(12, 384, 1536, 6, 16),
    "vit-b16": ViTSize(12, 768, 3072, 12, 16),
    "vit-l16": ViTSize(24, 1024, 4096, 16, 16),
}


def vit(
    size: str = "vit-b16",
    *,
    num_classes: int = 1000,
    image_size: int = 224,
    num_channels: int = 3,
    num_layers: int | None = None,
    d_ff: int | None = None,
    patch_size: int | None = None,
    dropout: float = 0.0,
    hidden_act: str = "relu",
) -> "ViTForImageClassification":
    """A randomly initialised ReLU ViT with a class token ("vit-micro", "-tiny" and "-mini" are ours, for small images).

    `num_layers`, `d_ff` and `patch_size` replace the named size's, `hidden_act` its ReLU. Initialisation is that of the
    original code base: Xavier-uniform projections, N(0, 1 / fan-in) patch embedding, zero biases, positions N(0, 0.02);
    but the head, zero there (so that no gradient reaches an MLP at step 0), starts Xavier-uniform too.
    """
    from transformers import ViTConfig, ViTForImageClassification

    if size not in VIT_SIZES:
        raise ValueError(f"no ViT size {size!r}: choose one of {', '.join(VIT_SIZES)}")
    shape = VIT_SIZES[size]
    patch_size = patch_size or shape.patch_size
    if image_size % patch_size:
        raise ValueError(f"patches of {patch_size} pixels do not tile an image of {image_size}: give a divisor")
    config = ViTConfig(
        hidden_size=shape.d_model,
        num_hidden_layers=num_layers or shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=d_ff or shape.d_ff,
        hidden_act=hidden_act,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        image_size=image_size,
        patch_size=patch_size,
        num_channels=num_channels,
    )
    config.num_labels = num_classes
    model = ViTForImageClassification(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    return model
