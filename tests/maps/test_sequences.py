"""With a cache and left padded, a model's counts are those of one pass over each sequence."""

import pytest
import torch
import transformers as hf

from lazyneuron.measure.probe import watch
from tests.maps.decoding import MASK, PROMPTS, SIZES, STATISTICS, assert_same, decode, llama, one_pass, processed
from tests.maps.models import SMALL, build_t5


@pytest.mark.parametrize("cuts", [[5], [1], [2, 5, 7], [5, 6, 7, 8]])
@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("is_static", [True, False])
def test_chunks_with_a_cache_are_one_pass(cuts, has_mask, is_static):
    """Also where a chunk of a row is padding alone."""
    model = llama()
    rows = torch.cat([PROMPTS, torch.randint(3, 50, (3, 4), generator=torch.Generator().manual_seed(0))], 1)
    mask = torch.cat([MASK, torch.ones(3, 4, dtype=torch.long)], 1)
    rows, mask = (rows, mask) if has_mask else (rows.clamp(3), torch.ones_like(mask))
    statistics = STATISTICS if cuts[0] > 2 or not has_mask else STATISTICS[:3]  # else row 1 begins before row 0
    cache = hf.StaticCache(model.config, max_cache_len=12) if is_static else None
    with watch(model, statistics=statistics) as probe:
        decode(model, rows, mask, cuts, cache=cache)
    wanted = one_pass(model, [row[real > 0] for row, real in zip(rows, mask, strict=True)], statistics)
    assert_same(probe.state(), wanted)


def test_left_padding_moves_no_position():
    model = llama()
    with watch(model, statistics=STATISTICS) as probe, torch.no_grad():
        model(PROMPTS, attention_mask=MASK, position_ids=(MASK.cumsum(1) - 1).clamp(0))
    assert_same(probe.state(), one_pass(model, processed(torch.cat([PROMPTS, PROMPTS[:, :1]], 1), [99] * 3)))


def test_a_sliding_window_forgets_keys_and_not_positions():
    torch.manual_seed(0)
    sizes = {**SMALL, **SIZES, "max_position_embeddings": 64}
    model = hf.MistralForCausalLM(hf.MistralConfig(**sizes, sliding_window=4)).eval()
    with watch(model, statistics=STATISTICS) as probe:
        out = model.generate(PROMPTS, attention_mask=MASK, max_new_tokens=9, eos_token_id=None, pad_token_id=0)
    assert_same(probe.state(), one_pass(model, processed(out, [99] * 3)))


def test_beams_keep_their_positions_and_their_pairs_across_steps_are_left_out():
    """Rows change places between steps: what cannot be followed is not counted."""
    model = llama()
    with watch(model, statistics=["position", "overlap"]) as probe:
        model.generate(PROMPTS, attention_mask=MASK, num_beams=2, max_new_tokens=4, min_new_tokens=4, eos_token_id=2)
    with watch(model, statistics=["position", "overlap"]) as prompts, torch.no_grad():
        model(PROMPTS.repeat_interleave(2, 0), attention_mask=MASK.repeat_interleave(2, 0), use_cache=False)
    tokens = probe.state()["model.layers.0.mlp/position"][:9, 1].tolist()
    assert tokens == [6, 6, 6, 4 + 2, 2 + 2 + 2, 6, 4, 2, 0]
    assert torch.equal(probe.state()["model.layers.1.mlp/overlap"], prompts.state()["model.layers.1.mlp/overlap"])


def test_speculation_is_placed_after_what_was_accepted():
    """Rejected guesses were processed and count, at the positions where they stood."""
    model = llama()
    ids = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    with watch(model, statistics=["position"]) as probe:
        out = model.generate(ids, prompt_lookup_num_tokens=3, max_new_tokens=8, eos_token_id=None, pad_token_id=0)
    tokens = probe.state()["model.layers.0.mlp/position"][:, 1]
    assert (tokens[: out.shape[1] - 1] >= 1).all()
    assert tokens[:8].tolist() == [1] * 8
    assert tokens.sum() == probe.num_tokens["model.layers.0.mlp"] > out.shape[1]


def test_an_encoder_that_runs_again_at_each_call_begins_anew():
    """Its tokens go on in no later call, also where the decoder is fed as many."""
    model = build_t5()
    source, target = (torch.randint(3, 50, (2, n), generator=torch.Generator().manual_seed(n)) for n in (3, 6))
    with watch(model, statistics=["position", "overlap"]) as probe, torch.no_grad():
        cache = None
        for ids in target.split(3, 1):
            cache = model(input_ids=source, decoder_input_ids=ids, past_key_values=cache).past_key_values
    with watch(model, statistics=["position", "overlap"]) as whole, torch.no_grad():
        model(input_ids=source, decoder_input_ids=target)
    twice = {name: counts * (1 + name.startswith("encoder")) for name, counts in whole.state().items()}
    assert_same(probe.state(), twice)
