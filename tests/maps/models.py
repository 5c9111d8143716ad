"""Small models that keep their own activation maps, so that tests can count by hand."""

from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))


SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


class MLP(nn.Module):
    """A residual ReLU MLP with dropout that keeps its last maps, so that tests can count by hand."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.w1, self.w2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.maps: list[Tensor] = []

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        h = F.relu(self.w1(x))
        self.maps.append(h.detach())
        return x + self.w2(F.dropout(h, 0.3, self.training))


class Stack(nn.Module):
    """Two MLPs, optionally checkpointed."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.a, self.b = MLP(1), MLP(2)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.b(self.a(x))
        return checkpoint(self.b, checkpoint(self.a, x, use_reentrant=self.reentrant), use_reentrant=self.reentrant)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def build_t5() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return hf.T5ForConditionalGeneration(
        hf.T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    ).eval()


def num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
