"""A small decoder, ways to run it, and the counts that one pass over each sequence gives."""

from typing import Any

import torch
import transformers as hf
from torch import Tensor

from lazyneuron.measure.probe import watch
from tests.maps.models import SMALL

STATISTICS = ("active", "position", "overlap", "halves", "energy_90")
PROMPTS = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12], [0, 13, 14, 15, 16]])
MASK = (PROMPTS != 0).long()
SIZES = {"intermediate_size": 32, "num_key_value_heads": 2, "hidden_act": "relu", "bos_token_id": 1}


def llama(**options: Any) -> Any:
    torch.manual_seed(0)
    config = hf.LlamaConfig(**SMALL, **SIZES, pad_token_id=0, eos_token_id=2, **options)
    model = hf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight *= 30  # so that sampling without a temperature does not repeat one token
    return model


def one_pass(model: Any, sequences: list[Tensor], statistics: Any = STATISTICS) -> dict[str, Tensor]:
    """The counts of each sequence on its own, in one call without a cache."""
    with watch(model, statistics=statistics) as probe, torch.no_grad():
        for ids in sequences:
            model(ids[None], use_cache=False)
    return probe.state()


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


def free_running(model: Any, num_new: int = 9, **options: Any) -> Tensor:
    """What the model writes when nothing stops it."""
    torch.manual_seed(1)
    return model.generate(PROMPTS, attention_mask=MASK, max_new_tokens=num_new, eos_token_id=None, **options)


def processed(rows: Tensor, ends: list[int]) -> list[Tensor]:
    """The tokens that the model processes: of row b up to ends[b], or all but the last; prompt padding is left out."""
    return [
        row[int((mask == 0).sum()) : min(end, len(row) - 1)] for row, mask, end in zip(rows, MASK, ends, strict=True)
    ]


def decode(model: Any, rows: Tensor, mask: Tensor, cuts: list[int], **first: Any) -> Any:
    """Feed rows [B, S] in pieces with a cache, as a hand-written loop does."""
    cache, start = first.pop("cache", None), 0
    for stop in [*cuts, rows.shape[1]]:
        with torch.no_grad():
            cache = model(
                rows[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache, use_cache=True, **first
            ).past_key_values
        start = stop
    return cache


class Embedded(torch.nn.Module):
    """An MLP over embeddings, with a cache that is a plain tuple of tensors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.up, self.down = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 24), torch.nn.Linear(24, 8)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: tuple[tuple[Tensor]] | None = None,
        cu_seqlens: Tensor | None = None,
        **lengths: Any,
    ) -> tuple[Tensor, tuple[tuple[Tensor]]]:
        x = self.embed(input_ids)
        cached = x if past_key_values is None else torch.cat([past_key_values[0][0], x], 1)
        return x + self.down(torch.relu(self.up(x) - 0.3)), ((cached,),)
