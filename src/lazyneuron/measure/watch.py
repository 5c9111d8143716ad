"""Count which neurons fire while a model runs, exactly and without changing the model."""

import math
import types
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from lazyneuron.measure.hooks import Hooks
from lazyneuron.measure.statistics import HISTOGRAMS, STATISTICS, Maps, mean, quantile
from lazyneuron.sites import Site

_RELU_LIKE = {"relu", "relu^2", "relu6"}


def watch(model: nn.Module, sites: Sequence[Site] | None = None, statistics: Sequence[str] = ()) -> "Probe":
    """Count the nonzeros of every activation map while the returned context is open.

    Without `sites`, the first call of `model` inside finds them, by one more forward pass on a copy of its inputs
    (see `find_sites`). Outputs, gradients and random state stay the same to the bit, with two exceptions in which torch
    itself takes another path beside hooks: `nn.TransformerEncoderLayer` leaves its fused inference path, and compiled
    models are compiled anew, with a graph break at each site, on entering and again on leaving.

    Every token that an MLP processes counts once, also under gradient checkpointing; padding does not count, as told by
    `attention_mask` (and `decoder_attention_mask`) of the call of `model` itself. In training mode, entries that
    dropout zeroed before the down projection are inactive: measure density in eval mode.

    How often each neuron fires is always counted. `statistics` adds, from cheap to dear: "active" (histogram of active
    neurons per token), "position" (density by place in the sequence), "overlap" (neurons that neighbouring tokens
    share), "relative" (entries above 1 % of the token's largest), "energy_90" and "energy_99" (fewest neurons that hold
    that share of a token's energy). All are exact integer counts of size O(d_ff), kept on the model's device.
    """
    return Probe(model, sites, statistics)


class Probe:
    """Counts per site: open it with `with`, read it any time. Re-opening goes on counting.

    Active means strictly nonzero; NaN is nonzero. Reading waits for the device, counting never does.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site] | None = None, statistics: Sequence[str] = ()) -> None:
        if unknown := [name for name in statistics if name not in STATISTICS]:
            raise ValueError(f"no statistic {unknown[0]!r}: choose from {', '.join(STATISTICS)}")
        self._hooks = Hooks(model, self._count, self._keep_sites)
        self._statistics = [STATISTICS[name] for name in dict.fromkeys(statistics)]
        self._sites = None if sites is None else list(sites)
        self._counts: dict[str, Tensor] = {}

    @property
    def sites(self) -> list[Site]:
        """The watched sites; RuntimeError before they are known."""
        if self._sites is None:
            raise RuntimeError("no site is known yet: call the model inside `with watch(model) as probe:` first")
        return self._sites

    @property
    def num_tokens(self) -> dict[str, int]:
        """Tokens seen by each site, padding left out."""
        return {name: int(counts[-1]) for name, counts in self._firing().items()}

    @property
    def num_active(self) -> dict[str, float]:
        """Mean number of active neurons per token at each site; nan where no token was seen."""
        return {
            name: int(counts[:-1].sum()) / int(counts[-1]) if int(counts[-1]) else math.nan
            for name, counts in self._firing().items()
        }

    @property
    def density(self) -> dict[str, float]:
        """Nonzero fraction of each site's activation map, in [0, 1]; nan where no token was seen."""
        return {name: active / (len(self._counts[name]) - 1) for name, active in self.num_active.items()}

    @property
    def firing_rate(self) -> dict[str, Tensor]:
        """Fraction of the tokens at which each neuron was active: float64 of shape [F] per site."""
        return {name: counts[:-1].double() / counts[-1] for name, counts in self._firing().items()}

    @property
    def never_fired(self) -> dict[str, int]:
        """Neurons of each site that no token seen so far has activated; see `num_tokens` for how many there were."""
        return {name: int((counts[:-1] == 0).sum()) for name, counts in self._firing().items()}

    def histogram(self, statistic: str = "active") -> dict[str, Tensor]:
        """Number of tokens for each count from 0 to d_ff, int64 [F + 1] per site; needs that statistic.

        `statistic` is "active", "relative", "energy_90" or "energy_99".
        """
        if statistic not in HISTOGRAMS:
            raise ValueError(f"{statistic!r} is no histogram: choose from {', '.join(HISTOGRAMS)}")
        return self._kept(statistic)

    def quantile(self, q: float, statistic: str = "active") -> dict[str, int]:
        """The count that a fraction `q` of the tokens does not exceed, per site: exact."""
        return {name: quantile(counts, q) for name, counts in self.histogram(statistic).items()}

    def share(self, statistic: str) -> dict[str, float]:
        """Mean of a count over tokens as a fraction of d_ff, per site: density, if `statistic` is "active"."""
        return {name: mean(counts) / (len(counts) - 1) for name, counts in self.histogram(statistic).items()}

    @property
    def density_by_position(self) -> dict[str, Tensor]:
        """Density at each position of the sequence, float64 [positions seen] per site; needs "position".

        Positions count from 0, padding included; the last of 4,096 pools all beyond. A model that flattens (batch,
        sequence) before its MLPs has its positions only where an attention mask tells them.
        """
        found = {}
        for site in self.sites:
            active, tokens = self._kept("position")[site.name].unbind(-1)
            length = int(tokens.nonzero().max()) + 1 if tokens.any() else 0
            found[site.name] = active[:length].double() / (tokens[:length] * site.d_ff)
        return found

    @property
    def overlap(self) -> dict[str, float]:
        """Active neurons that neighbouring tokens share, over those that either has (Jaccard); needs "overlap"."""
        pairs = {name: counts.tolist() for name, counts in self._kept("overlap").items()}
        return {name: both / either if either else math.nan for name, (both, either) in pairs.items()}

    def _firing(self) -> dict[str, Tensor]:
        state = self.state()
        return {site.name: state[site.name] for site in self.sites}

    def _kept(self, statistic: str) -> dict[str, Tensor]:
        if statistic not in {kept.name for kept in self._statistics}:
            raise ValueError(f"{statistic!r} was not counted: watch(model, statistics=[{statistic!r}])")
        state = self.state()
        return {site.name: state[f"{site.name}/{statistic}"] for site in self.sites}

    def state(self) -> dict[str, Tensor]:
        """The raw counts: per site int64 [F + 1], how often each neuron was active, then the number of tokens.

        A statistic's counts are under "site/statistic".
        These are the live tensors: an in-place sum over ranks (`torch.distributed.all_reduce`) merges the ranks.
        """
        for site in self.sites:
            self._counts.setdefault(site.name, torch.zeros(site.d_ff + 1, dtype=torch.int64))
            for statistic in self._statistics:
                empty = torch.zeros(statistic.shape(site.d_ff), dtype=torch.int64)
                self._counts.setdefault(f"{site.name}/{statistic.name}", empty)
        return self._counts

    def merge(self, other: "Probe") -> None:
        """Add the counts of another probe (of another batch, rank or copy of the model)."""
        if self._sites is None:
            self._sites = list(other.sites)
        mine = {site.name: site for site in self._sites}
        for site in other.sites:
            known = mine.get(site.name, site)
            if known.d_ff != site.d_ff:
                raise ValueError(f"cannot merge site {site.name!r}: d_ff is {known.d_ff} here and {site.d_ff} there")
        self._sites += [site for site in other.sites if site.name not in mine]
        if self._statistics != other._statistics:
            names = [[statistic.name for statistic in probe._statistics] for probe in (self, other)]
            raise ValueError(f"cannot merge a probe of statistics {names[1]} into one of {names[0]}")
        state = self.state()
        for name, counts in other.state().items():
            state[name] += counts.to(state[name].device)

    def table(self) -> str:
        """One line per site: activation, d_ff, tokens, active neurons per token, density in percent."""
        head = ("site", "activation", "d_ff", "tokens", "active/token", "density %")
        tokens, active, density = self.num_tokens, self.num_active, self.density
        rows: list[tuple[str, ...]] = [head]
        for site in self.sites:
            key, activation = site.name, ("gated " if site.gate else "") + site.activation
            numbers = (str(tokens[key]), f"{active[key]:.1f}", f"{100 * density[key]:.2f}")
            rows.append((key or "(model)", activation, str(site.d_ff), *numbers))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        smooth = sorted({site.activation for site in self.sites} - _RELU_LIKE)
        if smooth:
            lines.append(f"note: {', '.join(smooth)}: rarely zero exactly, so density says little")
        return "\n".join(lines)

    def __enter__(self) -> Self:
        self._hooks.open(self._sites)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._hooks.close(is_error=error is not None)

    def _keep_sites(self, sites: list[Site]) -> None:
        self._sites = sites

    def _count(self, site: Site, maps: Maps) -> None:
        active_TF = (maps.h_BSF != 0).flatten(0, -2)
        firing = self._on_device(site.name, (site.d_ff + 1,), maps.h_BSF.device)
        if maps.is_real_BS is None:
            firing[-1] += len(active_TF)
        else:
            is_real_T = maps.is_real_BS.flatten()
            active_TF &= is_real_T[:, None]
            firing[-1] += is_real_T.sum()
        firing[:-1] += active_TF.sum(0)
        for statistic in self._statistics:
            kept = self._on_device(f"{site.name}/{statistic.name}", statistic.shape(site.d_ff), maps.h_BSF.device)
            kept += statistic.count(maps)

    def _on_device(self, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        counts = self._counts.get(name)
        if counts is None or counts.device != device:
            before = 0 if counts is None else counts.to(device)
            counts = self._counts[name] = torch.zeros(shape, dtype=torch.int64, device=device) + before
        return counts
