"""A site: one MLP of a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lazyneuron.records.table import Column, Table

RELU_LIKE = frozenset({"relu", "relu^2", "relu6"})
"""The activations of `Site` that leave many neurons at exactly 0."""


class NoSitesError(ValueError):
    """No MLP was found in the model, or none that `sites=` matches."""


@dataclass(frozen=True)
class Site:
    """One MLP of a model.

    `name` is the MLP's module path ("" if the model itself is the MLP). `up`, `gate` (None if not gated) and `down` are
    parameter names as in `named_parameters()`, without the prefixes of compile and DDP; a fused gate-and-up weight is
    both. `activation` is "relu", "gelu", "silu", "relu^2", or the traced operations joined by "+". `axis` is the
    neurons' axis in the input of the down projection: -1, or -3 for a 1x1 `Conv2d`. `order` is that of the tokens in
    the map: "batch" (as in the inputs [B, S], row by row), "sequence" (position by position), "gathered" (as a router
    sends them to experts), or None if it is not known; sites that differ by it alone are equal.
    """

    name: str
    up: str
    gate: str | None
    down: str
    d_model: int
    d_ff: int
    activation: str
    axis: int = -1
    order: str | None = field(default=None, compare=False)

    @property
    def is_gated(self) -> bool:
        """True if a gate branch multiplies the up branch."""
        return self.gate is not None


def numbered(sites: Sequence[Site]) -> Iterator[tuple[str, int, Site]]:
    """Stack ("encoder", "decoder", or "" in a model with one stack), layer within the stack, and site."""
    paths = [site.name.split(".") for site in sites]
    two_stacks = any("encoder" in path for path in paths) and any("decoder" in path for path in paths)
    layers: dict[str, int] = {}
    for site, path in zip(sites, paths, strict=True):
        stack = ("decoder" if "decoder" in path else "encoder") if two_stacks else ""
        layers[stack] = layers.get(stack, -1) + 1
        yield stack, layers[stack], site


def site_table(sites: Sequence[Site]) -> Table:
    """One line per site; a leading dot in the name of a weight stands for the site's name."""
    rows = []
    for site in sites:
        start = site.name and f"{site.name}."
        weights = (
            f".{weight.removeprefix(start)}" if start and weight.startswith(start) else weight
            for weight in (site.up, site.gate or "-", site.down)
        )
        rows.append([site.name or "(model)", *weights, site.d_model, site.d_ff, site.activation, site.axis])
    names, sizes = ("site", "up", "gate", "down"), [Column("d_model", "d"), Column("d_ff", "d")]
    return Table([*map(Column, names), *sizes, Column("activation"), Column("axis", "d")], rows)
