"""Arithmetic on one row of weights and one token: products, sums, and bounds of a product from its int8 copy."""

import numpy as np
from numba import njit, types
from numba.extending import overload

_SUMS = {"reassoc", "contract"}  # sums may be vectorised; NaN and inf keep their meaning
_ROUNDING = 2.0**-50  # more than the six roundings in float64 that a bound goes through
_SUMMING = 1 + 1e-9  # more than those of a norm in float64, of up to a million entries


def widened(weight):
    """A weight as fp32: itself, an int8, or of the bits of a bf16."""


@overload(widened, inline="always")
def _(weight):
    if isinstance(weight, types.Float):
        return lambda weight: weight
    if weight.bitwidth == 8:
        return lambda weight: np.float32(weight)
    return lambda weight: np.int32(np.int32(weight) << np.int32(16)).view(np.float32)


@njit(fastmath=_SUMS)
def dot(row, x):
    """The product of a row of weights and a token, in fp32."""
    total = np.float32(0)
    for d in range(len(x)):
        total += widened(row[d]) * x[d]
    return total


@njit(fastmath=_SUMS)
def dot4(rows, f, x, out):
    """Four rows with one token: four streams from memory, for none is long enough for it to run ahead."""
    a, b, c, d = rows[f[0]], rows[f[1]], rows[f[2]], rows[f[3]]
    s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for j in range(len(x)):
        s0 += widened(a[j]) * x[j]
        s1 += widened(b[j]) * x[j]
        s2 += widened(c[j]) * x[j]
        s3 += widened(d[j]) * x[j]
    out[0], out[1], out[2], out[3] = s0, s1, s2, s3


@njit(fastmath=_SUMS)
def add(y, row, h):
    """Add a row, times its entry of the map."""
    for j in range(len(y)):
        y[j] += h * widened(row[j])


@njit(fastmath=_SUMS)
def add4(y, rows, f, h):
    """Add four rows, each times its own entry of the map: one pass over `y`."""
    a, b, c, d = rows[f[0]], rows[f[1]], rows[f[2]], rows[f[3]]
    h0, h1, h2, h3 = h[f[0]], h[f[1]], h[f[2]], h[f[3]]
    for j in range(len(y)):
        y[j] += h0 * widened(a[j]) + h1 * widened(b[j]) + h2 * widened(c[j]) + h3 * widened(d[j])


@njit(fastmath=_SUMS)
def int_dot(q, x):
    """The product of an int8 row and an int16 token: exact, for the token was scaled so that no sum overflows."""
    total = np.int32(0)
    for d in range(len(x)):
        total = np.int32(total + np.int32(q[d]) * np.int32(x[d]))
    return total


@njit(fastmath=_SUMS)
def _norms(x):
    largest, square = np.float32(0), np.float64(0)
    for d in range(len(x)):
        largest = max(largest, abs(x[d]))
        square += np.float64(x[d]) * np.float64(x[d])
    return np.float64(largest), square


@njit(fastmath=_SUMS)
def _rounded(x, out, step):
    per_step, square = 1 / step, np.float64(0)
    for d in range(len(x)):
        whole = np.rint(np.float64(x[d]) * per_step)
        out[d] = np.int16(whole)
        left = np.float64(x[d]) - step * whole
        square += left * left
    return square


@njit
def quantise_token(x, out, sizes):
    """A token as `sizes[0]` times int16, and bounds of two norms: its own, and that of what rounding left over.

    Of a token that is not finite the norms are NaN, so that no bound rules anything out.
    """
    largest, square = _norms(x)
    if not square < np.inf:
        out[:] = 0
        sizes[0], sizes[1], sizes[2] = 0.0, np.nan, np.nan
        return
    if largest == 0:
        out[:] = 0
        sizes[0], sizes[1], sizes[2] = 0.0, 0.0, 0.0
        return
    step = largest / min(32767, (2**31 - 1) // (127 * len(x)))
    left = _rounded(x, out, step)
    sizes[0] = step
    sizes[1] = np.sqrt(square) * _SUMMING
    sizes[2] = np.sqrt(left) * _SUMMING + _ROUNDING * sizes[1]


@njit
def bounds(product, scale, left, norm, bias, sizes):
    """A lower and an upper bound of a pre-activation, in exact arithmetic.

    `product` is the integers' of `scale` times int8 and of `sizes[0]` times int16; `left` bounds the norm of what
    rounding left of the row, and `norm` that of the rounded row (Cauchy-Schwarz).
    """
    middle = np.float64(scale) * sizes[0] * np.float64(product)
    width = np.float64(left) * sizes[1] + np.float64(norm) * sizes[2]
    width += _ROUNDING * (abs(middle) + abs(np.float64(bias)) + width)
    middle += np.float64(bias)
    return middle - width, middle + width


@njit
def rounded_up(value):
    """The least fp32 that is not below, or the next: also where it is smaller than any normal number."""
    near = np.float32(value + abs(value) * 1.2e-7)
    return near if not np.float64(near) < value else np.float32(near + np.float32(1e-45))


@njit
def rounded_down(value):
    """As `rounded_up`, below."""
    return -rounded_up(-value)
