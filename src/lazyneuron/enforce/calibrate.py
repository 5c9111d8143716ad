"""`lazy.calibrate`: thresholds that give a model's maps a density on data, as exact order statistics."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lazyneuron.enforce.enforce import enforced
from lazyneuron.enforce.selection import Threshold
from lazyneuron.errors import UsageError
from lazyneuron.maps.attach import MapHooks
from lazyneuron.maps.tokens import Tokens
from lazyneuron.sites import Inputs, Site, SiteChoice, as_call, find_sites

_BITS = 16  # of a float's pattern, found in one pass over the data
_INTEGERS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16}
_INTEGERS[torch.float16] = torch.int16


def calibrate(
    model: nn.Module, batches: Iterable[Inputs], density: float, sites: SiteChoice = "auto"
) -> dict[str, Threshold]:
    """For each site, the threshold that keeps `density` of its entries on `batches`, as a selection for `enforce`.

    Exactly round(density * entries) entries are larger in magnitude; fewer if several equal the threshold, or if more
    are zero already. Padding is left out, as by `watch`; NaN counts as the largest. The model runs in eval mode without
    gradients, one pass over the batches for each 16 bits of its dtype (float32: two), and one histogram per site is
    kept. `batches` are as `example_inputs` of `enforce`, and all are held in memory; the first finds the sites.

    Raises ValueError for a density outside (0, 1]; UsageError if a selection is in force, there is no batch, a site
    saw no token, or too many entries are infinite or NaN for a finite threshold.
    """
    if not 0 < density <= 1:
        raise ValueError(f"calibration needs 0 < density <= 1; got density={density}")
    if enforced(model):
        raise UsageError("calibration needs a model without a selection in force: release(model) first")
    data = [*batches]
    if not data:
        raise UsageError("there is no batch to calibrate on: pass at least one")
    found = find_sites(model, data[0], sites)
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        ranks = {site.name: _Rank(density) for site in found}
        while not all(rank.is_found for rank in ranks.values()):
            _run(model, data, found, ranks)
            for name, rank in ranks.items():
                rank.next_digit(name)
    finally:
        for module, training in was_training.items():
            module.training = training
    return {name: rank.threshold(name) for name, rank in ranks.items()}


class _Rank:
    """The entry at which the density is reached; its bit pattern is found digit by digit, highest first."""

    def __init__(self, density: float) -> None:
        self.density = density
        self.dtype: torch.dtype | None = None
        self.prefix, self.digits_left = 0, -1
        self.keeps_all = False
        self.num_above: int | None = None
        self.histogram: Tensor | None = None

    @property
    def is_found(self) -> bool:
        return self.digits_left == 0

    def add(self, name: str, h: Tensor) -> None:
        """Count the current digit of the entries that share the digits found so far."""
        if self.dtype not in (None, h.dtype):
            raise UsageError(f"site {name!r} has maps of {self.dtype} and of {h.dtype}: calibrate each separately")
        self.dtype = h.dtype
        width = 8 * h.element_size()
        if self.digits_left < 0:
            self.digits_left = width // _BITS
        bits = h.contiguous().view(_INTEGERS[h.dtype]).long().flatten() & (2 ** (width - 1) - 1)
        at = _BITS * (self.digits_left - 1)
        if at + _BITS < width:
            bits = bits[bits >> (at + _BITS) == self.prefix]
        counted = torch.bincount((bits >> at) & (2**_BITS - 1), minlength=2**_BITS)
        self.histogram = counted if self.histogram is None else self.histogram + counted

    def next_digit(self, name: str) -> None:
        """Fix the digit that was just counted."""
        if self.is_found:
            return
        if self.histogram is None:
            raise UsageError(f"site {name!r}: no token reached it; pass more batches, or leave it out of sites=")
        if self.num_above is None:
            total = int(self.histogram.sum())
            self.keeps_all = round(self.density * total) == total
            self.num_above = min(round(self.density * total), total - 1)
        above = self.histogram.flip(0).cumsum(0).flip(0)  # entries with this digit or a larger one
        if int(above[0]) <= self.num_above:
            raise UsageError(
                f"site {name!r} had other maps in the second pass over the batches: make the model deterministic"
            )
        digit = int((above > self.num_above).nonzero().max())
        self.num_above -= int(above[digit]) - int(self.histogram[digit])
        self.prefix = (self.prefix << _BITS) | digit
        self.digits_left -= 1
        self.histogram = None

    def threshold(self, name: str) -> Threshold:
        assert self.dtype is not None
        tau = torch.tensor(self.prefix, dtype=_INTEGERS[self.dtype]).view(self.dtype).item()
        if self.keeps_all:
            return Threshold(0.0)
        if not tau < float("inf"):
            what = f"more than {self.density:.2%} of its entries are infinite or NaN"
            raise UsageError(f"site {name!r}: {what}; check the model and the data")
        return Threshold(tau)


def _run(model: nn.Module, data: list[Inputs], sites: list[Site], ranks: dict[str, _Rank]) -> None:
    def on_map(site: Site, h_BSF: Tensor, tokens: Tokens) -> None:
        rank = ranks[site.name]
        if h_BSF.numel() and not rank.is_found:
            rank.add(site.name, tokens.select(h_BSF))

    with torch.no_grad(), MapHooks(model, sites, on_map, warns=False):
        for batch in data:
            args, kwargs = as_call(batch)
            model(*args, **kwargs)
