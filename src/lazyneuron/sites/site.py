"""A site: one MLP of a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


class NoSitesError(ValueError):
    """The traced model has no MLP that we recognise."""


@dataclass(frozen=True)
class Site:
    """One MLP of a model.

    `name` is the MLP's module path ("" when the model itself is the MLP). `up`, `gate` (None if not gated) and `down`
    are parameter names as in `named_parameters()`, without the prefixes of compile and DDP; a fused gate-and-up weight
    is both. `activation` is "relu", "gelu", "silu", "relu^2", or the traced operations joined by "+".
    """

    name: str
    up: str
    gate: str | None
    down: str
    d_model: int
    d_ff: int
    activation: str


def numbered(sites: Sequence[Site]) -> Iterator[tuple[str, int, Site]]:
    """Stack ("encoder", "decoder", or "" where a model has one stack), layer within it, and site."""
    paths = [site.name.split(".") for site in sites]
    two_stacks = any("encoder" in path for path in paths) and any("decoder" in path for path in paths)
    layers: dict[str, int] = {}
    for site, path in zip(sites, paths, strict=True):
        stack = ("decoder" if "decoder" in path else "encoder") if two_stacks else ""
        layers[stack] = layers.get(stack, -1) + 1
        yield stack, layers[stack], site
