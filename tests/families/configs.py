"""Model sizes, inputs and weight names shared by several families."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

# (configuration or a function that builds it, inputs, expected MLPs). The expected MLPs map a module path, with a star
# for each number, to the count of MLPs at such paths and their (up, gate, down, activation).
Family = tuple[
    dict[str, Any] | Callable[[], Any], dict[str, Any], Mapping[str, tuple[int, tuple[str, str | None, str, str]]]
]
IDS = torch.arange(3, 17).reshape(2, 7)
TEXT = {"input_ids": IDS}
PAIR = {"input_ids": IDS, "labels": IDS}
IMAGE = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)}
WAVE = {"input_values": torch.linspace(-1, 1, 800).reshape(2, 400)}

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT = SIZES | {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = BERT | {"num_key_value_heads": 2}
HEADS = LLAMA | {"head_dim": 8}
VIT = SIZES | {"image_size": 8, "patch_size": 4}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}
T5 |= {"num_decoder_layers": 2, "decoder_start_token_id": 0}
BART = {"vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_start_token_id": 2}
BART |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GPT = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 32, "bos_token_id": 1, "eos_token_id": 2}
NEO = {"vocab_size": 50, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32}
NEO |= {"attention_types": [[["global", "local"], 1]], "bos_token_id": 1, "eos_token_id": 2}
GEMMA3N = HEADS | {"intermediate_size": [32, 32], "vocab_size_per_layer_input": 50, "hidden_size_per_layer_input": 4}
GEMMA3N |= {"laurel_rank": 4, "num_kv_shared_layers": 0, "layer_types": ["full_attention"] * 2}
DEEPSEEK = LLAMA | {"moe_intermediate_size": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
DEEPSEEK |= {"num_experts_per_tok": 2, "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8}
DEEPSEEK |= {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
WAVE_SIZES = BERT | {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3)}
WAVE_SIZES |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
WHISPER = BART | {"num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 20}
CLIP_TEXT = BERT | {"projection_dim": 8, "max_position_embeddings": 32}
SIGLIP_TEXT = {"text_config": BERT | {"projection_size": 16}, "vision_config": VIT}
CLIP = {"text_config": CLIP_TEXT, "vision_config": VIT | {"projection_dim": 8}, "projection_dim": 8}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
CONVNEXT = {"hidden_sizes": [8] * 4, "depths": [1] * 4}

EXPERTS = {"num_experts_per_tok": 2}
TXT = BERT | {"max_position_embeddings": 32}
EFF = {"image_size": 64, "hidden_dim": 1280, "in_channels": [32, 16], "out_channels": [16, 24], "kernel_sizes": [3, 3]}
EFF |= {"strides": [1, 2], "num_block_repeats": [2, 2], "expand_ratios": [1, 6], "depthwise_padding": []}
EFF |= {"width_coefficient": 1.0, "depth_coefficient": 1.0}
D32 = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "num_queries": 5}
D32 |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_labels": 3}
TS = {"prediction_length": 3, "context_length": 6, "lags_sequence": [1, 2], "d_model": 16, "num_time_features": 1}
TS |= {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
TS |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def img(size: int) -> dict[str, Any]:
    """A batch of two RGB images of `size` x `size` pixels."""
    return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * size * size).reshape(2, 3, size, size)}


def feats(length: int, width: int) -> torch.Tensor:
    """A batch of two feature sequences, shape [2, length, width]."""
    return torch.linspace(-1, 1, 2 * length * width).reshape(2, length, width)


# (up, gate, down, activation) of an MLP; gate is None without gating
PLAIN = ("fc1.weight", None, "fc2.weight", "gelu")
PLAIN_RELU = (*PLAIN[:3], "relu")
QUICK_GELU = (*PLAIN[:3], "sigmoid+mul")
SWIGLU = ("up_proj.weight", "gate_proj.weight", "down_proj.weight", "silu")
GEGLU = (*SWIGLU[:3], "gelu")
UP_DOWN = ("up_proj.weight", None, "down_proj.weight", "gelu")
SQUARED_RELU = (*UP_DOWN[:3], "relu^2")
FUSED = ("gate_up_proj.weight", "gate_up_proj.weight", "down_proj.weight", "silu")
FUSED_GELU = (*FUSED[:3], "gelu")
FUSED_EXPERTS = ("gate_up_proj", "gate_up_proj", "down_proj", "silu")
BERT_LIKE = ("intermediate.dense.weight", None, "output.dense.weight", "gelu")
BLOOM_LIKE = ("dense_h_to_4h.weight", None, "dense_4h_to_h.weight", "gelu")
WAVE_LIKE = ("intermediate_dense.weight", None, "output_dense.weight", "gelu")
GPT_LIKE = ("c_fc.weight", None, "c_proj.weight", "gelu")
GPTJ_LIKE = ("fc_in.weight", None, "fc_out.weight", "gelu")
T5_PLAIN = ("wi.weight", None, "wo.weight", "relu")
T5_GATED = ("wi_1.weight", "wi_0.weight", "wo.weight", "gelu")
GRANITE_LIKE = ("input_linear.weight", "input_linear.weight", "output_linear.weight", "silu")
LIN = ("lin1.weight", None, "lin2.weight", "gelu")
DENSE = ("dense1.weight", None, "dense2.weight", "gelu")
