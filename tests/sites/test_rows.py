"""The order of the tokens in a map is followed through the pass, whatever its shape."""

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import lazyneuron as lazy
from tests.sites.models import IDS


class Ordered(nn.Module):
    """An embedding and an MLP behind a change of the order of the tokens."""

    def __init__(self, change: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Embedding(60, 8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.change = change

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = self.norm(x + torch.softmax(x @ x.mT, -1) @ x)
        if self.change == "transposed":
            x = x.transpose(0, 1)
        elif self.change == "flat":
            x = x.flatten(0, 1)
        elif self.change == "transposed and flat":
            x = x.transpose(0, 1).reshape(-1, 8)
        elif self.change == "picked":  # all of them, and in order
            x = x.flatten(0, 1)[torch.arange(ids.numel())]
        elif self.change == "mixed":
            x = x.cumsum(1).mean(1, keepdim=True).expand_as(x) * 1.5
            x = torch.fft.fft(x).real
        return self.down(self.up(x).relu())


@pytest.mark.parametrize("shape", [(3, 3), (2, 5)])
@pytest.mark.parametrize(
    ("change", "order"),
    [
        ("none", "batch"),
        ("flat", "batch"),
        ("transposed", "sequence"),
        ("transposed and flat", "sequence"),
        ("picked", "gathered"),
        ("mixed", None),
    ],
)
def test_the_order_of_the_tokens(change: str, order: str | None, shape: tuple[int, int]) -> None:
    ids = torch.randint(3, 50, shape)
    (site,) = lazy.find_sites(Ordered(change), ids)
    assert site.order == order


@pytest.mark.parametrize("shape", [(1, 4), (1, 1), (4, 1)])
def test_a_single_sequence_or_token_has_no_order(shape: tuple[int, int]) -> None:
    (site,) = lazy.find_sites(Ordered("transposed"), torch.randint(3, 50, shape))
    assert site.order is None


def test_models() -> None:
    """XLNet has the sequence first inside; OPT flattens; the experts of Mixtral get what the router sends."""
    xlnet = hf.XLNetModel(hf.XLNetConfig(vocab_size=60, d_model=16, n_layer=2, n_head=2, d_inner=32))
    assert {site.order for site in lazy.find_sites(xlnet, IDS)} == {"sequence"}
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    opt = hf.OPTModel(hf.OPTConfig(**sizes, ffn_dim=32, word_embed_proj_dim=16))
    assert {site.order for site in lazy.find_sites(opt, IDS)} == {"batch"}
    config = hf.MixtralConfig(**sizes, intermediate_size=32, num_key_value_heads=2, num_local_experts=4)
    found = lazy.find_sites(hf.MixtralModel(config), IDS)
    assert {site.order for site in found} == {"gathered"}
