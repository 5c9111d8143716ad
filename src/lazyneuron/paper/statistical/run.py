"""What statistical top-k keeps, and how long it takes (arXiv 2506.06644, equation 5)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lazyneuron.kernels.topk import statistical_topk, topk
from lazyneuron.maps.owners import Layout
from lazyneuron.paper.study import Parts, Study, Trained
from lazyneuron.records.record import Record
from lazyneuron.sites import numbered

_REPEATS = 9
_BATCHES = 8


@dataclass(frozen=True, kw_only=True)
class Statistical(Study):
    """What statistical top-k keeps of Gaussian input and of real pre-activations of trained models, and in what time.

    Per width, density and site: "kept_ratio", neurons kept over those asked for. `x` is the density asked for, `case`
    "gaussian" or the training. "kept_deviation" is its standard deviation over tokens; "kept_overlap" the neurons that
    it and exact top-k on the ReLU of the same pre-activations both keep, over those that either keeps.
    "statistical_ms" and "topk_ms" are the medians of calls on `num_rows` rows of the width `x`, in one thread.
    """

    densities: tuple[float, ...]
    widths: tuple[int, ...]
    num_rows: int
    is_timed: ClassVar[bool] = True

    def seconds(self) -> float:
        return 10.0 + self.num_rows * sum(self.widths) * 1e-7

    @torch.no_grad()
    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        generator = torch.Generator().manual_seed(place["seed"])
        found = []
        for width in self.widths:
            u = torch.randn(self.num_rows, width, generator=generator)
            here = {"x": float(width), "num_tokens": self.num_rows, **place}
            density = self.densities[-1]
            k = max(1, round(density * width))
            calls = {"statistical_ms": partial(statistical_topk, u, density), "topk_ms": partial(topk, u.relu(), k)}
            for what, call in calls.items():
                found.append(Record(what=what, value=_median_ms(call), unit="ms", **here))
        u = torch.randn(self.num_rows, self.widths[0], generator=generator)
        for density in self.densities:
            found += _records(u, density, {"case": "gaussian", **place})
        yield 1, len(models) + 1, found
        for number, trained in enumerate(models, 2):
            found, entering = [], _entering(trained)
            for stack, layer, site in numbered(trained.sites):
                here = {"case": trained.run.name, "site": site.name, "stack": stack, "layer": layer, **place}
                for density in self.densities:
                    found += _records(entering[site.name], density, here)
            yield number, len(models) + 1, found


def _records(u_TF: Tensor, density: float, place: dict[str, Any]) -> Iterator[Record]:
    width = u_TF.shape[-1]
    kept_TF = statistical_topk(u_TF, density) > 0
    ratio_T = kept_TF.double().sum(-1) / (density * width)
    exact_TF = topk(u_TF.relu(), max(1, round(density * width))) > 0
    here = {"x": density, "num_tokens": len(u_TF), **place}
    yield Record(what="kept_ratio", value=ratio_T.mean().item(), unit="of k", **here)
    yield Record(what="kept_deviation", value=ratio_T.std().item(), unit="of k", **here)
    overlap = (kept_TF & exact_TF).sum() / (kept_TF | exact_TF).sum().clamp_min(1)
    yield Record(what="kept_overlap", value=overlap.item(), unit="fraction", **here)


def _entering(trained: Trained) -> dict[str, Tensor]:
    """Pre-activations [T, F] of each site on some held-out batches."""
    kept: dict[str, list[Tensor]] = {site.name: [] for site in trained.sites}

    def keep(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        kept[name].append(output.flatten(0, -2).float().cpu())

    layout = Layout(trained.model)
    handles = [
        owner.register_forward_hook(partial(keep, site.name))
        for site in trained.sites
        for owner in layout.owners(site.up)[0]
    ]
    for number in range(_BATCHES):
        trained.run_batch(trained.batches.probe("eval", number))
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _median_ms(call: Callable[[], Tensor]) -> float:
    call()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return median(times)
