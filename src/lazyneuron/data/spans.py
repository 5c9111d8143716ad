"""T5's span corruption: noise spans are removed from the input and form the target (arXiv 1910.10683, 3.1.4)."""

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
    num_noise, num_spans = noise_counts(length)
    kept = _random_parts(length - num_noise, num_spans, rng)
    noise = _random_parts(num_noise, num_spans, rng)
    spans = np.stack([kept, noise], axis=1).reshape(-1)
    return np.repeat(np.arange(2 * num_spans) % 2 == 1, spans)


def _random_parts(total: int, num_parts: int, rng: np.random.Generator) -> np.ndarray:
    cuts = np.sort(rng.choice(total - 1, num_parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt(tokens: np.ndarray, mask: np.ndarray, sentinels: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Input and target of `tokens` [L] with the noise `mask` [L].

    The input is `tokens` with the j-th noise span replaced by `sentinels[j]`; the target is, for each span, its
    sentinel and its tokens. Both end with `end`. ValueError if there are more spans than sentinels.
    """
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    if (num_spans := int(starts.sum())) > len(sentinels):
        raise ValueError(f"{num_spans} noise spans need as many sentinels; got {len(sentinels)}")
    marked = tokens.copy()
    marked[starts] = sentinels[:num_spans]
    inputs = np.concatenate([marked[~mask | starts], [end]])
    noise = mask.nonzero()[0]
    targets = np.insert(tokens[noise], starts[noise].nonzero()[0], sentinels[:num_spans])
    return inputs, np.concatenate([targets, [end]])
