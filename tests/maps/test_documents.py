"""Packed documents are sequences of their own."""

import pytest
import torch

from lazyneuron.measure.probe import watch
from tests.maps.decoding import Embedded, assert_same

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
