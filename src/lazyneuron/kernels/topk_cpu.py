"""The CPU kernel of `topk`: each row's threshold is found by counting, without a sort, in the first-level cache."""

import numpy as np
from numba import njit

from lazyneuron.kernels.team import I16, I32, kernel, share

_INTERPOLATED_STEPS = 12


@kernel
def topk_rows(team, k: int, shift: int, bits_TF: I32 | I16, out_TF: I32 | I16, *, keys_PF: I32 | I16):
    """`topk` of each row, as bit patterns; `shift` to the left makes a pattern about that of the same value in fp32."""
    start, stop = share(team, len(bits_TF))
    keep_largest(start, stop, bits_TF, out_TF, keys_PF[team.member], k, shift)


@njit
def keep_largest(start, stop, bits_TF, out_TF, keys, k, shift):
    guess = np.int64(0)
    for t in range(start, stop):
        largest, nonzero = _magnitudes(bits_TF[t], keys)
        if nonzero <= k:
            out_TF[t] = bits_TF[t]
            continue
        guess, left = threshold_of(keys, k, np.int64(largest), np.int64(nonzero), guess, shift)
        _keep(bits_TF[t], keys, out_TF[t], guess, left)


@njit
def _magnitudes(bits, keys):
    """Bit patterns without the sign order as magnitudes do, NaN above infinity."""
    magnitude = bits.dtype.type(0x7FFFFFFF if bits.itemsize == 4 else 0x7FFF)
    largest, nonzero = bits.dtype.type(0), np.int32(0)
    for f in range(len(bits)):
        key = bits.dtype.type(bits[f] & magnitude)
        keys[f] = key
        largest = max(largest, key)
        nonzero += np.int32(key != 0)
    return largest, nonzero


@njit
def threshold_of(keys, k, largest, nonzero, guess, shift):
    """A threshold with at most k keys above it, and how many equal to it are to be kept besides."""
    low, above_low = np.int64(0), nonzero  # more than k keys lie above `low`, at most k above `high`
    high, above_high = largest, np.int64(0)
    for step in range(64):
        if step == 0 and low < guess < high:
            middle = guess  # of the row before: rows of one map are alike
        elif step < _INTERPOLATED_STEPS:
            a = np.int32(low << shift).view(np.float32)
            b = np.int32(high << shift).view(np.float32)
            goal, from_low = np.log(k + 0.5), np.log(np.float64(above_low))
            share = (from_low - goal) / (from_low - np.log(max(np.float64(above_high), 0.5)))
            between = np.float32(a + (b - a) * min(max(share, 0.02), 0.98))
            middle = min(max(np.int64(np.float32(between).view(np.int32)) >> shift, low + 1), high - 1)
        else:
            middle = low + (high - low) // 2
        if high - low < 2:
            break
        above = _count_above(keys, keys.dtype.type(middle))
        if above == k:
            return middle, np.int64(0)
        if above > k:
            low, above_low = middle, above
        else:
            high, above_high = middle, above
    return high, k - above_high


@njit
def _count_above(keys, threshold):
    above = np.int32(0)
    for f in range(len(keys)):
        above += np.int32(keys[f] > threshold)
    return np.int64(above)


@njit
def _keep(bits, keys, out, threshold, left):
    at = keys.dtype.type(threshold)
    nothing = keys.dtype.type(0)
    for f in range(len(bits)):
        out[f] = bits[f] if keys[f] > at else nothing
    f = 0
    while left > 0:  # equal to the threshold: lowest index first
        if keys[f] == at:
            out[f] = bits[f]
            left -= 1
        f += 1
