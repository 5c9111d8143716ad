"""A probe's counts as records: numbers per site and points of curves."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lazyneuron.measure.probe import Probe
from lazyneuron.measure.statistics import HISTOGRAMS, quantile
from lazyneuron.records.record import Record, Source
from lazyneuron.sites import numbered

QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
HOT = {"hot_90": 0.9, "hot_99": 0.99}
_MAX_BINS = 64
_MAX_RANKS = 129
_MAX_POSITIONS = 256


def probe_records(
    probe: Probe, *, recipe: str, seed: int = 0, source: Source | None = None, class_token_in: str | None = None
) -> Iterator[Record]:
    """Everything that `probe` counted, site by site; sites that no token reached are left out.

    Curves are thinned: firing rates to 129 ranks, histograms to at most 64 bins, positions to at most 256 ranges. Sites
    whose name contains `class_token_in` have separate densities for the first position, the class token, and the rest.
    """
    parent: dict[str, Any] = {"recipe": recipe, "seed": seed, "source": source}
    yield from firing_records(probe, **parent)
    tokens, nan, rates = probe.num_tokens, probe.num_nan, probe.firing_rate
    histograms = {name: probe.histogram(name) for name in HISTOGRAMS if name in probe.statistics}
    shares = {name: probe.share(name) for name in histograms}
    by_position = probe.density_by_position if "position" in probe.statistics else {}
    overlaps = {"overlap": probe.overlap} if "overlap" in probe.statistics else {}
    overlaps |= {"hot_overlap": probe.hot_overlap()} if "halves" in probe.statistics else {}
    for stack, layer, site in numbered(probe.sites):
        key = site.name
        if not tokens[key]:
            continue
        here = {"stack": stack, "layer": layer, "site": key, "num_tokens": tokens[key], **parent}
        yield Record(what="num_nan", value=nan[key], unit="entries", **here)
        for x, value in _firing_curve(rates[key]):
            yield Record(what="firing_rate", value=value, unit="fraction", x=x, **here)
        if "active" in histograms:
            for q in QUANTILES:
                number = quantile(histograms["active"][key], q)
                yield Record(what="num_active_quantile", value=number, unit="neurons", x=q, **here)
            for x, value in _bins(histograms["active"][key]):
                yield Record(what="token_share", value=value, unit="fraction", x=x, **here)
        for name in ("relative", "positive", "energy_90", "energy_99"):
            if name in shares:
                what = "density_relative" if name == "relative" else name
                yield Record(what=what, value=shares[name][key], unit="fraction", **here)
        for what, overlap in overlaps.items():
            if not math.isnan(overlap[key]):
                yield Record(what=what, value=overlap[key], unit="fraction", **here)
        for x, value in _thinned(by_position.get(key, torch.empty(0))):
            yield Record(what="density_by_position", value=value, unit="fraction", x=x, **here)
        places = by_position.get(key, torch.empty(0))
        if class_token_in is not None and class_token_in in key and len(places) > 1:
            yield Record(what="density_class_token", value=places[0].item(), unit="fraction", **here)
            yield Record(what="density_patches", value=places[1:].mean().item(), unit="fraction", **here)


def firing_records(probe: Probe, **parent: Any) -> Iterator[Record]:
    """What the firing counts alone say, site by site: how dense a site is, and how few neurons its activity needs.

    "hot_90" and "hot_99" are the least share of the neurons that makes up 90 and 99 % of all activity over the data.
    "unlike_config" is the density of a site that does not fit its config, and its case says how. Sites that no token
    reached are left out. `parent` names the run: fields of `Record`.
    """
    tokens, density, active = probe.num_tokens, probe.density, probe.num_active
    never, rarely = probe.never_fired, probe.rarely_fired
    unlike = {alarm.site: alarm.case for alarm in probe.alarms}
    hot = {what: probe.hot_neurons(share) for what, share in HOT.items()}
    for stack, layer, site in numbered(probe.sites):
        key = site.name
        if not tokens[key]:
            continue
        here = {"stack": stack, "layer": layer, "site": key, "num_tokens": tokens[key], **parent}
        yield Record(what="density", value=density[key], unit="fraction", **here)
        yield Record(what="num_active", value=active[key], unit="neurons/token", **here)
        yield Record(what="never_fired", value=never[key], unit="neurons", **here)
        yield Record(what="rarely_fired", value=rarely[key], unit="neurons", **here)
        if key in unlike:
            yield Record(what="unlike_config", value=density[key], unit="fraction", case=unlike[key], **here)
        for what, neurons in hot.items():
            yield Record(what=what, value=len(neurons[key]) / site.d_ff, unit="fraction", **here)


def _firing_curve(rates_F: Tensor) -> Iterator[tuple[float, float]]:
    """Rank as a fraction of all neurons, most active first, and the firing rate at that rank."""
    sorted_F = rates_F.sort(descending=True).values
    ranks = torch.linspace(0, len(sorted_F) - 1, min(_MAX_RANKS, len(sorted_F)), dtype=torch.float64).round().long()
    last = max(1, len(sorted_F) - 1)
    yield from ((rank / last, rate) for rank, rate in zip(ranks.tolist(), sorted_F[ranks].tolist(), strict=True))


def _bins(histogram: Tensor) -> Iterator[tuple[float, float]]:
    """Left edge in neurons, and fraction of the tokens, of bins of equal width; an empty bin closes the right edge."""
    last, total = int(histogram.nonzero().max()), int(histogram.sum())
    width = -(-(last + 1) // _MAX_BINS)
    for edge in range(0, last + 1, width):
        yield float(edge), int(histogram[edge : edge + width].sum()) / total
    yield float((last // width + 1) * width), 0.0


def _thinned(density_S: Tensor) -> Iterator[tuple[float, float]]:
    """Middle and mean of equal ranges of positions; positions without a token are left out."""
    width = -(-len(density_S) // _MAX_POSITIONS) or 1
    for start in range(0, len(density_S), width):
        part = density_S[start : start + width]
        if not (mean := part.nanmean()).isnan():
            yield start + (len(part) - 1) / 2, mean.item()
