"""What skipping inactive neurons does to the down projections of trained models, and what it costs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lazyneuron.kernels.skip import sparse_down
from lazyneuron.maps import capture
from lazyneuron.measure import watch
from lazyneuron.paper.estimate import step_seconds
from lazyneuron.paper.study import Parts, Study, Trained
from lazyneuron.records.record import Record
from lazyneuron.sites import Site, numbered

_TOKENS = 64


def rounding_bound(h_TF: Tensor, rows_FD: Tensor) -> Tensor:
    """The largest error [T, D] of h @ rows in float32, whatever the order of summation: n u / (1 - n u) |h| @ |rows|.

    n is how many entries of a token are nonzero, u float32's unit roundoff.
    """
    nu = (h_TF != 0).sum(-1, keepdim=True) * torch.finfo(torch.float32).eps / 2
    return nu / (1 - nu) * (h_TF.double().abs() @ rows_FD.double().abs())


def share_of_bound(y_TD: Tensor, h_TF: Tensor, rows_FD: Tensor) -> float:
    """The largest error of y = h @ rows over its rounding bound; infinite if anything is NaN."""
    error = (y_TD.double() - h_TF.double() @ rows_FD.double()).abs()
    share = torch.where(error == 0, 0, error / rounding_bound(h_TF, rows_FD))
    return share.masked_fill(share.isnan(), torch.inf).max().item()


@dataclass(frozen=True, kw_only=True)
class Skipping(Study):
    """What the down projections of trained models give when inactive neurons are skipped, and the FLOPs of that.

    Per site, over the first 64 tokens of each of `num_batches` held-out batches, with the training as `case`.
    "skip_error": the error in float32 against float64, over the largest that rounding can make of the sum of that many
    products in any order (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
    "skip_flops_share": FLOPs of the rows that the kernel read, one token at a time, over the dense ones; "density" as
    counted by `watch` on the same tokens.
    """

    num_batches: int
    on_cpu: ClassVar[bool] = True

    def seconds(self) -> float:
        return sum(self.num_batches * step_seconds(run) for run in self.of)

    @torch.no_grad()
    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        for number, trained in enumerate(models, 1):
            found = []
            maps = _maps(trained, self.num_batches)
            for stack, layer, site in numbered(trained.sites):
                weight = trained.model.get_parameter(site.down)
                here = {"case": trained.run.name, "site": site.name, "stack": stack, "layer": layer, **place}
                h = maps[site.name]
                here["num_tokens"] = len(h)
                rows = (weight if weight.shape[0] == site.d_ff else weight.T).contiguous()
                parts = [sparse_down(token[None], rows) for token in h]
                skipped = torch.cat([y for y, _ in parts])
                error = share_of_bound(skipped, h, rows)
                found.append(Record(what="skip_error", value=error, unit="of the bound", **here))
                share = sum(int(reads[0]) for _, reads in parts) / (len(h) * site.d_ff)
                found.append(Record(what="skip_flops_share", value=share, unit="fraction", **here))
                density = _watched_density(h, rows, site)
                found.append(Record(what="density", value=density, unit="fraction", **here))
            yield number, len(models), found


def _maps(trained: Trained, num_batches: int) -> dict[str, Tensor]:
    """Activation maps [T, F] of each site."""
    kept: dict[str, list[Tensor]] = {site.name: [] for site in trained.sites}
    for number in range(num_batches):
        with capture(trained.model, trained.sites, max_tokens=_TOKENS) as maps:
            trained.run_batch(trained.batches.probe("eval", number))
        for name, h_TF in maps.items():
            kept[name].append(h_TF.float())
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _watched_density(h_TF: Tensor, rows_FD: Tensor, site: Site) -> float:
    """The density of these maps as `watch` counts it, in an MLP whose pre-activations they are."""
    up, down = nn.Linear(site.d_ff, site.d_ff, bias=False), nn.Linear(site.d_ff, rows_FD.shape[1], bias=False)
    up.weight.data, down.weight.data = torch.eye(site.d_ff), rows_FD.T
    model = nn.Sequential(up, nn.ReLU(), down)
    with watch(model) as probe:
        model(h_TF)
    return next(iter(probe.density.values()))
