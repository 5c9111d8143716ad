"""Sixteen families of small random models in float64, so that one row alone and in a batch round alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import nn

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2}
GATED = {"intermediate_size": 24, "num_key_value_heads": 2, "hidden_act": "relu", **TOKENS}
STACKS = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
STACKS |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16, "vocab_size": 60, "pad_token_id": 0, **TOKENS}
STACKS |= {"activation_function": "relu", "decoder_start_token_id": 3, "max_position_embeddings": 64}


@dataclass(frozen=True)
class Family:
    """How to build a model, the modules that are down projections (a regular expression), and which calls it lacks."""

    build: Callable[[], nn.Module]
    down: str
    lacks: dict[str, str]


class Encoder(nn.Module):
    """PyTorch's own encoder with its default fast path, called as its documentation does."""

    def __init__(self, is_sequence_first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=not is_sequence_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not is_sequence_first)
        self.is_sequence_first = is_sequence_first

    def forward(self, input_ids: torch.Tensor, src_key_padding_mask: torch.Tensor | None = None) -> Any:
        x = self.embed(input_ids.t() if self.is_sequence_first else input_ids)
        return self.encoder(x, src_key_padding_mask=src_key_padding_mask)


ENCODER = {
    "packed": "an encoder does not read documents from position_ids",
    "cache": "an encoder has no cache",
    "generate": "an encoder does not generate",
    "labels": "an encoder's labels are those of its own tokens, never shifted",
    "dictionary": "one kind of attention: it takes one mask",
}
MIXED = {"packed": "it attends across documents whatever the positions"}
ONE_KIND = {"dictionary": "one kind of attention: it takes one mask"}
TWO_STACKS = ONE_KIND | {
    "left pad": "its positions count from the left, padding included",
    "packed": "cross-attention would mix the documents",
    "4-D": "its stacks take a mask each, in two dimensions",
}


def _decoder(name: str, **config: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        cls = getattr(hf, f"{name}ForCausalLM", None) or getattr(hf, f"{name}LMHeadModel")
        return cls(getattr(hf, f"{name}Config")(**config))

    return build


FAMILIES = {
    "GPT-2": Family(
        _decoder(
            "GPT2", vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_inner=24, activation_function="relu", **TOKENS
        ),
        r"mlp\.c_proj$",
        ONE_KIND,
    ),
    "OPT": Family(_decoder("OPT", **SIZES, ffn_dim=24, word_embed_proj_dim=16, **TOKENS), r"\.fc2$", ONE_KIND | MIXED),
    "Llama": Family(_decoder("Llama", **SIZES, **GATED), r"down_proj$", ONE_KIND),
    "Mistral": Family(_decoder("Mistral", **SIZES, **GATED, sliding_window=8), r"down_proj$", ONE_KIND),
    "Qwen3": Family(_decoder("Qwen3", **SIZES, **GATED, head_dim=8), r"down_proj$", {}),
    "Gemma 3": Family(
        lambda: hf.Gemma3ForCausalLM(
            hf.Gemma3TextConfig(
                **SIZES,
                **{name: value for name, value in GATED.items() if name != "hidden_act"},
                hidden_activation="relu",
                head_dim=8,
                sliding_window=8,
                layer_types=["sliding_attention", "full_attention"],
            )
        ),
        r"down_proj$",
        {},
    ),
    "GPT-NeoX": Family(
        _decoder("GPTNeoX", **SIZES, intermediate_size=24, hidden_act="relu", **TOKENS), r"dense_4h_to_h$", ONE_KIND
    ),
    "Mixtral": Family(
        _decoder(
            "Mixtral",
            **SIZES,
            **GATED,
            num_local_experts=4,
            num_experts_per_tok=2,
            experts_implementation="eager",  # grouped products have no float64
        ),
        r"\.experts$",
        ONE_KIND,
    ),
    "Phi": Family(_decoder("Phi", **SIZES, **GATED), r"\.fc2$", ONE_KIND),
    "Falcon": Family(
        _decoder("Falcon", **SIZES, ffn_hidden_size=24, activation="relu", **TOKENS),
        r"dense_4h_to_h$",
        ONE_KIND | MIXED,
    ),
    "BERT": Family(
        lambda: hf.BertModel(hf.BertConfig(**SIZES, intermediate_size=24, hidden_act="relu")),
        r"layer\.\d+\.output\.dense$",
        ENCODER,
    ),
    "DistilBERT": Family(
        lambda: hf.DistilBertModel(
            hf.DistilBertConfig(vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=24, activation="relu")
        ),
        r"ffn\.lin2$",
        ENCODER,
    ),
    "XLNet": Family(
        lambda: hf.XLNetModel(
            hf.XLNetConfig(vocab_size=60, d_model=16, n_layer=2, n_head=2, d_inner=24, ff_activation="relu")
        ),
        r"ff\.layer_2$",
        ENCODER | {"4-D": "it takes masks in two dimensions"},
    ),
    "nn.TransformerEncoder": Family(lambda: Encoder(False), r"linear2$", ENCODER | {"4-D": "no such argument"}),
    "nn.TransformerEncoder, sequence first": Family(
        lambda: Encoder(True), r"linear2$", ENCODER | {"4-D": "no such argument"}
    ),
    "T5": Family(
        lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0)
        ),
        r"\.wo$",
        {name: why for name, why in TWO_STACKS.items() if name != "left pad"},
    ),
    "BART": Family(lambda: hf.BartForConditionalGeneration(hf.BartConfig(**STACKS)), r"\.fc2$", TWO_STACKS),
    "Marian": Family(lambda: hf.MarianMTModel(hf.MarianConfig(**STACKS)), r"\.fc2$", TWO_STACKS),
}
