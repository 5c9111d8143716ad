"""Loops of the kernels of `skip_cpu` over the neurons of one team member: from start to stop, or those in `found`.

Arrays [T, F] are shared, and each member writes the columns of its own neurons.
"""

import math

import numpy as np
from numba import njit

from lazyneuron.kernels.arithmetic import add, add4, bounds, dot, dot4, int_dot, rounded_down, rounded_up
from lazyneuron.kernels.topk_cpu import threshold_of

RELU, RELU_SQUARED, GELU, SILU = 1, 2, 3, 4
_INFINITY = np.int32(0x7F800000)  # the bits of it
_GELU_FORMS = 1e-3  # more than the two forms of GELU differ by
_BF16 = 1.01 * 2.0**-8  # more than rounding to bf16 changes a number by, as a share of it


@njit
def rounding_of(w_FD):
    """The share of a number that rounding to the weight's dtype may change; 0 in fp32, whose bounds allow for it."""
    return _BF16 if w_FD.itemsize == 2 else 0.0


@njit
def screen(start, stop, xq_TD, sizes_T3, q_FD, scales_F3, bias_F, low_TF, high_TF, rounding):
    """Bounds of the pre-activations of the neurons from start to stop, also after `rounding`."""
    for f in range(start, stop):
        bias = bias_F[f] if len(bias_F) > 0 else np.float32(0)
        for t in range(len(xq_TD)):
            product = int_dot(q_FD[f], xq_TD[t])
            low, high = bounds(product, scales_F3[f, 0], scales_F3[f, 1], scales_F3[f, 2], bias, sizes_T3[t])
            high_TF[t, f] = rounded_up(high + rounding * abs(high))
            low_TF[t, f] = rounded_down(low - rounding * abs(low))


@njit
def magnitudes(kind, low, high):
    """Bounds of the magnitude of an activation where its argument is between `low` and `high`."""
    if low != low or high != high:
        return 0.0, np.nan
    if kind == RELU:
        return max(low, 0.0), max(high, 0.0)
    if kind == RELU_SQUARED:
        return max(low, 0.0) ** 2 * (1 - 1e-9), max(high, 0.0) ** 2 * (1 + 1e-9)
    deepest, depth, spare = (1.2785, 0.27847, 0.0) if kind == SILU else (0.7518, 0.16998, _GELU_FORMS)
    a, b = abs(smooth(kind, low)), abs(smooth(kind, high))
    if low > 0:
        return max(a * (1 - 1e-9) - spare, 0.0), b * (1 + 1e-9) + spare
    if high < 0:
        most = b if high < -deepest else depth
        return max(min(a, b) * (1 - 1e-9) - spare, 0.0), most * (1 + 1e-9) + spare
    return 0.0, max(b, depth) * (1 + 1e-9) + spare


@njit
def smooth(kind, u):
    if kind == SILU:
        return u / (1 + np.exp(-u)) if not u < -700 else 0.0
    return 0.5 * u * (1 + math.erf(u / 1.4142135623730951))


@njit
def products(start, stop, kind, low_TF, high_TF, low2_TF, high2_TF):
    """From bounds of gate and up (the second) those of the magnitude of act(gate) * up, in place of the gate's."""
    for t in range(len(low_TF)):
        for f in range(start, stop):
            least, most = magnitudes(kind, np.float64(low_TF[t, f]), np.float64(high_TF[t, f]))
            low, high = np.float64(low2_TF[t, f]), np.float64(high2_TF[t, f])
            near = low if low > 0 else (-high if high < 0 else 0.0)
            low_TF[t, f] = max(rounded_down(least * near * (1 - 1e-9)), np.float32(0))
            high_TF[t, f] = rounded_up(most * max(abs(low), abs(high)) * (1 + 1e-9))


@njit
def kth_bound(low_F, keys_F, k):
    """What at least k of the lower bounds reach; 0 if fewer than k are positive."""
    bits_F, largest, positive = low_F.view(np.int32), np.int32(0), np.int64(0)
    for f in range(len(bits_F)):
        key = bits_F[f] if 0 < bits_F[f] <= _INFINITY else np.int32(0)
        keys_F[f] = key
        largest = max(largest, key)
        positive += np.int64(key != 0)
    if positive <= k:
        return np.float32(0)
    found, _ = threshold_of(keys_F, k, np.int64(largest), positive, np.int64(0), 0)
    return np.int32(found).view(np.float32)


@njit
def largest(values, kept_K):
    """The largest values, ascending; -inf where there are fewer that are a number."""
    kept_K[:] = -np.inf
    for i in range(len(values)):
        if values[i] > kept_K[0]:
            j = 0
            while j + 1 < len(kept_K) and kept_K[j + 1] < values[i]:
                kept_K[j] = kept_K[j + 1]
                j += 1
            kept_K[j] = values[i]


@njit
def wanted(start, stop, high_TF, least_T, wanted_TF):
    """1 where the upper bound is not certainly below what is needed, else -1."""
    for t in range(len(high_TF)):
        for f in range(start, stop):
            wanted_TF[t, f] = -1 if high_TF[t, f] < least_T[t] else 1


@njit
def candidates(start, stop, high_TF, least_T, found):
    """The neurons that some token may need, and how many (token, neuron) pairs that are: see `is_candidate`."""
    number, pairs = 0, 0
    for f in range(start, stop):
        before = pairs
        for t in range(len(high_TF)):
            pairs += is_candidate(high_TF[t, f], least_T[t])
        if pairs > before:
            found[start + number] = f
            number += 1
    return number, pairs


@njit(inline="always")
def is_candidate(high, least):
    """Not that it is certainly inactive, nor certainly not among the k largest: NaN is a candidate."""
    return not (high < least or high <= 0) if least >= 0 else True


@njit
def contradictions(found, u_TF, low_TF, high_TF, score_TF, least_T, scales_F3, sizes_T3, width):
    """How many pre-activations are outside their bounds by more than rounding: the weights are not the screen's."""
    number = 0
    for i in range(len(found)):
        f = found[i]
        for t in range(len(u_TF)):
            u, low, high = np.float64(u_TF[t, f]), np.float64(low_TF[t, f]), np.float64(high_TF[t, f])
            norm = (np.float64(scales_F3[f, 1]) + np.float64(scales_F3[f, 2])) * sizes_T3[t, 1]
            spare = 1.2e-7 * (width * norm + abs(u) + abs(low) + abs(high)) + 1.5e-45 * (width + 1)
            number += (u > high + spare or u < low - spare) and is_candidate(score_TF[t, f], least_T[t])
    return number


@njit
def recompute(found, w_FD, scales_F, bias_F, x_TD, high_TF, least_T, out_TF):
    """The pre-activations of the neurons `found`, for the tokens that may need them."""
    whole, four = 0, np.empty(4, np.float32)
    if len(x_TD) == 1:
        whole = len(found) // 4 * 4
        for i in range(0, whole, 4):
            dot4(w_FD, found[i : i + 4], x_TD[0], four)
            for j in range(4):
                out_TF[0, found[i + j]] = affine(found[i + j], four[j], scales_F, bias_F)
    for i in range(whole, len(found)):
        f = found[i]
        for t in range(len(x_TD)):
            if is_candidate(high_TF[t, f], least_T[t]):
                out_TF[t, f] = affine(f, dot(w_FD[f], x_TD[t]), scales_F, bias_F)


@njit(inline="always")
def affine(f, product, scales_F, bias_F):
    """The pre-activation of a neuron from the product with its row, which has a scale where weights are int8."""
    product *= scales_F[f] if len(scales_F) > 0 else np.float32(1)
    return product + (bias_F[f] if len(bias_F) > 0 else np.float32(0))


@njit
def active(start, stop, h_TF, found):
    """The neurons that some token has active, and how many (token, neuron) pairs are."""
    number, pairs = 0, 0
    for f in range(start, stop):
        before = pairs
        for t in range(len(h_TF)):
            pairs += h_TF[t, f] != 0
        if pairs > before:
            found[start + number] = f
            number += 1
    return number, pairs


@njit
def scaled(start, stop, h_TF, row_scales_F, scaled_TF):
    """The map times the scales of the down rows, which have one where weights are int8; else the map itself."""
    if len(row_scales_F) == 0:
        return h_TF
    scaled_TF[:, start:stop] = h_TF[:, start:stop] * row_scales_F[start:stop]
    return scaled_TF


@njit
def accumulate(found, h_TF, down_FD, y_TD):
    """Add the down rows of the neurons `found`, times their entries of the map."""
    whole = 0
    if len(h_TF) == 1:
        whole = len(found) // 4 * 4
        for i in range(0, whole, 4):
            add4(y_TD[0], down_FD, found[i : i + 4], h_TF[0])
    for i in range(whole, len(found)):
        f = found[i]
        for t in range(len(h_TF)):
            if h_TF[t, f] != 0:
                add(y_TD[t], down_FD[f], h_TF[t, f])
