"""The CPU kernel of `topk`: each row's threshold is found by counting, without a sort, in the first-level cache."""

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from lazyneuron.kernels.team import kept_njit

_INTERPOLATED_STEPS = 12
_ENTRIES_PER_THREAD = 2**15
# How far left a bit pattern goes to read about as the fp32 of its value: enough to guess thresholds by.
_SHIFTS = {torch.float32: 0, torch.bfloat16: 16, torch.float16: 13}


def topk_rows(h: Tensor, k: int) -> Tensor:
    """`topk` of fp32, bf16 or fp16 maps on the CPU, with as many threads as torch uses; no gradient."""
    h = h.detach().contiguous()
    out = torch.empty_like(h)
    if not h.numel():
        return out
    bits_TF, out_TF = _bits(h), _bits(out)
    if h.numel() < 2 * _ENTRIES_PER_THREAD:
        rows_topk(0, len(bits_TF), bits_TF, out_TF, k, _SHIFTS[h.dtype])
        return out
    before = numba.get_num_threads()
    num_threads = max(1, min(torch.get_num_threads(), before, len(bits_TF), h.numel() // _ENTRIES_PER_THREAD))
    numba.set_num_threads(num_threads)
    try:
        _parallel_rows(num_threads, bits_TF, out_TF, k, _SHIFTS[h.dtype])
    finally:
        numba.set_num_threads(before)
    return out


def _bits(h: Tensor) -> np.ndarray:
    """The bit patterns of a map as [T, F]; few calls, for they are half the time of one token."""
    if h.dtype == torch.bfloat16:  # unknown to NumPy
        return h.view(torch.int16).numpy().reshape(-1, h.shape[-1])
    bits = h.numpy()
    return bits.view(np.int32 if bits.itemsize == 4 else np.int16).reshape(-1, h.shape[-1])


@kept_njit(parallel=True, nogil=True)
def _parallel_rows(num_parts, bits_TF, out_TF, k, shift):
    for part in prange(num_parts):
        rows_topk(len(bits_TF) * part // num_parts, len(bits_TF) * (part + 1) // num_parts, bits_TF, out_TF, k, shift)


@kept_njit(nogil=True)
def rows_topk(start, stop, bits_TF, out_TF, k, shift):
    keys = np.empty(bits_TF.shape[1], bits_TF.dtype)
    guess = np.int64(0)
    for t in range(start, stop):
        largest, nonzero = _magnitudes(bits_TF[t], keys)
        if nonzero <= k:
            out_TF[t] = bits_TF[t]
            continue
        guess, left = threshold_of(keys, k, np.int64(largest), np.int64(nonzero), guess, shift)
        _keep(bits_TF[t], keys, out_TF[t], guess, left)


@kept_njit(nogil=True)
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


@kept_njit(nogil=True)
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


@kept_njit(nogil=True)
def _count_above(keys, threshold):
    above = np.int32(0)
    for f in range(len(keys)):
        above += np.int32(keys[f] > threshold)
    return np.int64(above)


@kept_njit(nogil=True)
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
