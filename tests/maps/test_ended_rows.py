"""In `generate` and in loops by hand, what a row is fed after its end does not count."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from lazyneuron.measure.probe import watch
from tests.maps.decoding import MASK, PROMPTS, STATISTICS, assert_same, decode, free_running, llama, one_pass, processed
from tests.maps.models import build_t5


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("pad", [0, "eos"])
def test_generate_counts_the_finished_sequences(use_cache, pad):
    """Row 0 ends after three new tokens, row 2 after five: the end token counts, what follows does not."""
    model = llama()
    rows = free_running(model)
    eos = [int(rows[0, 7]), int(rows[2, 9])]
    ends = [next((i + 1 for i in range(5, 14) if row[i] in eos), 99) for row in rows.tolist()]
    assert sorted(ends)[0] <= 8
    assert sorted(ends)[1] < 14
    options = {"eos_token_id": eos, "pad_token_id": eos[0] if pad == "eos" else pad, "use_cache": use_cache}
    with watch(model, statistics=STATISTICS) as probe:
        out = model.generate(PROMPTS, attention_mask=MASK, max_new_tokens=9, **options)
    assert out.shape[1] > min(ends) + 1
    if use_cache:
        assert_same(probe.state(), one_pass(model, processed(out, ends)))
        return
    steps = [processed(out[:, :length], ends) for length in range(6, out.shape[1] + 1)]
    steps = [[row[: end - int((mask == 0).sum())] for row, mask, end in zip(s, MASK, ends, strict=True)] for s in steps]
    assert_same(probe.state(), one_pass(model, [row for step in steps for row in step]))


@pytest.mark.parametrize(
    "options", [{"cache_implementation": "static", "disable_compile": True}, {"prefill_chunk_size": 2}]
)
def test_a_static_cache_and_a_prompt_in_chunks_change_nothing(options):
    """The masks of a static cache have four dimensions; a chunk of two tokens holds padding alone in row 0."""
    model = llama()
    eos = int(free_running(model)[0, 7])
    rows = free_running(model).tolist()
    ends = [next((i + 1 for i in range(5, 14) if row[i] == eos), 99) for row in rows]
    cache = {} if "cache_implementation" in options else {"past_key_values": hf.DynamicCache()}
    statistics = STATISTICS if "cache_implementation" in options else ("active", "position", "overlap")
    with watch(model, statistics=statistics) as probe:
        out = model.generate(PROMPTS, attention_mask=MASK, max_new_tokens=9, eos_token_id=eos, **options, **cache)
    assert out.shape[1] > min(ends) + 1
    assert_same(probe.state(), one_pass(model, processed(out, ends), statistics))


class _EndsAt(hf.StoppingCriteria):
    """Ends row 1 at its second new token, whatever that is."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.tensor([input_ids.shape[1] >= 12, input_ids.shape[1] >= 7, input_ids.shape[1] >= 14])


def test_a_row_that_anything_else_stopped_is_over_too():
    """Stop strings and criteria of the user leave no end token behind."""
    model = llama()
    with watch(model, statistics=STATISTICS) as probe:
        out = model.generate(
            PROMPTS,
            attention_mask=MASK,
            max_new_tokens=9,
            eos_token_id=None,
            pad_token_id=3,
            stopping_criteria=[_EndsAt()],
        )
    assert_same(probe.state(), one_pass(model, processed(out, [12, 7, 14])))


def test_every_sample_is_a_sequence():
    model = llama()
    with watch(model, statistics=STATISTICS) as probe:
        out = free_running(model, do_sample=True, num_return_sequences=2)
    sequences = [row[int((PROMPTS[i // 2] == 0).sum()) : -1] for i, row in enumerate(out)]
    assert_same(probe.state(), one_pass(model, sequences))


def test_the_decoder_of_a_pair_of_stacks():
    """T5's decoder rows end early; its encoder is read once."""
    model, mask = build_t5(), torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    ids = torch.tensor([[5, 6, 7, 8, 1], [9, 10, 1, 0, 0]])
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": True}
    torch.manual_seed(1)
    rows = model.generate(ids, eos_token_id=None, **options)
    eos = int(rows[0, 3])
    ends = [next((i + 1 for i in range(1, 9) if row[i] == eos), 99) for row in rows.tolist()]
    assert ends[0] < ends[1]
    torch.manual_seed(1)
    with watch(model, statistics=STATISTICS) as probe:
        out = model.generate(ids, eos_token_id=eos, **options)
    assert out.shape[1] > ends[0] + 1
    with watch(model, statistics=STATISTICS) as alone, torch.no_grad():
        for row, real, target, end in zip(ids, mask, out, ends, strict=True):
            decoder = target[: min(end, len(target) - 1)]
            model(input_ids=row[None, real > 0], decoder_input_ids=decoder[None], use_cache=False)
    assert_same(probe.state(), alone.state())


def test_a_loop_by_hand_feeds_pads_or_end_tokens_after_the_end():
    """Its mask is of ones: row 0 is filled by pads, row 1 by end tokens, row 2 goes on after pads."""
    model, new = llama(), torch.tensor([[5, 2, 0, 0, 0], [9, 8, 2, 2, 2], [2, 0, 0, 6, 2]])
    rows, mask = torch.cat([PROMPTS, new], 1), torch.cat([MASK, torch.ones_like(new)], 1)
    real = torch.cat([MASK, torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 1]])], 1)
    for cuts in ([5, 6, 7, 8, 9], [5, 7], [3, 5, 8]):
        with watch(model, statistics=("active", "position", "halves")) as probe:
            decode(model, rows, mask, cuts)
        assert set(probe.num_tokens.values()) == {int(real.sum())}
        tokens = probe.state()["model.layers.0.mlp/position"][:, 1]
        assert tokens[:11].tolist() == [sum(n > i for n in real.sum(1).tolist()) for i in range(11)]
        assert probe.state()["model.layers.0.mlp/halves"][-1] == 3


def test_an_end_token_at_the_start_ends_nothing():
    """Some decoders begin with their end token, and pads are real where no row is over."""
    model, rows = llama(), torch.tensor([[2, 2, 0], [2, 0, 5]])
    with watch(model) as probe:
        decode(model, rows, torch.ones_like(rows), [1, 2])
    assert set(probe.num_tokens.values()) == {5}  # the last pad of row 0
    with watch(model) as probe, torch.no_grad():
        model(torch.tensor([[5, 2, 0, 6], [5, 6, 2, 2]]))
    assert set(probe.num_tokens.values()) == {8}  # nothing is after an end in a call that continues no cache


def test_a_row_that_ended_goes_on_in_the_next_turn():
    """`generate` is called again with the cache of an earlier call, in which row 0 ended early."""
    model = llama()
    rows = free_running(model)
    eos = int(rows[0, 7])
    ends = [next((i + 1 for i in range(5, 14) if row[i] == eos), 99) for row in rows.tolist()]
    assert ends[0] == 8
    assert ends[1] > 11
    cache = hf.DynamicCache(config=model.config)
    options = {"pad_token_id": 0, "past_key_values": cache}
    turns = torch.tensor([[20, 21], [22, 23], [24, 25]])
    with watch(model, statistics=STATISTICS) as probe:
        first = model.generate(PROMPTS, attention_mask=MASK, max_new_tokens=6, eos_token_id=eos, **options)
        is_real = torch.arange(5, first.shape[1]) < torch.tensor(ends)[:, None]
        mask = torch.cat([MASK, is_real.long(), torch.ones(3, 2, dtype=torch.long)], 1)
        ids = torch.cat([first, turns], 1)
        both = model.generate(ids, attention_mask=mask, max_new_tokens=3, eos_token_id=None, **options)
    last = torch.ones(3, 2, dtype=torch.bool)
    sequences = [row[real] for row, real in zip(both[:, :-1], torch.cat([mask > 0, last], 1), strict=True)]
    assert [len(row) for row in sequences] == [3 + 3 + 2 + 2, 5 + 6 + 2 + 2, 4 + 6 + 2 + 2]
    wanted = one_pass(model, sequences)
    assert_same(probe.state(), wanted)
