"""T5's span corruption: noise spans are removed from the input and form the target (arXiv 1910.10683, 3.1.4)."""

from functools import cache

import numpy as np

NOISE_DENSITY = 0.15
MEAN_SPAN_LENGTH = 3.0


def noise_counts(length: int) -> tuple[int, int]:
    """Number of noise tokens and of spans among `length` tokens; fixed by the length, so that shapes are fixed."""
    if length < 2:
        raise ValueError(f"span corruption needs at least 2 tokens; got {length}")
    num_noise = min(max(round(length * NOISE_DENSITY), 1), length - 1)
    num_spans = min(max(round(num_noise / MEAN_SPAN_LENGTH), 1), length - num_noise)
    return num_noise, num_spans


def corrupted_lengths(length: int) -> tuple[int, int]:
    """Lengths of the input and target made from `length` tokens, with one sentinel per span and one end token each."""
    num_noise, num_spans = noise_counts(length)
    return length - num_noise + num_spans + 1, num_noise + num_spans + 1


@cache
def raw_length(input_length: int) -> int:
    """The most tokens whose corrupted input has at most `input_length` (512 gives 568, whose target has 114)."""
    if input_length < 4:
        raise ValueError(f"a corrupted input has at least 4 tokens; got input_length={input_length}")
    length = input_length
    while corrupted_lengths(length + 1)[0] <= input_length:
        length += 1
    while corrupted_lengths(length)[0] > input_length:
        length -= 1
    return length


def noise_mask(length: int, rng: np.random.Generator) -> np.ndarray:
    """Bool [length], True at noise. Kept and noise spans alternate, kept first, with uniformly random lengths."""
    return noise_masks(1, length, rng)[0]


def noise_masks(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """`count` masks [count, length] as `noise_mask` draws them."""
    num_noise, num_spans = noise_counts(length)
    parts = [_random_parts(count, total, num_spans, rng) for total in (length - num_noise, num_noise)]
    ends = np.stack(parts, axis=2).reshape(count, -1).cumsum(1)
    is_end = np.zeros((count, length + 1), dtype=np.int64)
    np.put_along_axis(is_end, ends, 1, axis=1)
    return is_end[:, :-1].cumsum(1) % 2 == 1


def _random_parts(count: int, total: int, num_parts: int, rng: np.random.Generator) -> np.ndarray:
    """`count` ways [count, num_parts] to split `total` into parts of 1 or more, all ways alike likely."""
    cuts = np.sort(rng.random((count, total - 1)).argsort(1)[:, : num_parts - 1], axis=1) + 1
    return np.diff(cuts, axis=1, prepend=0, append=total)


def corrupt(tokens: np.ndarray, mask: np.ndarray, sentinels: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Input and target of `tokens` [L] with the noise `mask` [L].

    The input is `tokens` with the j-th noise span replaced by `sentinels[j]`; the target is, for each span, its
    sentinel and its tokens. Both end with `end`. ValueError if there are more spans than sentinels.
    """
    inputs, targets = corrupt_rows(tokens[None], mask[None], sentinels, end)
    return inputs[0], targets[0]


def corrupt_rows(
    tokens: np.ndarray, masks: np.ndarray, sentinels: np.ndarray, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """`corrupt` for rows [N, L] whose masks have equally many noise tokens and spans."""
    starts = masks.copy()
    starts[:, 1:] &= ~masks[:, :-1]
    numbers = starts.cumsum(1)
    if (num_spans := int(numbers[:, -1].max())) > len(sentinels):
        raise ValueError(f"{num_spans} noise spans need as many sentinels; got {len(sentinels)}")
    marked = np.where(starts, sentinels[numbers - 1], tokens)
    pairs, is_target = np.stack([marked, tokens], axis=2), np.stack([starts, masks], axis=2)
    ends = np.full((len(tokens), 1), end, dtype=tokens.dtype)
    halves = marked[~masks | starts], pairs[is_target]
    inputs, targets = (np.concatenate([half.reshape(len(tokens), -1), ends], axis=1) for half in halves)
    return inputs, targets
