"""Sites of many model families, built from tiny configs without a hub: right names and number, no head among them."""

import warnings
from typing import Any

import pytest
import torch
import transformers as hf

from lazyneuron.sites import find_sites

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


def two(template: str) -> list[str]:
    return [template.format(i) for i in (0, 1)]


def both(template: str) -> list[str]:
    return [name for stack in ("encoder", "decoder") for name in two(template.replace("STACK", stack))]


PLAIN = ("fc1.weight", None, "fc2.weight", "gelu")
SWIGLU = ("up_proj.weight", "gate_proj.weight", "down_proj.weight", "silu")
GEGLU = ("up_proj.weight", "gate_proj.weight", "down_proj.weight", "gelu")
FUSED_EXPERTS = ("gate_up_proj", "gate_up_proj", "down_proj", "silu")
BERT_LIKE = ("intermediate.dense.weight", None, "output.dense.weight", "gelu")
BLOOM_LIKE = ("dense_h_to_4h.weight", None, "dense_4h_to_h.weight", "gelu")
WAVE_LIKE = ("intermediate_dense.weight", None, "output_dense.weight", "gelu")
T5_MLPS = [f"encoder.block.{i}.layer.1.DenseReluDense" for i in (0, 1)]
T5_MLPS += [f"decoder.block.{i}.layer.2.DenseReluDense" for i in (0, 1)]
EXPERTS = {"num_experts_per_tok": 2}
LAYERS = two("model.layers.{}.mlp")
H = two("transformer.h.{}.mlp")

# model class, configuration, inputs, its MLPs, and up, gate, down and activation within each
FAMILIES: list[tuple[str, dict[str, Any], dict[str, Any], list[str], tuple[str, str | None, str, str]]] = [
    ("MT5ForConditionalGeneration", T5, PAIR, T5_MLPS, ("wi_1.weight", "wi_0.weight", "wo.weight", "gelu")),
    ("BartForConditionalGeneration", BART, PAIR, both("model.STACK.layers.{}"), PLAIN),
    (
        "WhisperForConditionalGeneration",
        WHISPER,
        {"input_features": torch.linspace(-1, 1, 320).reshape(2, 8, 20), "labels": IDS},
        both("model.STACK.layers.{}"),
        PLAIN,
    ),
    ("RobertaForSequenceClassification", BERT, TEXT, two("roberta.encoder.layer.{}"), BERT_LIKE),
    ("DebertaV2ForSequenceClassification", BERT, TEXT, two("deberta.encoder.layer.{}"), BERT_LIKE),
    (
        "DistilBertForMaskedLM",
        {"vocab_size": 50, "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
        TEXT,
        two("distilbert.transformer.layer.{}.ffn"),
        ("lin1.weight", None, "lin2.weight", "gelu"),
    ),
    (
        "AlbertForSequenceClassification",
        BERT | {"embedding_size": 8},
        TEXT,
        ["albert.encoder.albert_layer_groups.0.albert_layers.0"],
        ("ffn.weight", None, "ffn_output.weight", "gelu"),
    ),
    (
        "ModernBertForSequenceClassification",
        BERT | {"cls_token_id": 1, "sep_token_id": 2},
        TEXT,
        LAYERS,
        ("Wi.weight", "Wi.weight", "Wo.weight", "gelu"),
    ),
    ("GPTNeoForCausalLM", NEO, TEXT, H, ("c_fc.weight", None, "c_proj.weight", "gelu")),
    ("GPTJForCausalLM", GPT | {"rotary_dim": 4}, TEXT, H, ("fc_in.weight", None, "fc_out.weight", "gelu")),
    ("GPTNeoXForCausalLM", BERT, TEXT, two("gpt_neox.layers.{}.mlp"), BLOOM_LIKE),
    ("BloomForCausalLM", {"vocab_size": 50, "hidden_size": 16, "n_layer": 2, "n_head": 2}, TEXT, H, BLOOM_LIKE),
    ("FalconForCausalLM", BERT, TEXT, H, BLOOM_LIKE),
    (
        "MptForCausalLM",
        {"vocab_size": 50, "d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 32},
        TEXT,
        two("transformer.blocks.{}.ffn"),
        ("up_proj.weight", None, "down_proj.weight", "gelu"),
    ),
    ("MistralForCausalLM", LLAMA, TEXT, LAYERS, SWIGLU),
    ("Qwen3ForCausalLM", HEADS, TEXT, LAYERS, SWIGLU),
    (
        "Qwen3MoeForCausalLM",
        HEADS | EXPERTS | {"num_experts": 4, "moe_intermediate_size": 8},
        TEXT,
        two("model.layers.{}.mlp.experts"),
        FUSED_EXPERTS,
    ),
    ("Gemma3ForCausalLM", HEADS, TEXT, LAYERS, GEGLU),
    ("Gemma3nForCausalLM", GEMMA3N | {"activation_sparsity_pattern": [0.0, 0.0]}, TEXT, LAYERS, GEGLU),
    (
        "Gemma3nForCausalLM",
        GEMMA3N | {"activation_sparsity_pattern": [0.95, 0.95]},
        TEXT,
        LAYERS,
        (*GEGLU[:3], "relu+gelu"),
    ),
    ("PhiForCausalLM", BERT, TEXT, LAYERS, PLAIN),
    (
        "GptOssForCausalLM",
        HEADS | {"num_local_experts": 4},
        TEXT,
        two("model.layers.{}.mlp.experts"),
        (*FUSED_EXPERTS[:3], "clamp+sigmoid"),
    ),
    ("DeiTForImageClassification", VIT, IMAGE, two("deit.layers.{}.mlp"), PLAIN),
    ("Dinov2ForImageClassification", VIT | {"mlp_ratio": 2}, IMAGE, two("dinov2.encoder.layer.{}.mlp"), PLAIN),
    (
        "CLIPModel",
        CLIP,
        TEXT | IMAGE,
        [f"{kind}_model.encoder.layers.{i}.mlp" for kind in ("vision", "text") for i in (0, 1)],
        (*PLAIN[:3], "sigmoid+mul"),
    ),
    (
        "SiglipModel",
        SIGLIP_TEXT,
        TEXT | IMAGE,
        [
            *two("vision_model.encoder.layers.{}.mlp"),
            "vision_model.head.mlp",
            *two("text_model.encoder.layers.{}.mlp"),
        ],
        PLAIN,
    ),
    (
        "SwinForImageClassification",
        SWIN,
        {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)},
        two("swin.encoder.layers.{}.blocks.0.mlp"),
        PLAIN,
    ),
    ("Wav2Vec2ForCTC", WAVE_SIZES, WAVE, two("wav2vec2.encoder.layers.{}.feed_forward"), WAVE_LIKE),
    (
        "Wav2Vec2ConformerForCTC",
        WAVE_SIZES,
        WAVE,
        [f"wav2vec2_conformer.encoder.layers.{i}.ffn{j}" for i in (0, 1) for j in (1, 2)],
        WAVE_LIKE,
    ),
    (
        "ConvNextForImageClassification",
        CONVNEXT,
        {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)},
        [f"convnext.encoder.stages.{i}.layers.0" for i in range(4)],
        ("pwconv1.weight", None, "pwconv2.weight", "gelu"),
    ),
]


def build(name: str, configuration: dict[str, Any]) -> torch.nn.Module:
    kind = getattr(hf, name)
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        return kind(kind.config_class(**configuration))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "configuration", "inputs", "mlps", "weights"), FAMILIES, ids=[f"{f[0]}-{f[4][3]}" for f in FAMILIES]
)
def test_a_family_has_these_sites(name, configuration, inputs, mlps, weights):
    sites = find_sites(build(name, configuration), inputs)
    assert [site.name for site in sites] == mlps
    for site in sites:
        inside = [w and w.removeprefix(f"{site.name}.") for w in (site.up, site.gate, site.down)]
        assert (*inside, site.activation) == weights


@pytest.mark.filterwarnings("ignore")
def test_routed_and_shared_experts_are_apart():
    sites = find_sites(build("DeepseekV3ForCausalLM", DEEPSEEK), TEXT)
    assert [(site.name.removeprefix("model.layers."), site.d_ff) for site in sites] == [
        ("0.mlp", 32),
        ("1.mlp.experts", 8),
        ("1.mlp.shared_experts", 8),
    ]


@pytest.mark.filterwarnings("ignore")
def test_an_expert_that_got_no_token_is_a_site_too():
    experts = {"num_experts": 6, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    one_token = {"input_ids": IDS[:1, :1], "labels": IDS[:1, :1]}
    sites = find_sites(build("SwitchTransformersForConditionalGeneration", T5 | experts), one_token)
    names = [site.name for site in sites]
    assert sorted(name for name in names if "expert" in name) == [
        f"{stack}.block.1.layer.{layer}.mlp.experts.expert_{i}"
        for stack, layer in (("decoder", 2), ("encoder", 1))
        for i in range(6)
    ]
    assert len(names) == len(set(names)) == 14
