"""The CPU kernel of `lazyneuron.exploit.rounding`: a first look at sums near the k-th largest."""

import numpy as np
from numba import njit

from lazyneuron.kernels.screening_cpu import RELU, RELU_SQUARED, kth_bound, largest, smooth
from lazyneuron.kernels.team import F32, I32, I64, kernel

_FP32, _BF16 = 2.0**-24, 1.05 * 2.0**-8  # of a rounding, as a share of the number


@kernel
def near_edges(
    team,
    kind: int,
    is_product: int,
    factor: int,
    x_TD: F32,
    u_TF: F32,
    scales_F3: F32,
    number_1: I64,
    bias_F: F32 | None = None,
    up_TF: F32 | None = None,
    up_scales_F3: F32 | None = None,
    up_bias_F: F32 | None = None,
    *,
    score_F: F32,
    keys_F: I32,
    kept_K: F32,
):
    """How many sums near each token's K-th largest |act(u)| (with `is_product` |act(u) up|) may round either way.

    With `kind` 0 it is the K-th largest u. Errors of sums are taken `factor` times.
    """
    number_1[0] = _number(
        kind,
        is_product,
        factor,
        x_TD,
        (u_TF, scales_F3, bias_F),
        (up_TF, up_scales_F3, up_bias_F),
        score_F,
        keys_F,
        kept_K,
    )


@njit
def _number(kind, is_product, factor, x_TD, sums, others, score_F, keys_F, kept_K):
    (u_TF, scales_F3, bias_F), (up_TF, up_scales_F3, up_bias_F), number = sums, others, 0
    # By how many roundings to bf16 two scores may differ that are equal after them, slopes of activations included.
    roundings = (1, 1, 3, 5, 4)[kind] + 2 * is_product
    for t in range(len(x_TD)):
        square = np.float64(0)
        for d in range(x_TD.shape[1]):
            square += np.float64(x_TD[t, d]) ** 2
        norm = factor * np.sqrt(square)
        if kind == 0:
            score_F[:] = u_TF[t]
            largest(score_F, kept_K)
            kept = np.float64(kept_K[0])
        else:
            for f in range(len(score_F)):
                score = _size(kind, u_TF[t, f])
                score_F[f] = score * abs(up_TF[t, f]) if is_product else score
            kept = np.float64(kth_bound(score_F, keys_F, len(kept_K)))
        spread = 2 * _BF16 * roundings * abs(kept)
        low, high = kept - spread, (np.inf if kind == 0 else kept + spread)
        for f in range(len(score_F)):
            if low <= score_F[f] <= high:
                number += _is_at_edge(u_TF[t, f], scales_F3[f, 2] * norm, bias_F, f, x_TD.shape[1], factor)
                if is_product:
                    error = up_scales_F3[f, 2] * norm
                    number += _is_at_edge(up_TF[t, f], error, up_bias_F, f, x_TD.shape[1], factor)
    return number


@njit
def _size(kind, u):
    if kind <= RELU_SQUARED:
        above = max(u, np.float32(0))
        return above if kind == RELU else above * above
    return np.float32(abs(smooth(kind, np.float64(u)))) if u != 0 else np.float32(0)


@njit
def _is_at_edge(u, norm, bias_F, f, width, factor):
    """Whether the error of a sum reaches the middle between two bf16 numbers."""
    if u == 0:
        return False
    size = abs(np.float64(u)) + (abs(np.float64(bias_F[f])) if len(bias_F) > 0 else 0.0)
    reach = _FP32 * (1.5 * norm + factor * size * np.sqrt(width) / 2)
    bits = np.float32(abs(u)).view(np.int32)
    step = np.float64(np.int32(bits & np.int32(0x7F800000)).view(np.float32)) * 2.0**-23
    return abs((bits & np.int32(0xFFFF)) - 0x8000) * step <= reach
