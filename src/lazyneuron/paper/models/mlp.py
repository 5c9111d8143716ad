"""The 2-layer MLP of the paper's Theorem 3.1 and Appendix B."""

from torch import Tensor, nn


class MLP(nn.Module):
    """`down_proj(relu(up_proj(x)))` on flattened images: [B, ...] to logits [B, num_classes]."""

    def __init__(self, d_in: int, d_ff: int, num_classes: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(d_in, d_ff)
        self.down_proj = nn.Linear(d_ff, num_classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.down_proj(self.up_proj(pixel_values.flatten(1)).relu())
