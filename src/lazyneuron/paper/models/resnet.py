"""ResNet of basic blocks for small images (arXiv 1512.03385, section 4.2)."""

from dataclasses import dataclass

from torch import Tensor, nn

from lazyneuron.sites import Site


@dataclass(frozen=True)
class ResNetSize:
    """Blocks and channels of each stage; every stage but the first halves the image."""

    num_blocks: tuple[int, ...]
    channels: tuple[int, ...]


RESNET_SIZES = {
    "resnet8": ResNetSize((1, 1, 1), (16, 32, 64)),
    "resnet20": ResNetSize((3, 3, 3), (16, 32, 64)),
    "resnet56": ResNetSize((9, 9, 9), (16, 32, 64)),
}


class _BasicBlock(nn.Module):
    def __init__(self, num_inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        is_same = stride == 1 and num_inputs == channels
        self.shortcut = nn.Identity() if is_same else nn.Conv2d(num_inputs, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(h)) + self.shortcut(x)).relu()


class ResNet(nn.Module):
    """Images [B, C, H, W] to logits [B, num_classes]: a 3x3 convolution, basic blocks, the mean over places, a head.

    Where the paper has padded identities, a block that changes the shape has a 1x1 convolution as its shortcut.
    """

    def __init__(self, size: ResNetSize, *, num_classes: int, num_channels: int = 3) -> None:
        super().__init__()
        width = size.channels[0]
        self.stem = nn.Sequential(
            nn.Conv2d(num_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.ModuleList()
        for stage, (count, channels) in enumerate(zip(size.num_blocks, size.channels, strict=True)):
            for number in range(count):
                self.blocks.append(_BasicBlock(width, channels, 2 if stage and not number else 1))
                width = channels
        self.head = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.stem(pixel_values)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((-2, -1)))

    def sites(self) -> list[Site]:
        """The ReLU inside each block: what enters its second convolution, per channel and place.

        A 3x3 convolution is no MLP, so tracing does not find them; they are counted in the same way, every place of
        the map as a token and every channel as a neuron. The ReLU after the sum is left out: it gives the next block's
        shortcut as well.
        """
        found = []
        for number, block in enumerate(self.blocks):
            name = f"blocks.{number}"
            up, down = block.get_parameter("conv1.weight"), block.get_parameter("conv2.weight")
            found.append(
                Site(
                    name=name,
                    up=f"{name}.conv1.weight",
                    gate=None,
                    down=f"{name}.conv2.weight",
                    d_model=up.shape[1],
                    d_ff=down.shape[1],
                    activation="relu",
                    axis=-3,
                )
            )
        return found


def resnet(size: str = "resnet20", *, num_classes: int = 10, num_channels: int = 3) -> ResNet:
    """A randomly initialised ResNet of a named size: Kaiming-normal convolutions, batch norms at 1 and 0.

    "resnet20" and "resnet56" are those of CIFAR-10; "resnet8" is ours.
    """
    if size not in RESNET_SIZES:
        raise ValueError(f"no ResNet size {size!r}: choose one of {', '.join(RESNET_SIZES)}")
    return ResNet(RESNET_SIZES[size], num_classes=num_classes, num_channels=num_channels)
