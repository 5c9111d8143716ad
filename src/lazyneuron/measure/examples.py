"""`lazy.top_examples`: the tokens that wake each neuron most, with their surroundings, kept while a model runs."""

import types
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lazyneuron.kernels.values import NUM_BINS, bin_values
from lazyneuron.maps.attach import MapHooks
from lazyneuron.maps.tokens import Tokens
from lazyneuron.measure.following import sequence_numbers
from lazyneuron.sites import Site, SiteChoice

NO_TOKEN = -1
_FIELDS = ("values", "sequences", "positions", "windows", "histogram")
_FIRST_ROWS = 64


def top_examples(model: nn.Module, n: int = 8, sites: SiteChoice = "auto", *, context: int = 10) -> "TopExamples":
    """Keep, for every neuron, the `n` tokens at which it is most active while the returned context is open.

        with lazy.top_examples(model) as examples:
            for batch in batches:
                model(**batch)
        best = examples["model.layers.0.mlp"]
        best.values[7]   # [n], the largest entries of neuron 7, descending
        best.windows[7]  # [n, 2 * context + 1], the token ids around each; the token itself is in the middle

    An entry counts by its signed value, so for GELU and SiLU too the largest positive ones are kept; entries of 0 or
    less and NaN never are. Ties go to the token that came first, so the result does not depend on how the data are
    split into batches. Padding is left out. With a cache, sequences go on from call to call as in `watch`; what follows
    a token in a later call is not in its window. Open it beside `watch` to have both from the same calls:
    `with lazy.watch(model) as probe, lazy.top_examples(model) as examples`.

    A histogram of each neuron's values comes with them. `sites` is as in `watch`. Memory is that of the result, however
    many tokens pass: 8 * context + 16 bytes for each of sites x d_ff x n examples, and 128 for each neuron. ValueError
    for `n` below 1 or a negative `context`.
    """
    return TopExamples(model, n, sites, context)


@dataclass
class SiteExamples:
    """The n most activating tokens of each of a site's F neurons, the largest first.

    `values` is fp32 [F, n], 0 where there were fewer than n. `sequences` and `positions`, int32 [F, n], say which
    sequence of the data the token stands in, counted from 0 in the order in which they begin, and how many real tokens
    of it come before; -1 where there is no token or it is unknown. `windows`, int32 [F, n, 2 * context + 1], are the
    token ids around it: -1 beyond the sequence and at padding, and everywhere if the model takes no token ids. At
    experts, which get tokens in an order of their own, the sequence and the tokens around are unknown.
    `histogram`, int64 [F, 16], counts all entries by size, in the bins of `lazyneuron.kernels.values.EDGES`.
    """

    values: Tensor
    sequences: Tensor
    positions: Tensor
    windows: Tensor
    histogram: Tensor

    @classmethod
    def empty(cls, num_neurons: int, n: int, width: int, device: torch.device) -> "SiteExamples":
        """No example yet."""
        nowhere = torch.full((num_neurons, n), NO_TOKEN, dtype=torch.int32, device=device)
        windows = nowhere[..., None].repeat(1, 1, width)
        histogram = torch.zeros(num_neurons, NUM_BINS, dtype=torch.int64, device=device)
        return cls(torch.zeros(num_neurons, n, device=device), nowhere, nowhere.clone(), windows, histogram)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: getattr(self, name) for name in _FIELDS}


class TopExamples:
    """Examples by site name, readable during and after the `with`; reopening goes on. RuntimeError before any call."""

    def __init__(self, model: nn.Module, n: int, sites: SiteChoice, context: int) -> None:
        if n < 1 or context < 0:
            raise ValueError(f"top_examples needs n of 1 or more and context of 0 or more; got {n} and {context}")
        self.n, self.context = n, context
        self._hooks = MapHooks(model, sites, self._keep, has_places=True, warns=False)
        self._kept: dict[str, SiteExamples] = {}
        self._num_sequences: dict[str, Tensor] = {}

    @property
    def sites(self) -> list[Site]:
        """The sites whose examples are kept; RuntimeError before they are known."""
        return self._hooks.known_sites()

    def __getitem__(self, site: str) -> SiteExamples:
        d_ff = {known.name: known.d_ff for known in self.sites}
        return self._kept.get(site) or self._empty(d_ff[site], torch.device("cpu"))

    def state(self) -> dict[str, Tensor]:
        """Everything kept, as tensors named "site/values" and so on: for checkpoints and `load_state`."""
        found = {f"{s}/{name}": x for s, kept in self._kept.items() for name, x in kept.tensors().items()}
        return found | {f"{s}/num_sequences": number for s, number in self._num_sequences.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from an earlier `state()`."""
        names = [name.removesuffix("/values") for name in state if name.endswith("/values")]
        self._kept = {s: SiteExamples(*(state[f"{s}/{name}"].clone() for name in _FIELDS)) for s in names}
        self._num_sequences = {s: state[f"{s}/num_sequences"].clone() for s in names if f"{s}/num_sequences" in state}

    def __enter__(self) -> Self:
        self._hooks.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._hooks.close(is_error=error is not None)

    def _empty(self, d_ff: int, device: torch.device) -> SiteExamples:
        return SiteExamples.empty(d_ff, self.n, 2 * self.context + 1, device)

    def _keep(self, site: Site, h_BSF: Tensor, tokens: Tokens) -> None:
        kept, device = self._kept.get(site.name), h_BSF.device
        if kept is None or kept.values.device != device:  # a resumed run may have loaded it onto another one
            tensors = (self._empty(site.d_ff, device) if kept is None else kept).tensors().values()
            kept = self._kept[site.name] = SiteExamples(*(x.to(device) for x in tensors))
        place_BS, numbers_BS = self._places(site.name, h_BSF, tokens)
        h_TF, S = h_BSF.flatten(0, 1), h_BSF.shape[1]
        is_real_BS = tokens.is_real_BS
        is_real_T = h_TF.new_ones(len(h_TF), dtype=torch.bool) if is_real_BS is None else is_real_BS.flatten()
        kept.histogram += bin_values(h_TF, is_real_T)
        ids_BW, numbers_BW = self._surroundings(site.name, numbers_BS, tokens)
        start, size = 0, _FIRST_ROWS
        while start < len(h_TF):  # the more rows are seen, the fewer of the next are better: so few are ever sorted
            rows = h_TF[start : start + size]
            is_better = (rows > kept.values[:, -1]) & is_real_T[start : start + size, None]
            t, f = is_better.nonzero(as_tuple=True)
            if len(t):
                at = t + start
                b, around = at // S, (at % S)[:, None] + torch.arange(2 * self.context + 1, device=device)
                is_own = numbers_BW[b].gather(1, around) == numbers_BS[b, at % S, None]
                windows = torch.where(is_own, ids_BW[b].gather(1, around), NO_TOKEN)
                sequences = numbers_BS.flatten()[at] if tokens.has_rows else torch.full_like(at, NO_TOKEN)
                new = rows[t, f].float(), sequences.int(), place_BS.flatten()[at].int(), windows
                _merge(kept, f, new)
            start, size = start + size, 2 * size

    def _places(self, site: str, h_BSF: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Each token's position in its sequence and the number of the sequence, both [B, S]."""
        before = self._num_sequences.get(site, torch.zeros((), dtype=torch.int64)).to(h_BSF.device)
        numbers_BS, num_began = sequence_numbers(site, h_BSF.shape[:2], tokens, before)
        if tokens.has_rows:
            self._num_sequences[site] = before + num_began
        place_S = torch.arange(h_BSF.shape[1], device=h_BSF.device)
        return place_S.expand_as(numbers_BS) if tokens.position_BS is None else tokens.position_BS, numbers_BS

    def _surroundings(self, site: str, numbers_BS: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Token ids and numbers of sequences, [B, context + S + context], of what is around a call's tokens.

        Before them stand the last tokens of an earlier call that the rows continue; -1 where there is no token.
        """
        B, S = numbers_BS.shape
        on = {"dtype": torch.int32, "device": numbers_BS.device}
        ids_BS = torch.full((B, S), NO_TOKEN, **on) if tokens.ids_BS is None else tokens.ids_BS.int()
        if tokens.is_real_BS is not None:
            ids_BS = ids_BS.masked_fill(~tokens.is_real_BS, NO_TOKEN)
        past_BC = torch.full((B, self.context), NO_TOKEN, **on)
        if tokens.is_continued_B is not None and f"{site}/ids" in tokens.past:
            earlier_BC = tokens.past[f"{site}/ids"].to(past_BC.device)
            past_BC = torch.where(tokens.is_continued_B[:, None], earlier_BC, past_BC)
        ids_BW = pad(torch.cat([past_BC, ids_BS], 1), (0, self.context), value=NO_TOKEN)
        if tokens.kept is not None:
            tokens.kept[f"{site}/ids"] = ids_BW[:, S : S + self.context]
        numbers_BW = torch.cat([numbers_BS[:, :1].expand(B, self.context), numbers_BS], 1)
        return ids_BW, pad(numbers_BW, (0, self.context), value=NO_TOKEN)


def _merge(kept: SiteExamples, f: Tensor, new: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Put new examples of the neurons `f` in their places among the kept ones, which win ties as they came first."""
    n = kept.values.shape[1]
    touched, f = f.unique(return_inverse=True)
    places = (kept.values, kept.sequences, kept.positions, kept.windows)
    old = [x[touched].flatten(0, 1) for x in places]
    neurons = torch.cat([torch.arange(len(touched), device=f.device).repeat_interleave(n), f])
    entries = [torch.cat([a, b]) for a, b in zip(old, new, strict=True)]
    order = entries[0].sort(descending=True, stable=True).indices
    order = order[neurons[order].sort(stable=True).indices]  # by neuron, then the largest first, then the earliest
    per_neuron = neurons.bincount(minlength=len(touched))
    first = (per_neuron.cumsum(0) - per_neuron)[:, None] + torch.arange(n, device=f.device)
    for place, entry in zip(places, entries, strict=True):
        place[touched] = entry[order[first]]
