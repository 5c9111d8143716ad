"""How far an MLP's map follows its input: what differs between examples, and what all inputs have in common."""

import types
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn
from torch.utils.hooks import RemovableHandle

from lazyneuron.maps.attach import MapHooks, eager
from lazyneuron.maps.owners import Layout
from lazyneuron.maps.tokens import Tokens
from lazyneuron.sites import Site
from lazyneuron.training.sharding import num_processes


class InputShares:
    """Two shares of each site, summed over the batches that the model sees while this is open; without padding.

    `input_share` is the part of the variance of which neurons fire that the position in the sequence does not explain:
    1 where the position says nothing, 0 where all examples have the same map, so that the layer is blind to its input.
    `mean_share` is |mean of x|^2 over the mean of |x|^2, with x the input of the up projection at each token: 1 where
    all inputs are one, 0 where they have no common mean, so that a ReLU without a bias fires at half of the tokens.
    Both know a finite number of examples: of B, a share of 1 is measured as about 1 - 1 / B. Memory is O(S * F) for S
    positions and F neurons.
    """

    def __init__(self, model: nn.Module, sites: list[Site]) -> None:
        self._model, self._sites = model, sites
        self._maps = MapHooks(model, sites, self._count)
        self._handles: list[RemovableHandle] = []
        self._fired: dict[str, Tensor] = {}  # int32 [S, F + 1]: examples that fired, and then all examples
        self._inputs: dict[str, Tensor] = {}  # float64 [D + 2]: sum of x, sum of |x|^2, and the tokens

    @property
    def input_share(self) -> dict[str, float]:
        """By site; 0 where no neuron ever changes."""
        shares = {}
        for name, counts in self._fired.items():
            fired_SF, num_S1 = counts.double().split([counts.shape[1] - 1, 1], dim=1)
            fired_F, num = fired_SF.sum(0), num_S1.sum()
            within = (fired_SF * (1 - fired_SF / num_S1.clamp(1))).sum()
            total = (fired_F * (1 - fired_F / num)).sum()
            shares[name] = (within / total).item() if total > 0 else 0.0
        return shares

    @property
    def mean_share(self) -> dict[str, float]:
        """By site; 0 where every input is 0."""
        shares = {}
        for name, sums in self._inputs.items():
            mean_D, square = sums[:-2] / sums[-1], sums[-2] / sums[-1]
            shares[name] = (mean_D.square().sum() / square).item() if square > 0 else 0.0
        return shares

    def all_reduce(self) -> None:
        """Give every process of torch.distributed the sums of all."""
        if (count := num_processes()) == 1:
            return
        lengths: list[Any] = [None] * count
        distributed.all_gather_object(lengths, {name: len(counts) for name, counts in self._fired.items()})
        device = next(self._model.parameters()).device
        for site in self._sites:
            longest = max(found.get(site.name, 0) for found in lengths)
            distributed.all_reduce(self._counts(site, longest, device))
            distributed.all_reduce(self._sums(site, device))

    def __enter__(self) -> Self:
        self._maps.open()
        layout = Layout(self._model)
        for site in self._sites:
            for owner in layout.owners(site.up)[0]:
                self._handles.append(owner.register_forward_pre_hook(eager(self._at_up(site))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._maps.close(is_error=error is not None)

    def _at_up(self, site: Site) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach()
            x_TD = (x if site.axis == -1 else x.movedim(site.axis, -1)).flatten(0, -2)
            sums = self._sums(site, x_TD.device)
            sums[:-2] += x_TD.sum(0, dtype=torch.float64)
            sums[-2] += x_TD.double().square().sum()
            sums[-1] += len(x_TD)

        return hook

    def _count(self, site: Site, h_BSF: Tensor, tokens: Tokens) -> None:
        B, S, _ = h_BSF.shape
        counts = self._counts(site, S, h_BSF.device)
        # On a CPU three times as fast as a sum of booleans; float32 holds every number of examples of a batch.
        counts[:S, :-1] += h_BSF.sign().abs_().sum(0, dtype=torch.float32).int()
        counts[:S, -1] += B

    def _counts(self, site: Site, length: int, device: torch.device) -> Tensor:
        kept = self._fired.get(site.name)
        if kept is None or len(kept) < length:
            longer = torch.zeros(length, site.d_ff + 1, dtype=torch.int32, device=device)
            if kept is not None:
                longer[: len(kept)] = kept
            kept = self._fired[site.name] = longer
        return kept

    def _sums(self, site: Site, device: torch.device) -> Tensor:
        if site.name not in self._inputs:
            self._inputs[site.name] = torch.zeros(site.d_model + 2, dtype=torch.float64, device=device)
        return self._inputs[site.name]
