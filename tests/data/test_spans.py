"""Span corruption against cases made by hand, and rebuilt text for random ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyneuron.data import spans

SENTINELS = np.array([99, 98, 97])
END = 1


def rebuild(inputs: np.ndarray, targets: np.ndarray, sentinels: np.ndarray) -> list[int]:
    """The text from both halves: each sentinel of the input gives way to its span of the target."""
    assert inputs[-1] == targets[-1] == END
    found: dict[int, list[int]] = {}
    span: list[int] = []
    for token in targets[:-1].tolist():
        if token in sentinels:
            span = found.setdefault(token, [])
        else:
            span.append(token)
    text = []
    for token in inputs[:-1].tolist():
        text += found.pop(token) if token in sentinels else [token]
    assert not found
    return text


@pytest.mark.parametrize(
    ("mask", "inputs", "targets"),
    [
        ("..xx...x", [10, 11, 99, 14, 15, 16, 98, 1], [99, 12, 13, 98, 17, 1]),
        ("x.......", [99, 11, 12, 13, 14, 15, 16, 17, 1], [99, 10, 1]),
        ("xxxxxxxx", [99, 1], [99, 10, 11, 12, 13, 14, 15, 16, 17, 1]),
        (".x.x.x..", [10, 99, 12, 98, 14, 97, 16, 17, 1], [99, 11, 98, 13, 97, 15, 1]),
        ("........", [10, 11, 12, 13, 14, 15, 16, 17, 1], [1]),
    ],
)
def test_corrupt_gives_the_hand_made_case(mask, inputs, targets):
    noise = np.array([c == "x" for c in mask])
    found = spans.corrupt(np.arange(10, 18), noise, SENTINELS, END)
    assert [part.tolist() for part in found] == [inputs, targets]


def test_corrupt_refuses_more_spans_than_sentinels():
    with pytest.raises(ValueError, match="4 noise spans need as many sentinels; got 3"):
        spans.corrupt(np.arange(8), np.arange(8) % 2 == 1, SENTINELS, END)


def test_the_lengths_are_those_of_t5():
    assert spans.raw_length(512) == 568
    assert spans.corrupted_lengths(568) == (512, 114)
    assert spans.noise_counts(568) == (85, 28)


@given(length=st.integers(2, 700), seed=st.integers(0, 2**32 - 1))
def test_nothing_is_lost_and_both_halves_rebuild_the_text(length, seed):
    rng = np.random.default_rng(seed)
    tokens, sentinels = rng.integers(3, 200, length), np.arange(399, 299, -1)
    mask = spans.noise_mask(length, rng)
    num_noise, num_spans = spans.noise_counts(length)
    assert mask.sum() == num_noise
    assert not mask[0]
    assert np.diff(mask.astype(int), prepend=0).clip(0).sum() == num_spans
    inputs, targets = spans.corrupt(tokens, mask, sentinels, END)
    assert (len(inputs), len(targets)) == spans.corrupted_lengths(length)
    assert rebuild(inputs, targets, sentinels) == tokens.tolist()


@given(st.integers(4, 1024))
def test_raw_length_is_the_most_that_fits(input_length):
    length = spans.raw_length(input_length)
    assert spans.corrupted_lengths(length)[0] <= input_length < spans.corrupted_lengths(length + 1)[0]


def test_noise_is_spread_evenly_and_spans_have_the_mean_length():
    rng = np.random.default_rng(0)
    masks = np.stack([spans.noise_mask(568, rng) for _ in range(2000)])
    share = masks[:, 20:-20].mean(0)
    assert abs(masks.mean() - spans.NOISE_DENSITY) < 0.001
    assert share.min() > 0.10
    assert share.max() < 0.20


@pytest.mark.parametrize("length", [0, 1])
def test_too_short_a_text_is_an_error(length):
    with pytest.raises(ValueError, match=f"at least 2 tokens; got {length}"):
        spans.noise_counts(length)


def test_too_short_an_input_is_an_error():
    with pytest.raises(ValueError, match="input_length=3"):
        spans.raw_length(3)
