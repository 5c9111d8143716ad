"""Packed documents are sequences of their own."""

import pytest
import torch
import transformers as hf

from lazyneuron.measure.probe import watch
from tests.maps.decoding import Embedded, assert_same
from tests.maps.models import SMALL

PACKED = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13]])
DOCUMENTS = [PACKED[0, :4], PACKED[0, 4:5], PACKED[0, 5:]]
PLACES = torch.tensor([[0, 1, 2, 3, 0, 0, 1, 2, 3]])


@pytest.mark.parametrize(
    "given",
    [
        {"position_ids": PLACES},
        {"position_ids": PLACES, "cu_seq_lens_q": torch.tensor([0, 4, 5, 9], dtype=torch.int32)},
        {"position_ids": PLACES, "cu_seqlens": torch.tensor([0, 4, 5, 9])},
    ],
)
def test_packed_documents_are_sequences_of_their_own(given):
    """Their maps in the packed row stand for themselves: attention over the whole row does not matter to the count."""
    model = Embedded()
    with watch(model, statistics="all") as probe:
        model(PACKED, **given)
    with watch(model, statistics="all") as alone:
        for ids in DOCUMENTS:
            model(ids[None])
    assert_same(probe.state(), alone.state())


def test_lengths_alone_pack_a_flat_batch():
    model = Embedded()
    with watch(model, statistics="all") as probe:
        model(PACKED[0], cu_seqlens=torch.tensor([0, 4, 5, 9]))
    with watch(model, statistics="all") as alone:
        for ids in DOCUMENTS:
            model(ids[None])
    assert_same(probe.state(), alone.state())


def test_positions_on_three_axes_are_not_documents():
    """An image in the text (Qwen-VL): its patches repeat a place on each axis, and never the first on all."""
    model, ids = Embedded(), torch.arange(5, 14)[None]
    axes = torch.tensor([[0, 1, 2, 2, 2, 2, 4, 5, 6], [0, 1, 2, 2, 3, 3, 4, 5, 6], [0, 1, 2, 3, 2, 3, 4, 5, 6]])[
        :, None
    ]
    with watch(model, statistics="all") as probe:
        model(ids, position_ids=axes)
    with watch(model, statistics="all") as plain:
        model(ids)
    assert_same(probe.state(), plain.state())
    both, restarted = ids.repeat(1, 2), torch.cat([axes, axes], -1)
    with watch(model, statistics="all") as probe:
        model(both, position_ids=restarted)
    with watch(model, statistics="all") as alone:
        model(ids)
        model(ids)
    assert_same(probe.state(), alone.state())


@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_documents_that_a_paged_cache_continues_stand_after_what_it_holds(kind):
    """As in continuous batching: 4, 1 and 4 new tokens after 3, 0 and 7; lengths within a window say nothing."""
    model, places = Embedded(), torch.tensor([[3, 4, 5, 6, 0, 7, 8, 9, 10]])
    keys = torch.tensor([0, 7, 8, 19]) if kind == "full_attention" else torch.tensor([0, 4, 5, 9])
    with watch(model, statistics=["position", "overlap"]) as probe:
        model(PACKED, position_ids=places, cu_seq_lens_q=torch.tensor([0, 4, 5, 9]), cu_seq_lens_k={kind: keys})
    assert probe.state()["/position"][:12, 1].tolist() == [1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    with watch(model, statistics=["overlap"]) as alone:
        for ids in DOCUMENTS:
            model(ids[None])
    assert torch.equal(probe.state()["/overlap"], alone.state()["/overlap"])


def test_tokens_in_rows_of_another_shape_have_no_position():
    """OPT makes its tokens flat: without a mask nothing restores the rows, so no position is better than 0 for all."""
    torch.manual_seed(0)
    model = hf.OPTForCausalLM(hf.OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16)).eval()
    ids, mask = torch.randint(3, 50, (2, 6)), torch.ones(2, 6, dtype=torch.long)
    with watch(model, statistics=["position"]) as probe:
        model(ids)
    assert set(probe.num_tokens.values()) == {12}
    assert [len(places) for places in probe.density_by_position.values()] == [0, 0]
    with watch(model, statistics=["position"]) as probe:
        model(ids, mask)
    assert probe.state()[f"{probe.sites[0].name}/position"][:7, 1].tolist() == [2] * 6 + [0]


def test_tokens_on_both_sides_of_a_gap_are_no_neighbours():
    """Position ids that jump ahead: the tokens between them are not in the row."""
    model, ids = Embedded(), PACKED[:, :5]
    with watch(model, statistics=["position", "overlap"]) as probe:
        model(ids, position_ids=torch.tensor([[0, 1, 2, 7, 8]]))
    with watch(model, statistics=["overlap"]) as alone:
        model(ids[:, :3])
        model(ids[:, 3:])
    assert probe.state()["/position"][:6, 1].tolist() == [1, 1, 1, 1, 1, 0]
    assert torch.equal(probe.state()["/overlap"], alone.state()["/overlap"])
