"""`lazy.watch`: count which neurons fire while a model runs, exactly and without changing the model."""

import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lazyneuron.errors import UsageError
from lazyneuron.kernels.count import count
from lazyneuron.maps.attach import MapHooks
from lazyneuron.maps.tokens import Tokens
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

    `sites` is "auto", a regular expression that matches the names of the MLPs to watch, or a list of `Site`. Unless it
    is a list, the first call of `model` inside the context finds the sites, by one more forward pass on a copy of its
    inputs (see `find_sites`). Outputs, gradients and random state stay the same to the bit, with two exceptions, in
    which PyTorch itself runs other code beside hooks: `nn.TransformerEncoderLayer` leaves its fused inference path, and
    compiled models are recompiled, with a graph break at each site, on entering and again on leaving.

    Every token that an MLP processes counts once, also under gradient checkpointing. Padding does not count; it is read
    from the `attention_mask` (and `decoder_attention_mask`) that `model` is called with. In training mode a map is
    taken from before the `nn.Dropout` in front of the down projection; neurons that a functional dropout zeroes there
    count as inactive.

    How often each neuron fires is always counted. `statistics` adds, from cheap to expensive: "active" (histogram of
    active neurons per token), "position" (density by position in the sequence), "overlap" (neurons that neighbouring
    tokens share), "relative" (entries of at least 1 % of the token's largest), "positive" (entries above zero: about
    what a ReLU would keep in place of a GELU), "energy_90" and "energy_99" (fewest neurons that hold that share of a
    token's energy); "all" is all of these. They are exact integer counts of size O(d_ff) on the model's device.

    In a model with a selection in force (`enforce`), `before_selection` counts the maps as they are before the
    selection (in eval mode, at down projections that are modules): the model's own sparsity beside what is kept.
    """
    return Probe(model, sites, statistics, before_selection=before_selection)


class Probe:
    """Counts per site: open it by `with`, or `attach` and `detach`; read it at any time. Reopening continues counting.

    Active means strictly nonzero; NaN entries are counted apart (`num_nan`) and are not active. Reading synchronises
    with the device, counting never does. With `needs_grad`, calls of the model without gradients are not counted.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: SiteChoice = "auto",
        statistics: Iterable[str] = (),
        *,
        before_selection: bool = False,
        needs_grad: bool = False,
    ) -> None:
        names = [*STATISTICS] if statistics == "all" else list(dict.fromkeys(statistics))
        if unknown := [name for name in names if name not in STATISTICS]:
            raise ValueError(f"no statistic {unknown[0]!r}: choose from {', '.join(STATISTICS)}")
        self._hooks = MapHooks(model, sites, self._count, is_first=before_selection, needs_grad=needs_grad)
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

        Positions count from 0 and include padding; the last of 4,096 holds all positions beyond. In a model that
        flattens (batch, sequence) before its MLPs they are known only with an attention mask.
        """
        found = {}
        for site in self.sites:
            active, tokens = self._kept("position")[site.name].unbind(-1)
            length = int(tokens.nonzero().max()) + 1 if tokens.any() else 0
            found[site.name] = active[:length].double() / (tokens[:length] * site.d_ff)
        return found

    @property
    def overlap(self) -> dict[str, float]:
        """Neurons active at both of two neighbouring tokens, over those active at either (Jaccard); needs "overlap"."""
        return {name: _ratio(both, either) for name, (both, either) in self._kept("overlap").items()}

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
        with torch.inference_mode(False):  # counts made in inference mode could not be added to outside it
            for site in self.sites:
                self._on_device(site.name, (site.d_ff + 2,), device, move=False)
                for statistic in self._statistics:
                    self._on_device(f"{site.name}/{statistic.name}", statistic.shape(site.d_ff), device, move=False)
        return self._counts

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the counts by those of an earlier `state()` with the same sites and statistics."""
        wanted = {name: counts.shape for name, counts in self.state().items()}
        if wanted != {name: counts.shape for name, counts in state.items()}:
            raise ValueError("the state has other sites or statistics than this probe")
        for name, counts in self._counts.items():
            counts.copy_(state[name])

    def all_reduce(self) -> None:
        """Give every rank's probe the counts of all ranks together: call it once on each, after the last batch.

        Without a `torch.distributed` process group of several ranks it does nothing. UsageError if ranks know different
        sites or statistics.
        """
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return
        # By name: ranks find sites in different orders where experts run in different orders.
        state = dict(sorted(self.state().items()))
        shapes: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(shapes, [(name, tuple(counts.shape)) for name, counts in state.items()])
        if any(other != shapes[0] for other in shapes):
            raise UsageError("the ranks hold different sites, so their counts cannot be added: give all the same sites")
        device = next((counts.device for counts in state.values() if counts.device.type != "cpu"), torch.device("cpu"))
        if device.type == "cpu" and dist.get_backend() == "nccl":
            device = torch.device("cuda", torch.cuda.current_device())
        flat = torch.cat([counts.flatten().to(device) for counts in state.values()])
        dist.all_reduce(flat)
        for counts, total in zip(state.values(), flat.split([c.numel() for c in state.values()]), strict=True):
            counts.copy_(total.view_as(counts))

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
        """Count until `detach`, as `with` does."""
        self._hooks.open()
        return self

    def detach(self) -> None:
        """Remove every hook and keep the counts; harmless if there are no hooks."""
        self._hooks.close()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._hooks.close(is_error=error is not None)

    def _count(self, site: Site, h_BSF: Tensor, tokens: Tokens) -> None:
        found = count(h_BSF, tokens.is_real_BS, **self._needs)
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


def _ratio(part: Tensor, whole: Tensor) -> float:
    """Quotient of two counts; nan where the whole is 0."""
    return int(part) / int(whole) if int(whole) else math.nan
