"""The CPU kernels: screen, recompute, accumulate, in one pass of torch's threads, each over its own neurons."""

import numpy as np
from numba import njit

from lazyneuron.kernels.buffers import (
    bounds_of,
    counts_of,
    first_of,
    found_of,
    least_of,
    map_of,
    more_of,
    own_of,
    second_of,
    tokens_of,
    vector,
)
from lazyneuron.kernels.rows import add, add4, quantise_token
from lazyneuron.kernels.stages import (
    RELU_SQUARED,
    SILU,
    accumulate,
    activate,
    active,
    candidates,
    contradictions,
    kth_bound,
    largest,
    products,
    recompute,
    reduce,
    screen,
    share,
    times_up,
    wanted,
)
from lazyneuron.kernels.team import Kernel, array, barrier, team
from lazyneuron.kernels.topk_cpu import rows_topk


@njit(nogil=True)
def _weights(a, dtype):
    shape = a[4], a[5]
    return array(a[12], shape, dtype), array(a[16], shape, dtype), array(a[21], shape, dtype)


@njit(nogil=True)
def _find(a, p, parts, start, stop):
    """Which of the neurons from start to stop are candidates: how many of `found_of`, and how many pairs.

    With k and a second matrix the bounds are of the magnitude of act(first) * second.
    """
    T, F, kind, k, is_product = a[3], a[4], a[6], a[7], a[7] > 0 and a[14] != 0
    (x_TD, xq_TD, sizes_T3), least_T, (low_TF, high_TF) = tokens_of(a), least_of(a), bounds_of(a)
    for t in range(p, T, parts):
        quantise_token(x_TD[t], xq_TD[t], sizes_T3[t])
        least_T[t] = 0
    barrier(a)
    q_FD, scales_F3, bias_F = first_of(a)
    screen(start, stop, xq_TD, sizes_T3, q_FD, scales_F3, bias_F, low_TF, high_TF)
    if is_product:
        (low2_TF, high2_TF), (q2_FD, scales2_F3, bias2_F) = more_of(a), second_of(a)
        screen(start, stop, xq_TD, sizes_T3, q2_FD, scales2_F3, bias2_F, low2_TF, high2_TF)
        products(start, stop, kind, low_TF, high_TF, low2_TF, high2_TF)
    if k > 0:
        barrier(a)
        keys = np.empty(F, np.int32)
        # Below the floor a smooth activation may be as large in magnitude left of 0.
        floor = np.float32(0 if is_product or kind <= RELU_SQUARED else (0.5 if kind == SILU else 0.3))
        for t in range(p, T, parts):
            least = kth_bound(low_TF[t], keys, k)
            least_T[t] = least if least >= floor else np.float32(-1)
        barrier(a)
    return candidates(start, stop, high_TF, least_T, found_of(a))


@njit(nogil=True)
def _up(a, w_FD, second_FD, down_FD):
    """Screened pre-activations, 0 where they cannot matter; with `down_FD` the whole MLP."""
    p, parts = team(a)
    T, F, D, kind, k = a[3], a[4], a[5], a[6], a[7]
    start, stop = share(p, parts, F)
    (x_TD, _, sizes_T3), least_T, (low_TF, high_TF) = tokens_of(a), least_of(a), bounds_of(a)
    h_TF, counts, (_, scales_F3, bias_F) = map_of(a), counts_of(a, parts), first_of(a)
    h_TF[:, start:stop] = 0
    number, counts[p, 4] = _find(a, p, parts, start, stop)
    own = found_of(a)[start : start + number]
    recompute(own, w_FD, bias_F, x_TD, high_TF, least_T, h_TF)
    counts[p, 0] = number
    if a[24] and (k == 0 or a[14] == 0):
        counts[p, 3] = contradictions(own, h_TF, low_TF, high_TF, high_TF, least_T, scales_F3, sizes_T3, D)
    if a[21] == 0:
        return
    activate(own, kind, h_TF)
    if k > 0:
        barrier(a)
        kept_TF, _ = more_of(a)
        rows_topk(*share(p, parts, T), h_TF.view(np.int32), kept_TF.view(np.int32), k, 0)
        barrier(a)
        h_TF = kept_TF
    elif a[16] != 0:
        times_up(own, second_FD, vector(a[17], F), x_TD, h_TF)
    _down(a, p, parts, start, stop, h_TF, down_FD)


@njit(nogil=True)
def _down(a, p, parts, start, stop, h_TF, down_FD):
    T, D, found, counts = a[3], a[5], found_of(a), counts_of(a, parts)
    y_PTD, y_TD = own_of(a, parts, D), array(a[23], (T, D), np.float32)
    number, counts[p, 2] = active(start, stop, h_TF, found)
    counts[p, 1] = number
    y_PTD[p] = 0
    accumulate(found[start : start + number], h_TF, down_FD, y_PTD[p])
    barrier(a)
    reduce(*share(p, parts, D), y_PTD, parts, vector(a[22], D), y_TD)


@njit(nogil=True)
def _masked(a, w_FD):
    """Pre-activations where the mask is neither 0 nor (if `kind` is ReLU-like) negative; 0 elsewhere."""
    p, parts = team(a)
    T, F, kind = a[3], a[4], a[6]
    start, stop = share(p, parts, F)
    (x_TD, _, _), u_TF, mask_TF = tokens_of(a), map_of(a), array(a[20], (T, F), np.float32)
    found, least_T, counts = found_of(a), np.zeros(T, np.float32), counts_of(a, parts)
    if kind <= RELU_SQUARED:
        score_TF = mask_TF
    else:
        score_TF, _ = bounds_of(a)
        score_TF[:, start:stop] = np.abs(mask_TF[:, start:stop])
    u_TF[:, start:stop] = 0
    number, counts[p, 4] = candidates(start, stop, score_TF, least_T, found)
    recompute(found[start : start + number], w_FD, vector(a[13], F), x_TD, score_TF, least_T, u_TF)
    counts[p, 0] = number


@njit(nogil=True)
def _down_only(a, down_FD):
    p, parts = team(a)
    _down(a, p, parts, *share(p, parts, a[4]), map_of(a), down_FD)


@njit(nogil=True)
def _product(a, w_FD):
    """Pre-activations of all rows, on the same threads."""
    p, parts = team(a)
    T, F = a[3], a[4]
    start, stop = share(p, parts, F)
    (x_TD, _, _), u_TF, found = tokens_of(a), map_of(a), found_of(a)
    for f in range(start, stop):
        found[f] = f
    recompute(found[start:stop], w_FD, vector(a[13], F), x_TD, u_TF, np.full(T, -1, np.float32), u_TF)


@njit(nogil=True)
def _down_all(a, down_FD):
    """The down projection with all rows read; the map's entries of a member's own neurons are all that it needs."""
    p, parts = team(a)
    T, F, D = a[3], a[4], a[5]
    start, stop = share(p, parts, F)
    whole = start + (stop - start) // 4 * 4
    h_TF, found = map_of(a), found_of(a)
    y_PTD, y_TD = own_of(a, parts, D), array(a[23], (T, D), np.float32)
    y_PTD[p] = 0
    for f in range(start, stop):
        found[f] = f
    for i in range(start, whole, 4):
        for t in range(T):
            add4(y_PTD[p, t], down_FD, found[i : i + 4], h_TF[t])
    for f in range(whole, stop):
        for t in range(T):
            add(y_PTD[p, t], down_FD[f], h_TF[t, f])
    barrier(a)
    reduce(*share(p, parts, D), y_PTD, parts, vector(a[22], D), y_TD)


@njit(nogil=True)
def _dense(a, w_FD, down_FD):
    """The MLP with every row of both weights read."""
    _product(a, w_FD)
    p, parts = team(a)
    start, stop = share(p, parts, a[4])
    activate(found_of(a)[start:stop], a[6], map_of(a))
    _down_all(a, down_FD)


@njit(nogil=True)
def _largest(a, w_FD):
    """Each token's k largest products exactly, and whatever else could not be ruled out; the others -inf."""
    p, parts = team(a)
    T, F, D, k = a[3], a[4], a[5], a[7]
    start, stop = share(p, parts, F)
    (x_TD, xq_TD, sizes_T3), (low_TF, high_TF), u_TF = tokens_of(a), bounds_of(a), map_of(a)
    kept_PTK, least_T, counts = own_of(a, parts, k), np.empty(T, np.float32), counts_of(a, parts)
    for t in range(p, T, parts):
        quantise_token(x_TD[t], xq_TD[t], sizes_T3[t])
    barrier(a)
    q_FD, scales_F3, bias_F = first_of(a)
    screen(start, stop, xq_TD, sizes_T3, q_FD, scales_F3, bias_F, low_TF, high_TF)
    for t in range(T):
        largest(low_TF[t, start:stop], kept_PTK[p, t])
    barrier(a)
    every = np.empty(k, np.float32)
    for t in range(T):
        largest(np.ascontiguousarray(kept_PTK[:, t]).ravel(), every)
        least_T[t] = every[0]
    (wanted_TF, _), zero_T = more_of(a), np.zeros(T, np.float32)
    wanted(start, stop, high_TF, least_T, wanted_TF)
    u_TF[:, start:stop] = -np.inf
    number, counts[p, 4] = candidates(start, stop, wanted_TF, zero_T, found_of(a))
    own = found_of(a)[start : start + number]
    recompute(own, w_FD, bias_F, x_TD, wanted_TF, zero_T, u_TF)
    counts[p, 0] = number
    if a[24]:
        counts[p, 3] = contradictions(own, u_TF, low_TF, high_TF, wanted_TF, zero_T, scales_F3, sizes_T3, D)


@Kernel
def dense_fp32(a):
    w_FD, _, down_FD = _weights(a, np.float32)
    _dense(a, w_FD, down_FD)


@Kernel
def dense_bf16(a):
    w_FD, _, down_FD = _weights(a, np.int16)
    _dense(a, w_FD, down_FD)


@Kernel
def product_fp32(a):
    _product(a, array(a[12], (a[4], a[5]), np.float32))


@Kernel
def product_bf16(a):
    _product(a, array(a[12], (a[4], a[5]), np.int16))


@Kernel
def down_all_fp32(a):
    _down_all(a, array(a[21], (a[4], a[5]), np.float32))


@Kernel
def down_all_bf16(a):
    _down_all(a, array(a[21], (a[4], a[5]), np.int16))


@Kernel
def largest_fp32(a):
    _largest(a, array(a[12], (a[4], a[5]), np.float32))


@Kernel
def largest_bf16(a):
    _largest(a, array(a[12], (a[4], a[5]), np.int16))


@Kernel
def up_fp32(a):
    _up(a, *_weights(a, np.float32))


@Kernel
def up_bf16(a):
    _up(a, *_weights(a, np.int16))


@Kernel
def masked_fp32(a):
    _masked(a, array(a[12], (a[4], a[5]), np.float32))


@Kernel
def masked_bf16(a):
    _masked(a, array(a[12], (a[4], a[5]), np.int16))


@Kernel
def down_fp32(a):
    _down_only(a, array(a[21], (a[4], a[5]), np.float32))


@Kernel
def down_bf16(a):
    _down_only(a, array(a[21], (a[4], a[5]), np.int16))
