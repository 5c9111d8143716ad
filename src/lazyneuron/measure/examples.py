"""`lazy.top_examples`: the tokens that wake each neuron most, with their surroundings, kept while a model runs."""

import types
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from lazyneuron.kernels.values import NUM_BINS, bin_values
from lazyneuron.maps.attach import MapHooks
from lazyneuron.maps.tokens import Tokens
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
    split into batches. Padding is left out. Open it beside `watch` to have both from the same calls:
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
    sequence of the data the token stands in, counted from 0 in the order of the calls, and where; both are -1 where
    there is no token. `windows`, int32 [F, n, 2 * context + 1], are the token ids around it: -1 before the beginning,
    after the end and at padding, and everywhere if the model takes no token ids or permutes its tokens (experts).
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
        self._hooks = MapHooks(model, sites, self._keep, warns=False)
        self._kept: dict[str, SiteExamples] = {}
        self._num_sequences: dict[str, int] = {}

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
        return found | {f"{s}/num_sequences": torch.tensor(number) for s, number in self._num_sequences.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from an earlier `state()`."""
        names = [name.removesuffix("/values") for name in state if name.endswith("/values")]
        self._kept = {s: SiteExamples(*(state[f"{s}/{name}"].clone() for name in _FIELDS)) for s in names}
        self._num_sequences = {s: int(state[f"{s}/num_sequences"]) for s in names}

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
        kept = self._kept.get(site.name)
        if kept is None:
            kept = self._kept[site.name] = self._empty(site.d_ff, h_BSF.device)
        num_before = self._num_sequences.get(site.name, 0)
        self._num_sequences[site.name] = num_before + len(h_BSF)
        h_TF, S = h_BSF.flatten(0, 1), h_BSF.shape[1]
        is_real_BS = tokens.is_real_BS
        is_real_T = h_TF.new_ones(len(h_TF), dtype=torch.bool) if is_real_BS is None else is_real_BS.flatten()
        kept.histogram += bin_values(h_TF, is_real_T)
        ids_BW = self._padded_ids(tokens, h_BSF)
        start, size = 0, _FIRST_ROWS
        while start < len(h_TF):  # the more rows are seen, the fewer of the next are better: so few are ever sorted
            rows = h_TF[start : start + size]
            is_better = (rows > kept.values[:, -1]) & is_real_T[start : start + size, None]
            t, f = is_better.nonzero(as_tuple=True)
            if len(t):
                at = t + start
                windows = ids_BW[at // S].gather(1, (at % S)[:, None] + self._offsets(h_BSF.device))
                new = rows[t, f].float(), (at // S + num_before).int(), (at % S).int(), windows
                _merge(kept, f, new)
            start, size = start + size, 2 * size

    def _offsets(self, device: torch.device) -> Tensor:
        return torch.arange(2 * self.context + 1, device=device)[None]

    def _padded_ids(self, tokens: Tokens, h_BSF: Tensor) -> Tensor:
        """Token ids [B, context + S + context], int32, with -1 where there is no token."""
        B, S, _ = h_BSF.shape
        ids = torch.full((B, S + 2 * self.context), NO_TOKEN, dtype=torch.int32, device=h_BSF.device)
        if tokens.ids_BS is not None:
            own = tokens.ids_BS.int()
            own = own if tokens.is_real_BS is None else own.masked_fill(~tokens.is_real_BS, NO_TOKEN)
            ids[:, self.context : self.context + S] = own
        return ids


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
