"""What goes over from one call to the next, by hand: neighbouring tokens in two calls, and the numbers of sequences."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from lazyneuron.maps.tokens import Tokens
from lazyneuron.measure.following import across_calls, sequence_numbers

NAN = math.nan


def rows(*of_rows: list[list[float]]) -> Tensor:
    return torch.tensor(of_rows)


def test_neighbours_in_two_calls_are_counted() -> None:
    """NaN and 0 of either sign are not active; a row that is not continued adds nothing."""
    first = Tokens(kept={})
    before = rows([[9, 9, 9, 9], [1, 1, 0, 0]], [[9, 9, 9, 9], [0, NAN, -2, 3]], [[9, 9, 9, 9], [1, 1, 1, 1]])
    assert across_calls("mlp", before, first) is None
    second = Tokens(is_continued_B=torch.tensor([True, True, False]), past=first.kept or {}, kept={})
    after = rows([[1, 0, 2, NAN], [9, 9, 9, 9]], [[-0.0, NAN, -1, 0], [9, 9, 9, 9]], [[1, 1, 1, 1], [9, 9, 9, 9]])
    found = across_calls("mlp", after, second)
    assert found is not None
    assert found.tolist() == [1 + 1, 3 + 2]
    assert across_calls("other", after, second) is None  # a site that the earlier call did not reach


def test_padding_on_either_side_is_no_neighbour() -> None:
    real = torch.tensor([[True, True, False], [False, True, True]])
    first = Tokens(real, kept={})
    across_calls("mlp", rows([[9, 9, 9], [0, 1, 1], [9, 9, 9]], [[9, 9, 9], [9, 9, 9], [1, 0, 0]]), first)
    second = Tokens(~real, is_continued_B=torch.tensor([True, True]), past=first.kept or {}, kept={})
    found = across_calls("mlp", rows([[9, 9, 9], [9, 9, 9], [1, 0, 1]], [[0, 0, 1], [9, 9, 9], [9, 9, 9]]), second)
    assert found is not None
    assert found.tolist() == [1 + 0, 3 + 2]


def test_where_no_call_can_follow_nothing_is_kept() -> None:
    assert across_calls("mlp", rows([[1, 1]]), Tokens(past={"mlp/active": torch.tensor([[True, True]])})) is None


def neighbours(calls: list[tuple[Tensor, Tensor]]) -> list[int]:
    """Pairs of a row's last real token in one call and its first in a later one: active at both, and at either."""
    both = either = 0
    last: dict[int, set[int]] = {}
    for h_BSF, real_BS in calls:
        for b, (row, real) in enumerate(zip(h_BSF.tolist(), real_BS.tolist(), strict=True)):
            active = [
                {f for f, v in enumerate(h) if v and v == v} for h, is_real in zip(row, real, strict=True) if is_real
            ]
            if active and b in last:
                both, either = both + len(active[0] & last[b]), either + len(active[0] | last[b])
            if active:
                last[b] = active[-1]
    return [both, either]


@pytest.mark.parametrize("cuts", [*itertools.combinations(range(1, 7), 3)])
@pytest.mark.parametrize("has_padding", [False, True])
def test_over_many_calls(cuts: tuple[int, ...], has_padding: bool) -> None:
    """Calls of one to four tokens, some rows without a real one: a row goes on where it was last real."""
    draw = torch.Generator().manual_seed(0)
    h_BSF = torch.randn(5, 7, 6, generator=draw).relu()
    h_BSF[torch.rand(h_BSF.shape, generator=draw) < 0.1] = NAN
    real_BS = torch.rand(5, 7, generator=draw) < (0.5 if has_padding else 2)
    sizes = [stop - start for start, stop in itertools.pairwise((0, *cuts, 7))]
    calls = list(zip(h_BSF.split(sizes, 1), real_BS.split(sizes, 1), strict=True))
    total, past, was_real_B = torch.zeros(2, dtype=torch.int64), {}, torch.zeros(5, dtype=torch.bool)
    for number, (h, real) in enumerate(calls):
        is_continued_B = was_real_B & real.any(1) if number else None
        tokens = Tokens(real if has_padding else None, is_continued_B=is_continued_B, past=past, kept={})
        if (found := across_calls("mlp", h, tokens)) is not None:
            total += found
        past, was_real_B = tokens.kept or {}, was_real_B | real.any(1)
    assert total.tolist() == neighbours(calls)
    assert total[1] > total[0] > 0


def test_sequences_are_numbered_as_they_begin() -> None:
    """Five began before; a row that goes on keeps its number, and a document inside a row begins another sequence."""
    first = Tokens(kept={})
    number_BS, num_began = sequence_numbers("mlp", torch.Size([2, 3]), first, torch.tensor(5))
    assert (number_BS.tolist(), int(num_began)) == ([[5] * 3, [6] * 3], 2)
    real = torch.tensor([[True, True], [False, True]])
    second = Tokens(real, is_continued_B=torch.tensor([True, False]), past=first.kept or {}, kept={})
    number_BS, num_began = sequence_numbers("mlp", real.shape, second, torch.tensor(7))
    assert (number_BS[real].tolist(), int(num_began)) == ([5, 5, 7], 1)
    position_BS = torch.tensor([[2, 0, 1], [1, 2, 0]])
    third = Tokens(position_BS=position_BS, is_continued_B=torch.tensor([True, True]), past=second.kept or {}, kept={})
    number_BS, num_began = sequence_numbers("mlp", position_BS.shape, third, torch.tensor(8))
    assert (number_BS.tolist(), int(num_began)) == ([[5, 8, 8], [7, 7, 9]], 2)
