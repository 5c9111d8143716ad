"""The CPU kernel of `lazyneuron.kernels.values`: each team member has a range of the neurons."""

import numpy as np

from lazyneuron.kernels.team import B8, F32, I64, kernel, share

_EXPONENT = np.int32(23)  # bits of the mantissa below it
_BIAS = 127


@kernel
def bin_values(team, h_TF: F32, is_real_T: B8, bins_FB: I64):
    """Count the entries by the power of two that they reach, in bins that are zero before."""
    start, stop = share(team, h_TF.shape[1])
    last = bins_FB.shape[1] - 1
    for t in range(len(h_TF)):
        if not is_real_T[t]:
            continue
        bits_F = h_TF[t].view(np.int32)
        for f in range(start, stop):
            value = h_TF[t, f]
            if value > 0:
                power = np.int64(bits_F[f] >> _EXPONENT) - _BIAS
                bins_FB[f, min(max(power + 8, 1), last)] += 1
            elif value == value:
                bins_FB[f, 0] += 1
