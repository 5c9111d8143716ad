"""MLP-Mixer with ReLU: MLPs over tokens and over channels in turn (arXiv 2105.01601)."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class MixerSize:
    """Layers and widths: `d_ff` of the MLPs over channels, `d_ff_tokens` of those over patches; the patch's side."""

    num_layers: int
    d_model: int
    d_ff: int
    d_ff_tokens: int
    patch_size: int


MIXER_SIZES = {
    "mixer-tiny": MixerSize(4, 64, 512, 64, 3),
    "mixer-s16": MixerSize(8, 512, 2048, 256, 16),
    "mixer-b16": MixerSize(12, 768, 3072, 384, 16),
    "mixer-l16": MixerSize(24, 1024, 4096, 512, 16),
}


class _MixerMLP(nn.Module):
    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(d_model, d_ff)
        self.down_proj = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.up_proj(x).relu())


class _MixerBlock(nn.Module):
    def __init__(self, num_patches: int, d_model: int, d_ff_tokens: int, d_ff: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(d_model)
        self.token_mlp = _MixerMLP(num_patches, d_ff_tokens)
        self.channel_norm = nn.LayerNorm(d_model)
        self.channel_mlp = _MixerMLP(d_model, d_ff)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mlp(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.channel_norm(x))


class MLPMixer(nn.Module):
    """Images [B, C, H, W] to logits [B, num_classes].

    Two MLPs a block: over the patches (its "tokens" are channels) and over the channels. Mixer-B/16 has
    d_model 768, d_ff 3072, d_ff_tokens 384 and 12 layers.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        num_classes: int,
        num_channels: int = 3,
        num_layers: int = 12,
        d_model: int = 768,
        d_ff: int = 3072,
        d_ff_tokens: int = 384,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"patches of {patch_size} pixels do not tile an image of {image_size}: give a divisor")
        num_patches = (image_size // patch_size) ** 2
        self.stem = nn.Conv2d(num_channels, d_model, patch_size, stride=patch_size)
        self.blocks = nn.ModuleList(_MixerBlock(num_patches, d_model, d_ff_tokens, d_ff) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, num_classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.stem(pixel_values).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def mixer(
    size: str = "mixer-b16",
    *,
    num_classes: int = 1000,
    image_size: int = 224,
    num_channels: int = 3,
    num_layers: int | None = None,
    d_ff: int | None = None,
    patch_size: int | None = None,
) -> MLPMixer:
    """A randomly initialised ReLU MLP-Mixer ("mixer-tiny" is ours, for small images), as PyTorch's layers draw it.

    `num_layers`, `d_ff` and `patch_size` replace the named size's.
    """
    if size not in MIXER_SIZES:
        raise ValueError(f"no Mixer size {size!r}: choose one of {', '.join(MIXER_SIZES)}")
    shape = MIXER_SIZES[size]
    return MLPMixer(
        image_size=image_size,
        patch_size=patch_size or shape.patch_size,
        num_classes=num_classes,
        num_channels=num_channels,
        num_layers=num_layers or shape.num_layers,
        d_model=shape.d_model,
        d_ff=d_ff or shape.d_ff,
        d_ff_tokens=shape.d_ff_tokens,
    )
