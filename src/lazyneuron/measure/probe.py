"""Count which neurons fire while a model runs, exactly and without changing the model."""

import math
import types
from collections.abc import Iterable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from lazyneuron.kernels.count import count
from lazyneuron.maps.attach import MapHooks
from lazyneuron.measure.statistics import HISTOGRAMS, STATISTICS, mean, quantile
from lazyneuron.records.table import Column, Table, percent
from lazyneuron.sites import Site, SiteChoice, unwrap

RELU_LIKE = {"relu", "relu^2", "relu6"}


def watch(
    model: nn.Module,
    sites: SiteChoice = "auto",
    statistics: Iterable[str] = (),
    *,
    before_selection: bool = False,
) -> "Probe":
    """Count the nonzeros of every activation map while the returned context is open.

    `sites` is "auto", a regular expression that the names of the MLPs to watch match, or a list of `Site`. Unless it is
    a list, the first call of `model` inside finds them, by one more forward pass on a copy of its inputs (see
    `find_sites`). Outputs, gradients and random state stay the same to the bit, with two exceptions in which torch
    itself takes another path beside hooks: `nn.TransformerEncoderLayer` leaves its fused inference path, and compiled
    models are compiled anew, with a graph break at each site, on entering and again on leaving.

    Every token that an MLP processes counts once, also under gradient checkpointing; padding does not count, as told by
    `attention_mask` (and `decoder_attention_mask`) of the call of `model` itself. In training mode a map is taken from
    before the `nn.Dropout` that lies between it and the down projection; a dropout called as a function there cannot be
    told from neurons that are silent.

    How often each neuron fires is always counted. `statistics` adds, from cheap to dear: "active" (histogram of active
    neurons per token), "position" (density by place in the sequence), "overlap" (neurons that neighbouring tokens
    share), "relative" (entries of at least 1 % of the token's largest), "positive" (entries above zero: what a ReLU in
    place of a GELU would about keep), "energy_90" and "energy_99" (fewest neurons that hold that share of a token's
    energy); "all" is all of these. They are exact integer counts of size O(d_ff),
    kept on the model's device.

    In a model that `enforce` made sparse, `before_selection` counts the maps as they are before the selection (in eval
    mode, at down projections that are modules): what is sparse by itself, beside what is kept.
    """
    return Probe(model, sites, statistics, before_selection=before_selection)


class Probe:
    """Counts per site: open it with `with`, or `attach` and `detach`; read it any time. Re-opening goes on counting.

    Active means strictly nonzero; NaN entries are counted apart (`num_nan`) and are not active. Reading waits for the
    device, counting never does.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: SiteChoice = "auto",
        statistics: Iterable[str] = (),
        *,
        before_selection: bool = False,
    ) -> None:
        names = [*STATISTICS] if statistics == "all" else list(dict.fromkeys(statistics))
        if unknown := [name for name in names if name not in STATISTICS]:
            raise ValueError(f"no statistic {unknown[0]!r}: choose from {', '.join(STATISTICS)}")
        self._hooks = MapHooks(model, sites, self._count, is_first=before_selection)
        self._statistics = [STATISTICS[name] for name in names]
        needs = {statistic.needs for statistic in self._statistics}
        self._needs = {need: need in needs for need in ("relative", "energy", "shared")}
        self._model = unwrap(model)
        self._counts: dict[str, Tensor] = {}

    @property
    def sites(self) -> list[Site]:
        """The watched sites; RuntimeError before they are known."""
        return self._hooks.known_sites()

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics counted besides firing."""
        return tuple(statistic.name for statistic in self._statistics)

    @property
    def num_tokens(self) -> dict[str, int]:
        """Tokens seen by each site, padding left out."""
        return {name: int(counts[-2]) for name, counts in self._firing().items()}

    @property
    def num_nan(self) -> dict[str, int]:
        """NaN entries of each site's activation maps, padding left out: any makes the other numbers doubtful."""
        return {name: int(counts[-1]) for name, counts in self._firing().items()}

    @property
    def num_active(self) -> dict[str, float]:
        """Mean number of active neurons per token at each site; nan where no token was seen."""
        return {
            name: int(counts[:-2].sum()) / int(counts[-2]) if int(counts[-2]) else math.nan
            for name, counts in self._firing().items()
        }

    @property
    def density(self) -> dict[str, float]:
        """Nonzero fraction of each site's activation map, in [0, 1]; nan where no token was seen."""
        return {
            name: int(counts[:-2].sum()) / (int(counts[-2]) * (len(counts) - 2)) if int(counts[-2]) else math.nan
            for name, counts in self._firing().items()
        }

    @property
    def firing_rate(self) -> dict[str, Tensor]:
        """Fraction of the tokens at which each neuron was active: float64 of shape [F] per site."""
        return {name: counts[:-2].double() / counts[-2] for name, counts in self._firing().items()}

    @property
    def never_fired(self) -> dict[str, int]:
        """Neurons of each site that no token seen so far has activated; see `num_tokens` for how many there were."""
        return {name: int((counts[:-2] == 0).sum()) for name, counts in self._firing().items()}

    def histogram(self, statistic: str = "active") -> dict[str, Tensor]:
        """Number of tokens for each count from 0 to d_ff, int64 [F + 1] per site; needs that statistic.

        `statistic` is "active", "relative", "positive", "energy_90" or "energy_99".
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
        if statistic not in self.statistics:
            raise ValueError(f"{statistic!r} was not counted: watch(model, statistics=[{statistic!r}])")
        state = self.state()
        return {site.name: state[f"{site.name}/{statistic}"] for site in self.sites}

    def state(self) -> dict[str, Tensor]:
        """The raw counts: per site int64 [F + 2], how often each neuron was active, then tokens and NaN entries.

        A statistic's counts are under "site/statistic". These are the live tensors, on the device of the maps.
        """
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        with torch.inference_mode(False):  # or reading inside it would leave tensors that cannot count on
            for site in self.sites:
                self._on_device(site.name, (site.d_ff + 2,), device, move=False)
                for statistic in self._statistics:
                    self._on_device(f"{site.name}/{statistic.name}", statistic.shape(site.d_ff), device, move=False)
        return self._counts

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the counts of an earlier `state()` of the same sites and statistics, in place of the own ones."""
        wanted = {name: counts.shape for name, counts in self.state().items()}
        if wanted != {name: counts.shape for name, counts in state.items()}:
            raise ValueError("these counts are of other sites or statistics than this probe's")
        for name, counts in self._counts.items():
            counts.copy_(state[name])

    def all_reduce(self) -> None:
        """Add up the counts of all ranks, in place on each: call it on all, once, after the last batch.

        Needs an initialised `torch.distributed` process group; ranks must know the same sites.
        """
        for _, counts in sorted(self.state().items()):  # experts may have been met in another order elsewhere
            torch.distributed.all_reduce(counts)

    def merge(self, other: "Probe") -> None:
        """Add the counts of another probe (of another batch, rank or copy of the model)."""
        if self.statistics != other.statistics:
            theirs, mine = list(other.statistics), list(self.statistics)
            raise ValueError(f"cannot merge a probe of statistics {theirs} into one of {mine}")
        sites = {site.name: site for site in self._hooks.sites or ()}
        for site in other.sites:
            known = sites.setdefault(site.name, site)
            if known.d_ff != site.d_ff:
                raise ValueError(f"cannot merge site {site.name!r}: d_ff is {known.d_ff} here and {site.d_ff} there")
        self._hooks.sites = [*sites.values()]
        state = self.state()
        for name, counts in other.state().items():
            state[name] += counts.to(state[name].device)

    def table(self) -> Table:
        """One line per site: activation, d_ff, tokens, active neurons per token, density in percent."""
        tokens, active, density = self.num_tokens, self.num_active, self.density
        columns = [Column("site"), Column("activation"), Column("d_ff", "d"), Column("tokens", "d")]
        columns += [Column("active/token", ".1f"), Column("density %", percent(2))]
        rows, notes = [], []
        for site in self.sites:
            key, activation = site.name, ("gated " if site.gate else "") + site.activation
            rows.append([key or "(model)", activation, site.d_ff, tokens[key], active[key], density[key]])
        if smooth := sorted({site.activation for site in self.sites} - RELU_LIKE):
            notes.append(f"note: {', '.join(smooth)}: rarely zero exactly, so density says little")
        if broken := [f"{number} at {name or '(model)'}" for name, number in self.num_nan.items() if number]:
            notes.append(f"note: NaN entries, counted apart: {', '.join(broken)}")
        return Table(columns, rows, notes=notes)

    def attach(self) -> Self:
        """Begin to count, until `detach`; what `with` does on entering."""
        self._hooks.open()
        return self

    def detach(self) -> None:
        """Remove every hook and keep the counts; harmless if none are there."""
        self._hooks.close()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._hooks.close(is_error=error is not None)

    def _count(self, site: Site, h_BSF: Tensor, is_real_BS: Tensor | None) -> None:
        found = count(h_BSF, is_real_BS, **self._needs)
        firing = self._on_device(site.name, (site.d_ff + 2,), h_BSF.device)
        firing[:-2] += found.firing_F
        firing[-2:] += torch.stack([found.is_real_BS.sum(), found.tokens["nan"].sum()])
        for statistic in self._statistics:
            kept = self._on_device(f"{site.name}/{statistic.name}", statistic.shape(site.d_ff), h_BSF.device)
            statistic.add(kept, found)

    def _on_device(self, name: str, shape: tuple[int, ...], device: torch.device, move: bool = True) -> Tensor:
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = torch.zeros(shape, dtype=torch.int64, device=device)
        elif move and counts.device != device:
            counts = self._counts[name] = counts.to(device)
        return counts
