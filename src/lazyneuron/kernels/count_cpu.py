"""The CPU kernel of `count_map`: each token's row is read from memory once and stays in the first-level cache."""

import numpy as np
from numba import njit

from lazyneuron.kernels.team import B8, F32, I32, I64, kernel, share

_MAGNITUDE = np.int32(0x7FFFFFFF)
_SHIFT = np.int32(20)  # bins of an eighth of an octave: the sign, 8 bits of exponent and 3 of mantissa stay
_NUM_BINS = 2**11
_SUMS = {"reassoc", "contract"}  # sums may be vectorised; NaN and inf keep their meaning


@kernel
def count_rows(
    team,
    lead: int,
    relative: int,
    energy: int,
    shared: int,
    h_RF: F32,
    is_real_T: B8,
    is_pair_T: B8,
    is_second_T: B8,
    firing_PHF: I32,
    tokens_7T: I64,
):
    """The counts of `count.PER_TOKEN` for the last T of R rows, added to outputs that are zero.

    `relative` is 0, or n to count the entries of at least 1/n of the largest magnitude. With H = 2, tokens of
    `is_second_T` enter the second row of the firing counts, others the first; with H = 1 it is not read.
    """
    start, stop = share(team, len(is_real_T))
    firing_HF = firing_PHF[team.member]
    has_halves = len(firing_HF) > 1
    if not (relative or energy or shared):
        for t in range(start, stop):
            if is_real_T[t]:
                firing_F = firing_HF[np.int64(has_halves and is_second_T[t])]
                tokens_7T[0, t], tokens_7T[1, t] = _active(h_RF[lead + t], firing_F)
        return
    sums, sizes = np.zeros(_NUM_BINS + 8), np.zeros(_NUM_BINS + 8, np.int32)
    d_ff = h_RF.shape[1]
    kept, clean = np.empty(d_ff + 1, np.int32), np.empty(d_ff, np.float32)
    for t in range(start, stop):
        if not is_real_T[t]:
            continue
        row = h_RF[lead + t]
        tokens_7T[0, t], tokens_7T[1, t] = _active(row, firing_HF[np.int64(has_halves and is_second_T[t])])
        if tokens_7T[1, t]:
            for f in range(d_ff):
                clean[f] = row[f] if row[f] == row[f] else np.float32(0)
            row = clean
        bits = row.view(np.int32)
        largest = _largest(bits)
        if relative:
            tokens_7T[2, t] = _at_least(row, np.float32(1 / relative) * np.int32(largest).view(np.float32))
            tokens_7T[3, t] = _positive(row)
        if energy and largest > 0:
            tokens_7T[4, t], tokens_7T[5, t] = _holding(row, bits, largest, sums, sizes, kept)
        if shared and is_pair_T[t]:
            tokens_7T[6, t] = _shared(row, h_RF[lead + t - 1])


@njit(fastmath=_SUMS)
def _active(row, firing_F):
    active, nan = np.int32(0), np.int32(0)
    for f in range(len(row)):
        is_active = np.int32(abs(row[f]) > 0)  # False for NaN
        firing_F[f] += is_active
        active += is_active
        nan += np.int32(row[f] != row[f])
    return active, nan


@njit
def _largest(bits):
    """Magnitudes of floats order as their bit patterns."""
    largest = np.int32(0)
    for f in range(len(bits)):
        largest = max(largest, bits[f] & _MAGNITUDE)
    return np.int32(largest)


@njit
def _at_least(row, threshold):
    found = np.int32(0)
    for f in range(len(row)):
        found += np.int32(abs(row[f]) >= threshold) & np.int32(abs(row[f]) > 0)
    return found


@njit
def _positive(row):
    found = np.int32(0)
    for f in range(len(row)):
        found += np.int32(row[f] > 0)
    return found


@njit
def _shared(row, before):
    found = np.int32(0)
    for f in range(len(row)):
        found += np.int32(abs(row[f]) > 0) & np.int32(abs(before[f]) > 0)
    return found


@njit
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
    for part in (0.90, 0.99):
        goal = part * total
        while above + sums[place] < goal and place > lowest:
            above += sums[place]
            num_above += sizes[place]
            place -= 1
        found = num_above + _from_bin(bits, place, largest, goal - above, kept)
        if part < 0.95:
            half = found
    for b in range(lowest, top + 1):
        sums[b] = 0.0
        sizes[b] = 0
    return half, found


@njit
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


@njit(fastmath=_SUMS)
def _above(values, threshold):
    num, energy = np.int32(0), 0.0
    for i in range(len(values)):
        is_above = values[i] > threshold
        num += np.int32(is_above)
        square = np.float64(values[i]) * np.float64(values[i])
        energy += square if is_above else 0.0
    return np.int64(num), energy
