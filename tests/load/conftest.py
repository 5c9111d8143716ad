"""Tiny models of many families with a tokenizer of bytes, written to disk as save_pretrained writes them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

SPECIAL = ["<pad>", "<s>", "</s>", "[CLS]", "[SEP]", "<unk>"]
VOCABULARY = 320
SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = SHAPE | {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0}
WIDTHS = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
PAIR = WIDTHS | {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
T5 = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
VIT = SHAPE | {"image_size": 8, "patch_size": 4}
CLIP = {"text_config": TEXT | {"eos_token_id": 2}, "vision_config": VIT, "projection_dim": 8}
WAVE = SHAPE | {"conv_dim": [8], "conv_stride": [2], "conv_kernel": [2], "num_feat_extract_layers": 1}
WAVE |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 32}

# class, configuration, what a text is put between
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[str, str]]] = {
    "llama": ("LlamaForCausalLM", TEXT, ("<s>", "")),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64} | TEXT, ("", "")),
    "opt": (
        "OPTForCausalLM",
        TEXT | {"ffn_dim": 32, "word_embed_proj_dim": 16, "pad_token_id": 1},
        ("</s>", ""),
    ),
    "bert": ("BertForMaskedLM", TEXT, ("[CLS]", "[SEP]")),
    "roberta": ("RobertaForMaskedLM", TEXT | {"pad_token_id": 1}, ("<s>", "</s>")),
    "t5": ("T5ForConditionalGeneration", T5 | {"vocab_size": VOCABULARY, "eos_token_id": 2}, ("", "</s>")),
    "bart": (
        "BartForConditionalGeneration",
        PAIR | {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 2},
        ("<s>", "</s>"),
    ),
    "vit": ("ViTForImageClassification", VIT | {"num_labels": 3}, ("", "")),
    "clip": ("CLIPModel", CLIP, ("<s>", "</s>")),
    "whisper": ("WhisperForConditionalGeneration", PAIR | {"vocab_size": 60000, "num_mel_bins": 4}, ("", "")),
    "wav2vec2": ("Wav2Vec2ForCTC", WAVE, ("", "")),
}


def byte_tokenizer(before: str = "", after: str = "", num_sentinels: int = 0) -> Any:
    """One token per byte, after SPECIAL; a text stands between two special tokens; sentinels come last."""
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    frame = " ".join(filter(None, [before, "$A", after]))
    special = [(token, vocabulary[token]) for token in (before, after) if token]
    made.post_processor = processors.TemplateProcessing(single=frame, special_tokens=special)
    sentinels = [f"<extra_id_{i}>" for i in range(num_sentinels)]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=sentinels,
    )


def build(family: str) -> Any:
    """A randomly initialised model of that family, the same each time."""
    import transformers

    name, configuration, _ = FAMILIES[family]
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    return model_class(model_class.config_class(**configuration)).eval()


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`saved(family)` is a folder with that model, its tokenizer and image processor; do not write to it."""
    from transformers.utils import logging

    folders: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family in folders:
            return folders[family]
        folder = folders[family] = tmp_path_factory.mktemp(family) / "model"
        logging.disable_progress_bar()
        build(family).save_pretrained(folder)
        logging.enable_progress_bar()
        if FAMILIES[family][1].get("vocab_size") == VOCABULARY or family == "clip":
            byte_tokenizer(*FAMILIES[family][2], num_sentinels=30 * (family == "t5")).save_pretrained(folder)
        if family in ("vit", "clip"):
            from transformers import ViTImageProcessorPil

            size = {"height": 8, "width": 8}
            mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
            ViTImageProcessorPil(size=size, image_mean=mean, image_std=std).save_pretrained(folder)
        return folder

    return save
