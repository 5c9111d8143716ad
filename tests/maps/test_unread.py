"""Padding that cannot be read is warned about once, by name; ordinary calls raise no false alarm."""

import warnings
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import lazyneuron as lazy
from tests.maps.models import IDS, MLP, SMALL, build_t5, random

IS_REAL = torch.arange(6) < torch.tensor([[6], [2]])


def llama(**tokens: Any) -> hf.LlamaForCausalLM:
    sizes = {"intermediate_size": 32, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, **sizes | tokens)).eval()


class Masked(nn.Module):
    """Takes a mask by a name of its own, and all sorts of other masks."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = MLP()

    def forward(self, x: Tensor, valid_mask: Tensor | None = None, **others: Tensor) -> Tensor:
        return self.mlp(x)


def messages(model: nn.Module, *calls: dict[str, Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with lazy.watch(model), torch.no_grad():
            for call in calls:
                model(**call)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("mask", [IS_REAL, IS_REAL.flip(1), ~IS_REAL, IS_REAL.float()])
def test_a_mask_by_an_unknown_name(mask: Tensor) -> None:
    (found,) = messages(Masked(), *[{"x": random(2, 6, 8), "valid_mask": mask}] * 3)
    assert "valid_mask looks like padding" in found
    assert "pass attention_mask" in found


@pytest.mark.parametrize(
    "name",
    ["valid_mask", "bool_masked_pos", "head_mask", "loss_mask", "masked_labels", "trg_causal_mask", "x_mask"],
)
def test_masks_of_something_else(name: str) -> None:
    """All ones, scattered ones, or a name that says what it is."""
    scattered = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 1, 0, 1, 1, 0]])
    is_other = name in ("valid_mask", "x_mask")
    for mask in (torch.ones(2, 6), scattered, *([] if is_other else [IS_REAL])):
        assert messages(Masked(), {"x": random(2, 6, 8), name: mask}) == []


@pytest.mark.parametrize("pad", [0, 1, 2])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pad_tokens_without_a_mask(pad: int, side: str) -> None:
    """Also where the pad token begins or ends sequences; with a mask, or within a row, it says nothing."""
    is_real = IS_REAL if side == "right" else IS_REAL.flip(1)
    padded = torch.where(is_real, IDS, pad)
    model = llama(pad_token_id=pad)
    (found,) = messages(model, *[{"input_ids": padded}] * 2)
    assert f"input_ids has the pad token {pad} at an end of rows" in found
    assert messages(model, {"input_ids": padded, "attention_mask": is_real.long()}) == []
    within = IDS.clone()
    within[:, 2:4] = pad
    dummy = torch.full_like(IDS, pad)
    assert messages(model, {"input_ids": within}, {"input_ids": dummy}, {"input_ids": padded[:, -1:]}) == []


def test_sequences_may_begin_and_end_with_the_pad_token() -> None:
    """Where it also begins or ends sequences, one of it at an end is a token."""
    ids = IDS.clone()
    ids[:, 0] = ids[:, -1] = 2
    assert messages(llama(pad_token_id=2), {"input_ids": ids}) == []
    assert len(messages(llama(pad_token_id=0), {"input_ids": ids.masked_fill(ids == 2, 0)})) == 1
    assert messages(llama(), {"input_ids": ids}) == []


def test_pad_tokens_of_a_decoder() -> None:
    """Its own start token is no padding; pads at the end are, and its own mask or labels say so."""
    model, ids = build_t5(), torch.where(IS_REAL, IDS, 0)
    start = torch.cat([torch.zeros(2, 1).long(), IDS[:, 1:]], 1)
    encoder = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    assert messages(model, encoder | {"decoder_input_ids": start}) == []
    (found,) = messages(model, encoder | {"decoder_input_ids": ids})
    assert "decoder_input_ids has the pad token 0" in found
    assert "pass decoder_attention_mask" in found
    assert messages(model, encoder | {"decoder_input_ids": ids, "decoder_attention_mask": IS_REAL.long()}) == []
    assert messages(model, encoder | {"decoder_input_ids": ids, "labels": torch.where(IS_REAL, IDS, -100)}) == []
