"""Keep the activation maps themselves: `lazy.capture(model)`."""

import difflib
import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from lazyneuron.maps.attach import MapHooks
from lazyneuron.maps.tokens import Tokens
from lazyneuron.sites import Site, SiteChoice


def capture(
    model: nn.Module, sites: SiteChoice = "auto", *, max_tokens: int = 4096, sparse: bool = False
) -> "CapturedMaps":
    """Keep the activation maps that `model` computes while the returned context is open.

        with lazy.capture(model, max_tokens=4096) as maps:
            model(**batch)
        maps["model.layers.0.mlp"]  # tensor [T, F]: T tokens, F = d_ff neurons

    A map is the input of the MLP's down projection, in the dtype that the model computes it in and on the CPU. Maps
    hold real tokens only, in the order in which the MLP processed them: padding is left out according to the attention
    mask, and so is the second forward pass of gradient checkpointing. In a mixture of experts a row is a token at an
    expert. In training mode a map is taken from before the `nn.Dropout` in front of the down projection, and of a model
    that `enforce` made sparse it holds what was selected.

    `sites` is as in `watch`: "auto", a regular expression, or a list of `Site`. Outputs, gradients and random state
    stay the same to the bit (`watch` lists the two exceptions), and closing removes every hook.

    Memory is bounded: each site keeps its first `max_tokens` tokens, so at most max_tokens * d_ff entries; `num_tokens`
    counts them all. With `sparse` a map is a `torch.sparse_csr` tensor of the nonzero values and their indices:
    12 bytes per active neuron in float32, so less than a dense map below a density of one third. That layout needs no
    type of ours: it has `values()`, `col_indices()` (the neurons) and `crow_indices()` (where each token begins), turns
    into a dense map by `to_dense()`, multiplies by `@` in float32, is saved by `torch.save` and read by SciPy.

    ValueError for `max_tokens` below 1; for `sites`, the errors of `find_sites`.
    """
    return CapturedMaps(model, sites, max_tokens, sparse)


class CapturedMaps(Mapping[str, Tensor]):
    """Activation maps by site name, in order of execution; readable during and after the `with`.

    RuntimeError before the model was called inside the `with`; KeyError for an unknown site. A site that no token
    reached has an empty map [0, F]. Reopening continues capturing.
    """

    def __init__(self, model: nn.Module, sites: SiteChoice, max_tokens: int, sparse: bool) -> None:
        if max_tokens < 1:
            raise ValueError(f"capture needs max_tokens of 1 or more; got {max_tokens}")
        self._hooks = MapHooks(model, sites, self._keep)
        self._max_tokens, self._sparse = max_tokens, sparse
        self._parts: dict[str, list[tuple[Tensor, ...]]] = {}  # maps; if sparse values, neurons, and counts per token
        self._num_tokens: dict[str, int] = {}

    @property
    def sites(self) -> list[Site]:
        """The sites whose maps are captured; RuntimeError before they are known."""
        return self._hooks.known_sites()

    @property
    def num_tokens(self) -> dict[str, int]:
        """Tokens that reached each site, padding left out, including those beyond `max_tokens`."""
        return {site.name: self._num_tokens.get(site.name, 0) for site in self.sites}

    def __getitem__(self, site: str) -> Tensor:
        d_ff = {known.name: known.d_ff for known in self.sites}
        if site not in d_ff:
            near = ", ".join(map(repr, difflib.get_close_matches(site, d_ff, 3) or list(d_ff)[:3]))
            raise KeyError(f"no site {site!r}; among the {len(d_ff)} captured are {near}")
        if not self._num_tokens:
            raise RuntimeError("nothing was captured: call the model inside `with capture(model) as maps`")
        parts = self._parts.get(site) or [self._part(torch.empty(0, d_ff[site]))]
        joined = tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))
        self._parts[site] = [joined]
        return _csr(joined, d_ff[site]) if self._sparse else joined[0]

    def __iter__(self) -> Iterator[str]:
        return (site.name for site in self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __enter__(self) -> Self:
        self._hooks.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._hooks.close(is_error=error is not None)

    def _keep(self, site: Site, h_BSF: Tensor, tokens: Tokens) -> None:
        seen = self._num_tokens.get(site.name, 0)
        num_new = h_BSF[..., 0].numel() if tokens.is_real_BS is None else int(tokens.is_real_BS.sum())
        self._num_tokens[site.name] = seen + num_new
        if num_new and seen < self._max_tokens:
            h_TF = tokens.select(h_BSF)
            self._parts.setdefault(site.name, []).append(self._part(h_TF[: self._max_tokens - seen]))

    def _part(self, h_TF: Tensor) -> tuple[Tensor, ...]:
        if not self._sparse:
            return (h_TF.to("cpu", copy=True),)
        tokens, neurons = h_TF.nonzero(as_tuple=True)
        return h_TF[tokens, neurons].cpu(), neurons.cpu(), tokens.bincount(minlength=len(h_TF)).cpu()


def _csr(part: tuple[Tensor, ...], d_ff: int) -> Tensor:
    values, neurons, num_active_T = part
    begins = torch.cat([num_active_T.new_zeros(1), num_active_T.cumsum(0)])
    with warnings.catch_warnings(action="ignore"):  # torch: that CSR is in beta
        return torch.sparse_csr_tensor(begins, neurons, values, (len(num_active_T), d_ff), check_invariants=True)
