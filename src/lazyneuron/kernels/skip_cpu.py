"""The CPU kernels of `lazyneuron.kernels.skip`, by its names: each team member has a range of the neurons.

`reads_2` takes the rows that were read and the pairs of token and neuron that needed them; instead of the rows, minus
the number of pairs whose pre-activation is outside its bounds, if there are any.
"""

import numpy as np
from numba import njit

from lazyneuron.kernels.arithmetic import add, add4, quantise_token
from lazyneuron.kernels.screening_cpu import (
    RELU_SQUARED,
    SILU,
    accumulate,
    active,
    candidates,
    contradictions,
    kth_bound,
    largest,
    products,
    recompute,
    rounding_of,
    scaled,
    screen,
    wanted,
)
from lazyneuron.kernels.team import F32, F64, I8, I16, I32, I64, barrier, kernel, share


@kernel
def screened(
    team,
    kind: int,
    k: int,
    is_product: int,
    is_certified: int,
    x_TD: F32,
    q_FD: I8,
    scales_F3: F32,
    w_FD: F32 | I16,
    u_TF: F32,
    reads_2: I64,
    bias_F: F32 | None = None,
    other_q_FD: I8 | None = None,
    other_scales_F3: F32 | None = None,
    other_bias_F: F32 | None = None,
    *,
    xq_TD: I16,
    sizes_T3: F64,
    least_T: F32,
    found_F: I32,
    keys_PF: I32,
    low_TF: F32,
    high_TF: F32,
    low2_TF: F32,
    high2_TF: F32,
    counts_P3: I64,
):
    """Pre-activations where they may matter, else 0; Top-k ranks act(u), with `is_product` times `other`'s.

    What the model compares is rounded: in bf16 two neurons may tie that the exact values tell apart.
    """
    p, (start, stop), keys = team.member, share(team, len(w_FD)), keys_PF[team.member]
    rounding = rounding_of(w_FD) if k > 0 else 0.0
    u_TF[:, start:stop] = 0
    for t in range(p, len(x_TD), team.size):
        quantise_token(x_TD[t], xq_TD[t], sizes_T3[t])
        least_T[t] = 0
    barrier(team)
    screen(start, stop, xq_TD, sizes_T3, q_FD, scales_F3, bias_F, low_TF, high_TF, rounding)
    if is_product:
        screen(start, stop, xq_TD, sizes_T3, other_q_FD, other_scales_F3, other_bias_F, low2_TF, high2_TF, rounding)
        products(start, stop, kind, low_TF, high_TF, low2_TF, high2_TF)
    if k > 0:
        barrier(team)
        # Below the floor a smooth activation may be as large in magnitude left of 0.
        floor = np.float32(0 if is_product or kind <= RELU_SQUARED else (0.5 if kind == SILU else 0.3))
        # Of both sides, each time that the model rounds after the pre-activation: twice in u * sigmoid(u).
        shrunk = 1 - 2 * rounding * ((0, 1, 2, 2)[kind - 1] + is_product)
        for t in range(p, len(x_TD), team.size):
            least = np.float32(shrunk * kth_bound(low_TF[t], keys, k))
            least_T[t] = least if least >= floor else np.float32(-1)
        barrier(team)
    number, pairs = candidates(start, stop, high_TF, least_T, found_F)
    own = found_F[start : start + number]
    recompute(own, w_FD, np.empty(0, np.float32), bias_F, x_TD, high_TF, least_T, u_TF)
    outside = 0
    if is_certified and not is_product:
        outside = contradictions(own, u_TF, low_TF, high_TF, high_TF, least_T, scales_F3, sizes_T3, x_TD.shape[1])
    report(team, number, pairs, outside, counts_P3, reads_2)


@kernel
def bounds(
    team,
    x_TD: F32,
    q_FD: I8,
    scales_F3: F32,
    low_TF: F32,
    high_TF: F32,
    bias_F: F32 | None = None,
    *,
    xq_TD: I16,
    sizes_T3: F64,
):
    """The screen's bounds of pre-activations."""
    for t in range(team.member, len(x_TD), team.size):
        quantise_token(x_TD[t], xq_TD[t], sizes_T3[t])
    barrier(team)
    start, stop = share(team, len(q_FD))
    screen(start, stop, xq_TD, sizes_T3, q_FD, scales_F3, bias_F, low_TF, high_TF, 0.0)


@kernel
def masked(
    team,
    kind: int,
    x_TD: F32,
    w_FD: F32 | I16 | I8,
    mask_TF: F32,
    u_TF: F32,
    reads_2: I64,
    bias_F: F32 | None = None,
    row_scales_F: F32 | None = None,
    *,
    score_TF: F32,
    found_F: I32,
    counts_P3: I64,
):
    """Pre-activations where the mask is neither 0 nor (if `kind` is ReLU-like) negative; 0 elsewhere."""
    start, stop = share(team, len(w_FD))
    if kind > RELU_SQUARED:
        score_TF[:, start:stop] = np.abs(mask_TF[:, start:stop])
        mask_TF = score_TF
    zero_T = np.zeros(len(x_TD), np.float32)
    u_TF[:, start:stop] = 0
    number, pairs = candidates(start, stop, mask_TF, zero_T, found_F)
    recompute(found_F[start : start + number], w_FD, row_scales_F, bias_F, x_TD, mask_TF, zero_T, u_TF)
    report(team, number, pairs, 0, counts_P3, reads_2)


@kernel
def down(
    team,
    h_TF: F32,
    down_FD: F32 | I16 | I8,
    y_TD: F32,
    reads_2: I64,
    bias_D: F32 | None = None,
    row_scales_F: F32 | None = None,
    *,
    found_F: I32,
    scaled_TF: F32,
    y_PTD: F32,
    counts_P3: I64,
):
    """The down projection of what is active."""
    (start, stop), y_own = share(team, len(down_FD)), y_PTD[team.member]
    number, pairs = active(start, stop, h_TF, found_F)
    h_TF = scaled(start, stop, h_TF, row_scales_F, scaled_TF)
    y_own[:] = 0
    accumulate(found_F[start : start + number], h_TF, down_FD, y_own)
    reduce(team, y_PTD, bias_D, y_TD)
    report(team, number, pairs, 0, counts_P3, reads_2)


@kernel
def product(
    team,
    x_TD: F32,
    w_FD: F32 | I16 | I8,
    u_TF: F32,
    bias_F: F32 | None = None,
    row_scales_F: F32 | None = None,
    *,
    found_F: I32,
):
    """Pre-activations of all rows."""
    start, stop = share(team, len(w_FD))
    for f in range(start, stop):
        found_F[f] = f
    least_T = np.full(len(x_TD), -1, np.float32)
    recompute(found_F[start:stop], w_FD, row_scales_F, bias_F, x_TD, u_TF, least_T, u_TF)


@kernel
def down_all(
    team,
    h_TF: F32,
    down_FD: F32 | I16 | I8,
    y_TD: F32,
    bias_D: F32 | None = None,
    row_scales_F: F32 | None = None,
    *,
    found_F: I32,
    scaled_TF: F32,
    y_PTD: F32,
):
    """The down projection with all rows read."""
    start, stop = share(team, len(down_FD))
    whole, y_own = start + (stop - start) // 4 * 4, y_PTD[team.member]
    h_TF = scaled(start, stop, h_TF, row_scales_F, scaled_TF)
    y_own[:] = 0
    for f in range(start, stop):
        found_F[f] = f
    for i in range(start, whole, 4):
        for t in range(len(h_TF)):
            add4(y_own[t], down_FD, found_F[i : i + 4], h_TF[t])
    for f in range(whole, stop):
        for t in range(len(h_TF)):
            add(y_own[t], down_FD[f], h_TF[t, f])
    reduce(team, y_PTD, bias_D, y_TD)


@kernel
def largest_products(
    team,
    is_certified: int,
    x_TD: F32,
    q_FD: I8,
    scales_F3: F32,
    w_FD: F32 | I16,
    u_TF: F32,
    reads_2: I64,
    bias_F: F32 | None = None,
    *,
    xq_TD: I16,
    sizes_T3: F64,
    found_F: I32,
    low_TF: F32,
    high_TF: F32,
    wanted_TF: F32,
    kept_PTK: F32,
    counts_P3: I64,
):
    """Each token's K largest products exactly, and whatever else could not be ruled out; the others -inf."""
    p, (start, stop) = team.member, share(team, len(w_FD))
    for t in range(p, len(x_TD), team.size):
        quantise_token(x_TD[t], xq_TD[t], sizes_T3[t])
    barrier(team)
    screen(start, stop, xq_TD, sizes_T3, q_FD, scales_F3, bias_F, low_TF, high_TF, rounding_of(w_FD))
    for t in range(len(x_TD)):
        largest(low_TF[t, start:stop], kept_PTK[p, t])
    barrier(team)
    every, least_T = np.empty(kept_PTK.shape[2], np.float32), np.empty(len(x_TD), np.float32)
    zero_T = np.zeros(len(x_TD), np.float32)
    for t in range(len(x_TD)):
        largest(np.ascontiguousarray(kept_PTK[: team.size, t]).ravel(), every)
        least_T[t] = every[0]
    wanted(start, stop, high_TF, least_T, wanted_TF)
    u_TF[:, start:stop] = -np.inf
    number, pairs = candidates(start, stop, wanted_TF, zero_T, found_F)
    own = found_F[start : start + number]
    recompute(own, w_FD, np.empty(0, np.float32), bias_F, x_TD, wanted_TF, zero_T, u_TF)
    outside = 0
    if is_certified:
        outside = contradictions(own, u_TF, low_TF, high_TF, wanted_TF, zero_T, scales_F3, sizes_T3, x_TD.shape[1])
    report(team, number, pairs, outside, counts_P3, reads_2)


@njit
def reduce(team, y_PTD, bias_D, y_TD):
    """Wait for all members; then sum what they added up, and the bias, over this member's columns."""
    barrier(team)
    start, stop = share(team, y_TD.shape[1])
    for t in range(len(y_TD)):
        for d in range(start, stop):
            total = bias_D[d] if len(bias_D) > 0 else np.float32(0)
            for p in range(team.size):
                total += y_PTD[p, t, d]
            y_TD[t, d] = total


@njit
def report(team, rows, pairs, outside, counts_P3, reads_2):
    """Sum what the members read."""
    counts_P3[team.member, 0], counts_P3[team.member, 1], counts_P3[team.member, 2] = rows, pairs, outside
    barrier(team)
    if team.member == 0:
        reads_2[:] = 0
        outside = 0
        for p in range(team.size):
            reads_2[0] += counts_P3[p, 0]
            reads_2[1] += counts_P3[p, 1]
            outside += counts_P3[p, 2]
        if outside > 0:
            reads_2[0] = -outside
