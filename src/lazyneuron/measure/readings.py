"""What the counts of a probe say: densities, firing rates, histograms, and a table."""

import math
from abc import ABC, abstractmethod

from torch import Tensor

from lazyneuron.measure.alarm import Alarm, alarm_texts, alarms
from lazyneuron.measure.statistics import HISTOGRAMS, hot_neurons, mean, quantile
from lazyneuron.records.table import Column, Table, percent
from lazyneuron.sites import RELU_LIKE, Site


class Readings(ABC):
    """Reads counts by site; a subclass holds them."""

    @property
    @abstractmethod
    def sites(self) -> list[Site]:
        """The sites that were counted."""

    @property
    @abstractmethod
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics counted besides firing."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The raw counts, as in `Probe.state`."""

    @property
    @abstractmethod
    def declared(self) -> dict[str, str]:
        """What the model's configs call the activations of its sites, where they do."""

    @property
    def num_tokens(self) -> dict[str, int]:
        """Tokens seen by each site, padding left out."""
        return {name: int(counts[-2]) for name, counts in self._firing().items()}

    @property
    def num_nan(self) -> dict[str, int]:
        """NaN entries of each site's activation maps, padding left out; if there are any, doubt the other numbers."""
        return {name: int(counts[-1]) for name, counts in self._firing().items()}

    @property
    def num_active(self) -> dict[str, float]:
        """Mean number of active neurons per token at each site; nan where no token was seen."""
        return {name: _ratio(counts[:-2].sum(), counts[-2]) for name, counts in self._firing().items()}

    @property
    def density(self) -> dict[str, float]:
        """Nonzero fraction of each site's activation map, in [0, 1]; nan where no token was seen."""
        firing = self._firing()
        return {name: _ratio(counts[:-2].sum(), counts[-2] * (len(counts) - 2)) for name, counts in firing.items()}

    @property
    def firing_rate(self) -> dict[str, Tensor]:
        """Fraction of the tokens at which each neuron was active: float64 of shape [F] per site."""
        return {name: counts[:-2].double() / counts[-2] for name, counts in self._firing().items()}

    @property
    def never_fired(self) -> dict[str, int]:
        """Neurons of each site that none of its `num_tokens` tokens activated."""
        return {name: int((counts[:-2] == 0).sum()) for name, counts in self._firing().items()}

    @property
    def rarely_fired(self) -> dict[str, int]:
        """Neurons of each site active at less than 1 % of its tokens, those that never fired among them."""
        return {name: int((100 * counts[:-2] < counts[-2].clamp(1)).sum()) for name, counts in self._firing().items()}

    def hot_neurons(self, share: float = 0.9) -> dict[str, Tensor]:
        """The fewest neurons that make up `share` of all activity over the data: int64 indices, most active first.

        Activity is how often a neuron is active, summed over tokens. With 1 they are the neurons that ever fired.
        """
        return {name: hot_neurons(counts[:-2], share) for name, counts in self._firing().items()}

    def hot_overlap(self, share: float = 0.9) -> dict[str, float]:
        """Hot neurons of both halves of the data over those of either (Jaccard), per site; needs "halves".

        Every second sequence that a site sees (a row of its map with a real token, or a document of a packed row) is of
        the second half, in all calls that continue it. With `share` 1 the sets are the neurons that ever fired. nan
        where neither half has any.
        """
        found = {}
        for name, firing in self._firing().items():
            second_F = self._kept("halves")[name][:-1]
            hot = [set(hot_neurons(half_F, share).tolist()) for half_F in (firing[:-2] - second_F, second_F)]
            either = hot[0] | hot[1]
            found[name] = len(hot[0] & hot[1]) / len(either) if either else math.nan
        return found

    def histogram(self, statistic: str = "active") -> dict[str, Tensor]:
        """Number of tokens for each count from 0 to d_ff, int64 [F + 1] per site; needs that statistic.

        `statistic` is "active", "relative", "positive", "energy_90" or "energy_99".
        """
        if statistic not in HISTOGRAMS:
            raise ValueError(f"{statistic!r} has no histogram: choose from {', '.join(HISTOGRAMS)}")
        return self._kept(statistic)

    def quantile(self, q: float, statistic: str = "active") -> dict[str, int]:
        """The smallest count that at least a fraction `q` of the tokens do not exceed, per site: exact."""
        return {name: quantile(counts, q) for name, counts in self.histogram(statistic).items()}

    def share(self, statistic: str) -> dict[str, float]:
        """Mean count over tokens as a fraction of d_ff, per site; for "active" that is the density."""
        return {name: mean(counts) / (len(counts) - 1) for name, counts in self.histogram(statistic).items()}

    @property
    def density_by_position(self) -> dict[str, Tensor]:
        """Density at each position of the sequence, float64 [positions seen] per site; needs "position".

        A position is the number of real tokens before it in its sequence: padding on the left shifts none, a cache
        continues them, and each document of a packed row (`position_ids` that start again, `cu_seqlens`) begins at 0.
        The last of 4,096 holds all positions beyond. Tokens whose position is unknown (see `watch`) are left out, and
        those of models that flatten (batch, sequence) before their MLPs if they are called without an attention mask.
        """
        found = {}
        for site in self.sites:
            active, tokens = self._kept("position")[site.name].unbind(-1)
            length = int(tokens.nonzero().max()) + 1 if tokens.any() else 0
            found[site.name] = active[:length].double() / (tokens[:length] * site.d_ff)
        return found

    @property
    def overlap(self) -> dict[str, float]:
        """Neurons active at both of two neighbouring tokens, over those active at either (Jaccard); needs "overlap".

        Neighbours are of one sequence: a token and the one after it, also in the next call with the same cache, and
        never of two documents of a packed row.
        """
        return {name: _ratio(both, either) for name, (both, either) in self._kept("overlap").items()}

    @property
    def alarms(self) -> list[Alarm]:
        """The sites whose maps do not fit what the model's config declares, such as SiLU in place of ReLU²."""
        return alarms(self.sites, self.declared, self.density) if self.declared else []

    def _firing(self) -> dict[str, Tensor]:
        state = self.state()
        return {site.name: state[site.name] for site in self.sites}

    def _kept(self, statistic: str) -> dict[str, Tensor]:
        if statistic not in self.statistics:
            raise ValueError(f"{statistic!r} was not counted: watch(model, statistics=[{statistic!r}])")
        state = self.state()
        return {site.name: state[f"{site.name}/{statistic}"] for site in self.sites}

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
        notes += [f"note: {text}" for text in alarm_texts(self.alarms)]
        if broken := [f"{number} at {name or '(model)'}" for name, number in self.num_nan.items() if number]:
            notes.append(f"note: NaN entries, counted apart: {', '.join(broken)}")
        return Table(columns, rows, notes=notes)


def _ratio(part: Tensor, whole: Tensor) -> float:
    """Quotient of two counts; nan where the whole is 0."""
    return int(part) / int(whole) if int(whole) else math.nan
