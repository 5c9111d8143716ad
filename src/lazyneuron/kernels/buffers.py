"""Where the CPU kernels find their arguments and the parts of their scratch.

Arguments by place, after the team's three; addresses are 0 where there is none:

    3 to 7     T, F, D, kind of activation, k
    8, 9       scratch, tokens [T, D]
    10 to 13   first projection: int8, scales, weight, bias
    14 to 17   second, likewise
    18 to 20   counts of each member, the map (or pre-activations) [T, F], a mask of it
    21 to 23   down, its bias, output [T, D]
    24         whether the first screen is certified
"""

import numpy as np
from numba import njit

from lazyneuron.kernels.team import array


@njit(nogil=True)
def places(num_tokens, num_neurons, width):
    """Byte offsets of what the functions below find in the scratch, each on a cache line; the last has the rest."""
    map_bytes = (4 * num_tokens * num_neurons + 63) // 64 * 64
    tokens = (2 * num_tokens * width + 63) // 64 * 64
    found = (4 * num_neurons + 63) // 64 * 64
    least = (4 * num_tokens + 63) // 64 * 64
    sizes = (24 * num_tokens + 63) // 64 * 64
    a = sizes + tokens
    b = a + least
    c = b + found
    d = c + map_bytes
    return 0, sizes, a, b, c, d, d + map_bytes, d + 2 * map_bytes, d + 3 * map_bytes


@njit(nogil=True)
def _at(a, part):
    return a[8] + places(a[3], a[4], a[5])[part]


@njit(nogil=True)
def vector(address, size):
    """fp32 at an address; without entries where there is none."""
    return array(address, (size if address != 0 else 0,), np.float32)


@njit(nogil=True)
def tokens_of(a):
    """Tokens, the same as int16, and their sizes (see `quantise_token`)."""
    T, D = a[3], a[5]
    return (
        array(a[9], (T, D), np.float32),
        array(_at(a, 1), (T, D), np.int16),
        array(_at(a, 0), (T, 3), np.float64),
    )


@njit(nogil=True)
def least_of(a):
    """What the upper bound of a candidate must reach, by token."""
    return array(_at(a, 2), (a[3],), np.float32)


@njit(nogil=True)
def found_of(a):
    """Neurons that were found, each member's from the start of its share on."""
    return array(_at(a, 3), (a[4],), np.int32)


@njit(nogil=True)
def bounds_of(a):
    """Lower and upper bounds [T, F]."""
    shape = a[3], a[4]
    return array(_at(a, 4), shape, np.float32), array(_at(a, 5), shape, np.float32)


@njit(nogil=True)
def more_of(a):
    """Two more [T, F]: bounds of the second projection, then what a Top-k keeps; or which entries are wanted."""
    shape = a[3], a[4]
    return array(_at(a, 6), shape, np.float32), array(_at(a, 7), shape, np.float32)


@njit(nogil=True)
def own_of(a, parts, width):
    """Each member's own [T, width]."""
    return array(_at(a, 8), (parts, a[3], width), np.float32)


@njit(nogil=True)
def map_of(a):
    """The map, or the pre-activations."""
    return array(a[19], (a[3], a[4]), np.float32)


@njit(nogil=True)
def counts_of(a, parts):
    """Each member's rows recomputed, rows of down, active pairs, contradictions, candidate pairs."""
    return array(a[18], (parts, 5), np.int64)


@njit(nogil=True)
def first_of(a):
    """Int8 rows, scales and bias of the first projection."""
    return array(a[10], (a[4], a[5]), np.int8), array(a[11], (a[4], 3), np.float32), vector(a[13], a[4])


@njit(nogil=True)
def second_of(a):
    """Of the second."""
    return array(a[14], (a[4], a[5]), np.int8), array(a[15], (a[4], 3), np.float32), vector(a[17], a[4])
