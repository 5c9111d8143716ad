"""The CPU kernel of `count_map`: each token's row is read from memory once and stays in the first-level cache."""

import threading

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from lazyneuron.kernels.count import PER_TOKEN, RELATIVE_THRESHOLD
from lazyneuron.kernels.team import kept_njit

_MAGNITUDE = np.int32(0x7FFFFFFF)
_SHIFT = np.int32(20)  # bins of an eighth of an octave: the sign, 8 bits of exponent and 3 of mantissa stay
_NUM_BINS = 2**11
_THRESHOLD = np.float32(RELATIVE_THRESHOLD)
_ENTRIES_PER_THREAD = 2**16
_SUMS = {"reassoc", "contract"}  # sums may be vectorised; NaN and inf keep their meaning

# Numba's first use sets OpenMP's number of threads for the thread that asks; asked from this one, torch keeps its own.
_start = threading.Thread(target=numba.get_num_threads)
_start.start()
_start.join()


def count_rows(
    h_RF: Tensor, is_real_T: Tensor, is_pair_T: Tensor, lead: int, relative: bool, energy: bool, shared: bool
) -> tuple[Tensor, Tensor]:
    """As `count.by_chunks` wants it: fp32 rows in, counts [F] and [7, T] out, on as many threads as torch uses."""
    num_rows, d_ff = len(is_real_T), h_RF.shape[1]
    before = numba.get_num_threads()
    num_threads = max(1, min(torch.get_num_threads(), before, num_rows * d_ff // _ENTRIES_PER_THREAD))
    firing_PF = np.zeros((num_threads, d_ff), np.int32)
    tokens_CT = np.zeros((len(PER_TOKEN), num_rows), np.int64)
    h = h_RF.detach().contiguous().numpy()
    arrays = (h, is_real_T.numpy(), is_pair_T.numpy(), firing_PF, tokens_CT)
    numba.set_num_threads(num_threads)
    try:
        if relative or energy or shared:
            _count_all(lead, *arrays, h.view(np.int32), relative, energy, shared)
        else:
            _count_active(lead, *arrays)
    finally:
        numba.set_num_threads(before)
    return torch.from_numpy(firing_PF.sum(0, dtype=np.int64)), torch.from_numpy(tokens_CT)


@kept_njit(parallel=True, nogil=True)
def _count_active(lead, h_RF, is_real_T, is_pair_T, firing_PF, tokens_CT):
    num_rows, num_parts = len(is_real_T), len(firing_PF)
    for part in prange(num_parts):
        for t in range(num_rows * part // num_parts, num_rows * (part + 1) // num_parts):
            if is_real_T[t]:
                tokens_CT[0, t], tokens_CT[1, t] = _active(h_RF[lead + t], firing_PF[part])


@kept_njit(parallel=True, nogil=True)
def _count_all(lead, h_RF, is_real_T, is_pair_T, firing_PF, tokens_CT, bits_RF, relative, energy, shared):
    num_rows, num_parts = len(is_real_T), len(firing_PF)
    d_ff = h_RF.shape[1]
    for part in prange(num_parts):
        sums, sizes = np.zeros(_NUM_BINS + 8), np.zeros(_NUM_BINS + 8, np.int32)
        kept = np.empty(d_ff + 1, np.int32)
        clean = np.empty(d_ff, np.float32)
        for t in range(num_rows * part // num_parts, num_rows * (part + 1) // num_parts):
            if not is_real_T[t]:
                continue
            row, bits = h_RF[lead + t], bits_RF[lead + t]
            tokens_CT[0, t], tokens_CT[1, t] = _active(row, firing_PF[part])
            if tokens_CT[1, t]:
                for f in range(d_ff):
                    clean[f] = row[f] if row[f] == row[f] else np.float32(0)
                row, bits = clean, clean.view(np.int32)
            largest = _largest(bits)
            if relative:
                tokens_CT[2, t] = _at_least(row, _THRESHOLD * np.int32(largest).view(np.float32))
                tokens_CT[3, t] = _positive(row)
            if energy and largest > 0:
                tokens_CT[4, t], tokens_CT[5, t] = _holding(row, bits, largest, sums, sizes, kept)
            if shared and is_pair_T[t]:
                tokens_CT[6, t] = _shared(row, h_RF[lead + t - 1])


@kept_njit(nogil=True, fastmath=_SUMS)
def _active(row, firing_F):
    active, nan = np.int32(0), np.int32(0)
    for f in range(len(row)):
        is_active = np.int32(abs(row[f]) > 0)  # False for NaN
        firing_F[f] += is_active
        active += is_active
        nan += np.int32(row[f] != row[f])
    return active, nan


@kept_njit(nogil=True)
def _largest(bits):
    """Magnitudes of floats order as their bit patterns."""
    largest = np.int32(0)
    for f in range(len(bits)):
        largest = max(largest, bits[f] & _MAGNITUDE)
    return np.int32(largest)


@kept_njit(nogil=True)
def _at_least(row, threshold):
    found = np.int32(0)
    for f in range(len(row)):
        found += np.int32(abs(row[f]) >= threshold) & np.int32(abs(row[f]) > 0)
    return found


@kept_njit(nogil=True)
def _positive(row):
    found = np.int32(0)
    for f in range(len(row)):
        found += np.int32(row[f] > 0)
    return found


@kept_njit(nogil=True)
def _shared(row, before):
    found = np.int32(0)
    for f in range(len(row)):
        found += np.int32(abs(row[f]) > 0) & np.int32(abs(before[f]) > 0)
    return found


@kept_njit(nogil=True)
def _holding(row, bits, largest, sums, sizes, kept):
    """Fewest entries with 90 % and 99 % of the energy, without a sort: bins by magnitude, then a search in one bin.

    `sums` and `sizes` are zero on entry and on return.
    """
    lowest = top = np.int64(largest >> _SHIFT)
    total = 0.0
    for f in range(len(row)):  # without a branch: zeros go to bins beyond the last, by turns, which nobody reads
        b = bits[f] & _MAGNITUDE
        place = np.int64(b >> _SHIFT) if b else np.int64(_NUM_BINS + (f & 7))
        square = np.float64(row[f]) * np.float64(row[f])
        sums[place] += square
        sizes[place] += 1
        total += square
        lowest = min(lowest, place)
    place, above, num_above, half = top, 0.0, np.int64(0), np.int64(0)
    for share in (0.90, 0.99):
        goal = share * total
        while above + sums[place] < goal and place > lowest:
            above += sums[place]
            num_above += sizes[place]
            place -= 1
        found = num_above + _from_bin(bits, place, largest, goal - above, kept)
        if share < 0.95:
            half = found
    for b in range(lowest, top + 1):
        sums[b] = 0.0
        sizes[b] = 0
    return half, found


@kept_njit(nogil=True)
def _from_bin(bits, place, largest, goal, kept):
    """Fewest of the largest entries of a bin whose energy reaches `goal`."""
    size = 0
    for f in range(len(bits)):
        b = bits[f] & _MAGNITUDE
        kept[size] = b
        size += np.int64(np.int64(b >> _SHIFT) == place)
    values = kept[:size].view(np.float32)
    low = np.int64(place << _SHIFT) - 1
    high = min(np.int64((place + 1) << _SHIFT), np.int64(largest))
    num_above, above = np.int64(0), 0.0
    while high - low > 1:  # the energy of entries above `low` reaches the goal, that of those above `high` does not
        middle = low + (high - low) // 2
        num, energy = _above(values, np.int32(middle).view(np.float32))
        if energy >= goal:
            low = middle
        else:
            high, num_above, above = middle, num, energy
    value = np.float64(np.int32(high).view(np.float32))
    while above < goal and num_above < size:  # entries equal to `high`
        above += value * value
        num_above += 1
    return num_above


@kept_njit(nogil=True, fastmath=_SUMS)
def _above(values, threshold):
    num, energy = np.int32(0), 0.0
    for i in range(len(values)):
        is_above = values[i] > threshold
        num += np.int32(is_above)
        square = np.float64(values[i]) * np.float64(values[i])
        energy += square if is_above else 0.0
    return np.int64(num), energy
