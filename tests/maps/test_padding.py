"""Padding does not count, wherever a model keeps its masks."""

import pytest
import torch
import transformers as hf

from lazyneuron.measure.probe import watch
from lazyneuron.sites import find_sites
from tests.maps.models import IDS, MLP, SMALL, build_t5, num_hooks, random


def test_padding_does_not_count_in_t5() -> None:
    """Each stack has its mask: a padded batch counts exactly as its sequences one by one."""
    model = build_t5()
    lengths, outputs = (6, 3), (2, 4)
    mask = torch.tensor([[i < n for i in range(6)] for n in lengths]).long()
    targets = torch.tensor([[i < n for i in range(4)] for n in outputs]).long()
    sites = find_sites(model, {"input_ids": IDS, "labels": IDS})
    with watch(model, sites) as padded:
        model(
            input_ids=IDS * mask,
            attention_mask=mask,
            decoder_input_ids=IDS[:, :4] * targets,
            decoder_attention_mask=targets,
        )
    with watch(model, sites) as single:
        for i, (n, m) in enumerate(zip(lengths, outputs, strict=True)):
            model(input_ids=IDS[i : i + 1, :n], decoder_input_ids=IDS[i : i + 1, :m])
    assert list(padded.num_tokens.values()) == [9, 9, 6, 6]
    for name, counts in single.state().items():
        assert torch.equal(padded.state()[name], counts)
    with watch(model, sites) as no_padding_in_labels:
        model(input_ids=IDS, attention_mask=mask, labels=IDS)
    assert list(no_padding_in_labels.num_tokens.values()) == [9, 9, 12, 12]
    with watch(model, sites) as generating:  # calls the encoder alone, then the model three times
        model.generate(input_ids=IDS, attention_mask=mask, max_new_tokens=3, min_new_tokens=3)
    assert list(generating.num_tokens.values()) == [9, 9, 6, 6]
    assert num_hooks(model) == 0


_BART = {"d_model": 16, "vocab_size": 60, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
_BART |= {f"{s}_{n}": i for s in ("encoder", "decoder") for n, i in (("layers", 1), ("attention_heads", 2))}
_BART |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
ENCODER_DECODERS = {
    "t5": build_t5,
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**_BART)).eval(),
    "marian": lambda: hf.MarianMTModel(hf.MarianConfig(**_BART)).eval(),
    "pegasus": lambda: hf.PegasusForConditionalGeneration(hf.PegasusConfig(**_BART)).eval(),
    "mbart": lambda: hf.MBartForConditionalGeneration(hf.MBartConfig(**_BART)).eval(),
}


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_labels_show_the_padding_of_the_decoder(name: str) -> None:
    """As the usual collators pad: labels of -100 and no decoder mask, with the shifted labels as inputs or without."""
    model, lengths, outputs = ENCODER_DECODERS[name](), (6, 3), (4, 2)
    mask = torch.tensor([[i < n for i in range(6)] for n in lengths]).long()
    labels = torch.tensor([[int(IDS[r, i]) if i < n else -100 for i in range(5)] for r, n in enumerate(outputs)])
    batch = {"input_ids": IDS, "attention_mask": mask, "labels": labels}
    inputs = model.prepare_decoder_input_ids_from_labels(labels)
    with watch(model) as single, torch.no_grad():
        for i, (n, m) in enumerate(zip(lengths, outputs, strict=True)):
            model(input_ids=IDS[i : i + 1, :n], decoder_input_ids=inputs[i : i + 1, :m])
    assert {int(counts[-2]) for name, counts in single.state().items() if "decoder" in name} == {4 + 2}
    for call in (batch, batch | {"decoder_input_ids": inputs}):
        with watch(model, single.sites) as padded, torch.no_grad():
            model(**call)
        for site, counts in single.state().items():
            assert torch.equal(padded.state()[site], counts)


def test_labels_of_speech() -> None:
    """Whisper's encoder has no padding; its decoder's is in the labels."""
    sizes = _BART | {"max_source_positions": 20, "max_target_positions": 32, "num_mel_bins": 8, "bos_token_id": 2}
    suppressed = {"suppress_tokens": [], "begin_suppress_tokens": []}
    model = hf.WhisperForConditionalGeneration(hf.WhisperConfig(**sizes, **suppressed)).eval()
    with watch(model) as probe:
        model(
            input_features=random(2, 8, 40), labels=IDS.masked_fill(torch.arange(6) >= torch.tensor([[4], [2]]), -100)
        )
    assert list(probe.num_tokens.values()) == [40, 6]


def test_a_decoder_that_gets_the_input_shifted() -> None:
    """BART without decoder inputs makes them from the encoder's, as many."""
    model = hf.BartModel(hf.BartConfig(**_BART)).eval()
    with watch(model) as probe:
        model(input_ids=IDS, attention_mask=torch.tensor([[1] * 6, [1] * 3 + [0] * 3]))
    assert list(probe.num_tokens.values()) == [9, 9]


def test_labels_of_a_decoder_alone_are_no_padding() -> None:
    """Fine-tuning on answers ignores the labels of the prompt, which is real."""
    sizes = {"intermediate_size": 32, "num_key_value_heads": 2}
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, **sizes)).eval()
    with watch(model) as probe:
        model(input_ids=IDS, labels=IDS.masked_fill(torch.arange(6) < 3, -100))
    assert set(probe.num_tokens.values()) == {12}


@pytest.mark.parametrize("side", ["right", "left"])
def test_masks_of_pairs_and_dictionaries(side: str) -> None:
    """Gemma 2 as transformers 5 calls it: full and sliding masks in a dictionary, or one mask with four axes."""
    config = hf.Gemma2Config(**SMALL, intermediate_size=32, num_key_value_heads=2, head_dim=8, sliding_window=3)
    model = hf.Gemma2ForCausalLM(config).eval()
    is_real = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    is_real = is_real if side == "right" else is_real.flip(1)
    full = torch.ones(6, 6).tril().bool() & is_real[:, None, None]
    sliding = full & ~torch.ones(6, 6).tril(-3).bool()
    with watch(model) as rows:
        model(input_ids=IDS, attention_mask=is_real.long())
    for mask in ({"full_attention": full, "sliding_attention": sliding}, {"sliding_attention": sliding}, full):
        if isinstance(mask, dict):
            mask = {"full_attention": full} | mask
        with watch(model) as probe:
            model(input_ids=IDS, attention_mask=mask)
        assert set(probe.num_tokens.values()) == {8}
        for name, counts in rows.state().items():
            assert torch.equal(probe.state()[name], counts) or mask is full  # full in sliding layers too


def test_padding_does_not_count_where_tokens_are_flat() -> None:
    """OPT flattens (B, T) in its MLP; its mask is read by position too, and its only stack is called decoder."""
    model = hf.OPTForCausalLM(hf.OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16)).eval()
    mask = torch.tensor([[1] * 6, [1] * 2 + [0] * 4])
    with watch(model) as padded:
        model(IDS, mask)
    with watch(model) as single:
        model(IDS[:1])
        model(IDS[1:, :2])
    assert list(padded.num_tokens.values()) == [8, 8]
    for name, counts in single.state().items():
        assert torch.equal(padded.state()[name], counts)


def test_the_mask_of_the_text_is_not_that_of_the_images() -> None:
    """CLIP's vision tower has as many tokens here as the padded text: all of them count, without a warning."""
    text = {**SMALL, "intermediate_size": 32, "max_position_embeddings": 6, "eos_token_id": 49}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    vision |= {"image_size": 10, "patch_size": 5, "num_channels": 1}
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    mask = torch.tensor([[1] * 5, [1] * 2 + [0] * 3])
    with watch(model) as probe:
        model(input_ids=IDS[:, :5], attention_mask=mask, pixel_values=random(2, 1, 10, 10))
    tokens = {site.name.split(".")[0]: probe.num_tokens[site.name] for site in probe.sites}
    assert tokens == {"vision_model": 10, "text_model": 7}


def test_cached_decoding_counts_each_processed_token_once() -> None:
    """With a cache the mask is longer than the new tokens; its end is theirs."""
    sizes = {"intermediate_size": 32, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, **sizes)).eval()
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    with watch(model) as probe, torch.no_grad():
        cache = model(IDS[:, :4], attention_mask=mask[:, :4], use_cache=True).past_key_values
        model(IDS[:, 4:], attention_mask=mask, past_key_values=cache)
    assert set(probe.num_tokens.values()) == {10}
    with watch(model) as stateful, torch.no_grad():
        length = cache.get_seq_length()
        model(IDS[:, :1], past_key_values=cache)
    assert cache.get_seq_length() == length + 1  # finding the sites ran on a copy of the cache
    assert set(stateful.num_tokens.values()) == {2}


def test_a_mask_that_does_not_fit_warns_once() -> None:
    """Tokens that the mask cannot be laid over are all counted, and the site is named."""
    model, mask = MLP(), torch.tensor([[1.0, 1, 1, 0]] * 2)
    with watch(model, find_sites(model, random(2, 8))) as probe:
        with pytest.warns(UserWarning, match="site '': attention_mask of shape"):
            model(random(2, 5, 8), attention_mask=mask)
        model(random(2, 5, 8), attention_mask=mask)
    assert probe.num_tokens == {"": 20}
    with watch(model, probe.sites):
        model(random(2, 5, 8), attention_mask=torch.ones(2, 4))  # leaves nothing out


def test_generate_alone_finds_the_sites_of_both_stacks() -> None:
    """`generate` runs the encoder before the first call of the model; its tokens count all the same."""
    model, mask = build_t5(), torch.tensor([[1] * 6, [1] * 3 + [0] * 3])
    options = {"input_ids": IDS, "attention_mask": mask, "max_new_tokens": 3, "min_new_tokens": 3}
    sites = find_sites(model, {"input_ids": IDS, "labels": IDS})
    with watch(model, sites) as given:
        expected = model.generate(**options)
    with watch(model) as probe:
        assert torch.equal(model.generate(**options), expected)
    assert probe.sites == sites
    assert all(torch.equal(counts, given.state()[name]) for name, counts in probe.state().items())
    with watch(model, "decoder") as decoder:
        model.generate(**options)
    assert list(decoder.num_tokens.values()) == [6, 6]


def test_beam_search_counts_every_beam() -> None:
    """Each processed token of each beam is a token."""
    model = build_t5()
    with watch(model, "decoder.*1") as probe:
        model.generate(input_ids=IDS, num_beams=3, max_new_tokens=4, min_new_tokens=4)
    assert set(probe.num_tokens.values()) == {2 * 3 * 4}


@pytest.mark.parametrize("mask_of", ["attention_mask", "input_mask"])
@pytest.mark.parametrize("size", [2, 6])
def test_sequence_first_inside(size: int, mask_of: str) -> None:
    """XLNet's maps are [S, B]: also where B = S, a mask is laid over the tokens that it is about."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}
    model = hf.XLNetModel(hf.XLNetConfig(**sizes, ff_activation="relu")).double().eval()
    ids = torch.cat([IDS, IDS + 1, IDS + 2])[:size]
    lengths = torch.tensor([6, 2, 3, 5, 1, 4])[:size]
    mask = torch.arange(6) < lengths[:, None]
    mask = mask.long() if mask_of == "attention_mask" else (~mask).float()
    with watch(model, statistics=["position", "overlap"]) as padded, torch.no_grad():
        model(ids, **{mask_of: mask})
    with watch(model, statistics=["position", "overlap"]) as single, torch.no_grad():
        for row, n in zip(ids, lengths, strict=True):
            model(row[None, :n])
    for name, counts in single.state().items():
        assert torch.equal(padded.state()[name], counts)
