"""`lazy.watch`: count which neurons fire while a model runs, exactly and without changing the model."""

import types
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lazyneuron.errors import UsageError
from lazyneuron.kernels.count import count
from lazyneuron.maps.attach import MapHooks
from lazyneuron.maps.tokens import Tokens
from lazyneuron.measure.alarm import alarm_texts
from lazyneuron.measure.following import across_calls, sequence_numbers
from lazyneuron.measure.readings import Readings
from lazyneuron.measure.statistics import STATISTICS, Seen
from lazyneuron.sites import Site, SiteChoice, declared_activations, unwrap

if TYPE_CHECKING:
    import altair

    from lazyneuron.measure.frames import Per


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
    from the `attention_mask` (and `decoder_attention_mask`) that `model` is called with. Nor does what a row is fed
    after its end: in transformers' `generate` its own list of finished rows decides; in other calls that continue a
    cache, `pad_token_id` and further `eos_token_id` tokens of the model's configuration are padding after an end token.
    The end token itself counts once it is fed, a rejected guess of speculative decoding counts as well, and without a
    cache each step counts all tokens that it processes again. In training mode a map is taken from before the
    `nn.Dropout` in front of the down projection; neurons that a functional dropout zeroes there count as inactive.

    Calls that continue a cache give the counts of one pass over the finished sequences, in every statistic. A cache
    that something other than the model changed since its last call (a beam search that reorders rows, cropping, a copy)
    keeps its positions, from the attention mask or its length, but its next tokens have no neighbour before them and
    are new sequences to "halves". Of a cache without a length (a tuple, a recurrent state) positions are then unknown
    and left out. So are neighbours in two calls of continuous batching (`generate_batch`).

    Under tensor parallelism every rank gathers the map and counts all neurons, so all ranks must watch.

    How often each neuron fires is always counted. `statistics` adds, from cheap to expensive: "active" (histogram of
    active neurons per token), "position" (density by position in the sequence), "overlap" (neurons that neighbouring
    tokens share), "relative" (entries of at least 1 % of the token's largest), "positive" (entries above zero: about
    what a ReLU would keep in place of a GELU), "halves" (how often each neuron fires in every second sequence: see
    `Probe.hot_overlap`), "energy_90" and "energy_99" (fewest neurons that hold that share of a token's energy); "all"
    is all of these. They are exact integer counts of size O(d_ff) on the model's device.

    In a model with a selection in force (`enforce`), `before_selection` counts the maps as they are before the
    selection (in eval mode, at down projections that are modules): the model's own sparsity beside what is kept.
    """
    return Probe(model, sites, statistics, before_selection=before_selection)


class Probe(Readings):
    """Counts per site: open it by `with`, or `attach` and `detach`; read it at any time. Reopening continues counting.

    Active means strictly nonzero; NaN entries are counted apart (`num_nan`) and are not active. Reading synchronises
    with the device, counting never does. Closing warns of `alarms`, for which it reads the densities of models whose
    config names an activation. With `needs_grad`, calls of the model without gradients are not counted.
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
        self._statistics = [STATISTICS[name] for name in names]
        has_places = any(statistic.has_places for statistic in self._statistics)
        options = {"is_first": before_selection, "needs_grad": needs_grad, "has_places": has_places}
        self._hooks = MapHooks(model, sites, self._count, **options)
        needs = {statistic.needs for statistic in self._statistics}
        self._needs = {need: need in needs for need in ("relative", "energy", "shared")}
        self._has_halves = "halves" in names
        self._model = unwrap(model)
        self._counts: dict[str, Tensor] = {}
        self._has_warned = False

    @property
    def sites(self) -> list[Site]:
        """The watched sites; RuntimeError before they are known."""
        return self._hooks.known_sites()

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics counted besides firing."""
        return tuple(statistic.name for statistic in self._statistics)

    @property
    def declared(self) -> dict[str, str]:
        """What the model's configs call the activations of its sites ("relu2"), where they do."""
        return declared_activations(self._model, self.sites)

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

        Ranks that share a model's neurons (tensor parallelism) hold the same counts already, which are added once.
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
        if self._hooks.is_copy:
            flat.zero_()
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

    def to_frame(self, per: "Per" = "site", *, backend: str | None = None) -> Any:
        """The numbers as a data frame of polars or pandas, whichever is installed; `backend` names it.

        Per "site": stack, layer, site, activation, width and every number of the records (density, num_active,
        never_fired, hot_90, ...), null at sites that no token reached. Per "neuron": stack, layer, site, neuron and
        firing_rate. Write it by the frame's own means, such as `to_frame().write_parquet("counts.parquet")`.
        UsageError where neither is installed.
        """
        from lazyneuron.measure.frames import probe_frame

        return probe_frame(self, per, backend)

    def plot(self) -> "altair.Chart":
        """The density by layer, one line per stack, as an Altair chart; UsageError where Altair is not installed."""
        from lazyneuron.measure.frames import probe_chart

        return probe_chart(self)

    def _repr_html_(self) -> str | None:
        return self.table()._repr_html_() if self._hooks.sites is not None else None

    def attach(self) -> Self:
        """Count until `detach`, as `with` does."""
        self._hooks.open()
        return self

    def detach(self) -> None:
        """Remove every hook and keep the counts; harmless if there are no hooks."""
        self._hooks.close()
        self._warn()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._hooks.close(is_error=error is not None)
        if error is None:
            self._warn()

    def _warn(self) -> None:
        if not self._has_warned and self._hooks.sites and (texts := alarm_texts(self.alarms)):
            self._has_warned = True
            warnings.warn("; ".join(texts), stacklevel=3)

    def _count(self, site: Site, h_BSF: Tensor, tokens: Tokens) -> None:
        is_second_BS = num_sequences = None
        if self._has_halves:
            num_before = self._on_device(f"{site.name}/halves", (site.d_ff + 1,), h_BSF.device)[-1]
            number_BS, num_sequences = sequence_numbers(site.name, h_BSF.shape[:2], tokens, num_before)
            is_second_BS = number_BS % 2 == 1
        found = count(h_BSF, tokens.is_real_BS, tokens.is_pair_BS, is_second_BS, **self._needs)
        firing = self._on_device(site.name, (site.d_ff + 2,), h_BSF.device)
        firing[:-2] += found.firing_HF.sum(0)
        firing[-2:] += torch.stack([found.is_real_BS.sum(), found.tokens["nan"].sum()])
        across = across_calls(site.name, h_BSF, tokens) if self._needs["shared"] else None
        seen = Seen(found, tokens, num_sequences, across)
        for statistic in self._statistics:
            kept = self._on_device(f"{site.name}/{statistic.name}", statistic.shape(site.d_ff), h_BSF.device)
            statistic.add(kept, seen)

    def _on_device(self, name: str, shape: tuple[int, ...], device: torch.device, move: bool = True) -> Tensor:
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = torch.zeros(shape, dtype=torch.int64, device=device)
        elif move and counts.device != device:
            counts = self._counts[name] = counts.to(device)
        return counts
