"""Selections: values that say which neurons of an activation map are kept, and that are written as plain dicts.

`TopK`, `GroupTopK` and `Threshold` act on the activation map, after the activation (arXiv 2210.06313, section 4);
`StatisticalTopK` acts on the input of the activation. `Anneal` is a `TopK` whose density falls over training.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from lazyneuron.errors import UsageError
from lazyneuron.kernels.topk import group_topk, statistical_topk, threshold, topk, topk_straight_through
from lazyneuron.sites import Site

Form = Literal["spark", "gemma3n"]
ZERO_AT_ZERO = ("relu", "relu^2", "relu6", "gelu", "silu")


@dataclass(frozen=True)
class Selection(ABC):
    """Which entries of each token's map are kept. Wrong values raise ValueError, wrong types TypeError."""

    @abstractmethod
    def apply(self, h: Tensor) -> Tensor:
        """The map [..., F], zero where it is not selected: same shape and dtype."""

    @property
    def is_before_activation(self) -> bool:
        """True if it acts on the input of the activation, False if on the activation map."""
        return False

    def check(self, site: Site) -> None:
        """ValueError or UsageError with the site's name if the selection cannot be enforced there."""
        return

    def promise(self, d_ff: int) -> str | None:
        """What holds for every selected token, in words; None if nothing is guaranteed."""
        return None

    def num_broken(self, h_TF: Tensor) -> tuple[Tensor, int]:
        """The count that the promise limits for each token of a selected map, int64 [T], and the limit."""
        raise NotImplementedError(f"{type(self).__name__} promises nothing")

    def to_dict(self) -> dict[str, Any]:
        """Its kind and the fields that differ from their defaults, for `selection_from_dict`."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {"kind": next(kind for kind, made in _KINDS.items() if made is type(self))} | kept


@dataclass(frozen=True)
class TopK(Selection):
    """Keeps the `k` entries of largest magnitude of each token; with `density`, k = round(density * d_ff), at least 1.

    Signs do not matter (maps after GELU, SiLU and gates have them). Of equal entries the lowest index is kept first.
    NaN counts as the largest. `k = d_ff` returns the map itself, with its gradient. The gradient reaches the entries
    that are kept and nonzero; with `straight_through` it reaches every entry unchanged.
    """

    k: int | None = None
    density: float | None = None
    straight_through: bool = False

    def __post_init__(self) -> None:
        if (self.k is None) == (self.density is None):
            raise ValueError(f"top-k needs either k or density; got k={self.k} and density={self.density}")
        if self.k is not None:
            _check_count(self.k, "top-k needs 0 < k <= d_ff; got k=")
        if self.density is not None:
            _check_density("top-k", self.density)

    def k_of(self, d_ff: int) -> int:
        """Number of entries kept out of `d_ff`."""
        return self.k if self.k is not None else max(1, round((self.density or 1) * d_ff))

    def apply(self, h: Tensor) -> Tensor:
        k = self.k_of(h.shape[-1])
        if k == h.shape[-1]:
            return h
        return topk_straight_through(h, k) if self.straight_through else topk(h, k)

    def check(self, site: Site) -> None:
        if (k := self.k_of(site.d_ff)) > site.d_ff:
            raise ValueError(f"site {site.name!r}: top-k needs 0 < k <= d_ff; got k={k} with d_ff={site.d_ff}")

    def promise(self, d_ff: int) -> str | None:
        return f"at most {self.k_of(d_ff)} nonzeros"

    def num_broken(self, h_TF: Tensor) -> tuple[Tensor, int]:
        return (h_TF != 0).sum(-1), self.k_of(h_TF.shape[-1])


@dataclass(frozen=True)
class GroupTopK(Selection):
    """Keeps, as `TopK`, the `k` largest entries in each of `groups` equal blocks of neighbouring neurons."""

    k: int
    groups: int

    def __post_init__(self) -> None:
        _check_count(self.k, "group top-k needs 0 < k <= d_ff / groups; got k=")
        _check_count(self.groups, "group top-k needs at least one group; got groups=")

    def apply(self, h: Tensor) -> Tensor:
        return h if self.k * self.groups == h.shape[-1] else group_topk(h, self.k, self.groups)

    def check(self, site: Site) -> None:
        size, rest = divmod(site.d_ff, self.groups)
        if rest:
            raise ValueError(f"site {site.name!r}: {self.groups} groups do not divide d_ff={site.d_ff}")
        if self.k > size:
            limit = f"0 < k <= d_ff / groups; got k={self.k} with d_ff={site.d_ff} in {self.groups} groups"
            raise ValueError(f"site {site.name!r}: group top-k needs {limit}")

    def promise(self, d_ff: int) -> str | None:
        return f"at most {self.k} nonzeros in each block of {d_ff // self.groups}"

    def num_broken(self, h_TF: Tensor) -> tuple[Tensor, int]:
        return (h_TF != 0).unflatten(-1, (self.groups, -1)).sum(-1).amax(-1), self.k


@dataclass(frozen=True)
class Threshold(Selection):
    """Keeps entries of magnitude above `tau`, and NaN. `calibrate` finds the `tau` that gives a density on data."""

    tau: float

    def __post_init__(self) -> None:
        if isinstance(self.tau, bool) or not isinstance(self.tau, int | float):
            raise TypeError(f"a threshold is a number; got {self.tau!r}")
        if not 0 <= self.tau < math.inf:
            raise ValueError(f"a threshold needs 0 <= tau < inf; got tau={self.tau}")

    def apply(self, h: Tensor) -> Tensor:
        return threshold(h, self.tau)

    def promise(self, d_ff: int) -> str | None:
        return f"no nonzero of magnitude {self.tau} or less"

    def num_broken(self, h_TF: Tensor) -> tuple[Tensor, int]:
        return ((h_TF != 0) & (h_TF.abs() <= self.tau)).sum(-1), 0


@dataclass(frozen=True)
class StatisticalTopK(Selection):
    """Keeps about `density` of the neurons: `max(u - theta, 0)`, with theta from the mean and deviation of u.

    `u` [..., F] is the input of the activation: the output of the up projection, or of the gate in a gated MLP. The
    activation must map zero to zero: relu, relu^2, relu6, gelu or silu. "spark" computes arXiv 2506.06644, equation 5,
    in float32. "gemma3n" is only for gates and computes as Gemma 3n does in transformers, in the dtype of `u` and equal
    to the bit. How many neurons are kept depends on their distribution: nothing is promised for a token.
    """

    density: float
    form: Form = "spark"

    def __post_init__(self) -> None:
        _check_density("statistical top-k", self.density, is_below_one=True)
        if self.form not in get_args(Form):
            raise ValueError(f"no form {self.form!r} of statistical top-k: choose from {', '.join(get_args(Form))}")

    def apply(self, h: Tensor) -> Tensor:
        if self.form == "spark":
            return statistical_topk(h, self.density)
        # transformers 5: Gemma3nTextMLP._gaussian_topk, whose quantile is that of float32 in the dtype of the input.
        sparsity = torch.tensor(1 - self.density, dtype=torch.float32, device=h.device)
        quantile = (torch.erfinv(2 * sparsity - 1) * math.sqrt(2)).type(h.dtype)
        std = torch.std(h, dim=-1, keepdim=True, unbiased=False)
        return torch.relu(h - (torch.mean(h, dim=-1, keepdim=True) + std * quantile))

    @property
    def is_before_activation(self) -> bool:
        return True

    def check(self, site: Site) -> None:
        remedy = "use TopK or Threshold there, which act after the activation"
        where = f"site {site.name!r}: statistical top-k"
        if site.gate is not None and site.gate == site.up:
            raise UsageError(f"{where} cannot find the gate in the fused weight {site.up}: {remedy}")
        if site.activation not in ZERO_AT_ZERO:
            known = ", ".join(ZERO_AT_ZERO)
            raise UsageError(f"{where} needs an activation with f(0) = 0 ({known}), not {site.activation!r}: {remedy}")
        if self.form == "gemma3n" and site.gate is None:
            raise UsageError(f"{where} of form 'gemma3n' needs a gated MLP: use form='spark'")


@dataclass(frozen=True)
class Anneal(Selection):
    """`TopK` whose density goes from `start` to `end` geometrically over `num_steps` steps, then stays.

    Advance it with `set_step(model, step)`; the current `step` is saved with the model.
    """

    start: float
    end: float
    num_steps: int
    step: int = 0
    straight_through: bool = False

    def __post_init__(self) -> None:
        _check_density("annealing's start", self.start)
        _check_density("annealing's end", self.end)
        _check_count(self.num_steps, "annealing needs at least one step; got num_steps=")
        if self.step < 0:
            raise ValueError(f"annealing counts steps from 0; got step={self.step}")

    @property
    def now(self) -> TopK:
        """The selection at the current step."""
        share = min(1.0, self.step / self.num_steps)
        density = self.end if share == 1 else self.start * (self.end / self.start) ** share
        return TopK(density=density, straight_through=self.straight_through)

    def at(self, step: int) -> Self:
        """The same annealing at another step."""
        return replace(self, step=step)

    def apply(self, h: Tensor) -> Tensor:
        return self.now.apply(h)

    def promise(self, d_ff: int) -> str | None:
        return self.now.promise(d_ff)

    def num_broken(self, h_TF: Tensor) -> tuple[Tensor, int]:
        return self.now.num_broken(h_TF)


_KINDS: dict[str, type[Selection]] = {
    "topk": TopK,
    "group_topk": GroupTopK,
    "threshold": Threshold,
    "statistical_topk": StatisticalTopK,
    "anneal": Anneal,
}


def selection_from_dict(written: Mapping[str, Any]) -> Selection:
    """The selection that `to_dict` wrote; ValueError for an unknown kind or field."""
    made = _KINDS.get(written.get("kind", ""))
    if made is None:
        raise ValueError(f"no selection of kind {written.get('kind')!r}: choose from {', '.join(_KINDS)}")
    values = {name: value for name, value in written.items() if name != "kind"}
    if unknown := values.keys() - {f.name for f in fields(made)}:
        raise ValueError(f"a selection of kind {written['kind']!r} has no {sorted(unknown)[0]!r}; got {dict(written)}")
    try:
        return made(**values)
    except TypeError as error:
        raise ValueError(f"a selection of kind {written['kind']!r} cannot be read from {dict(written)}") from error


def _check_count(number: Any, needs: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{needs}{number!r}, not an integer")
    if number < 1:
        raise ValueError(f"{needs}{number}")


def _check_density(what: str, density: Any, is_below_one: bool = False) -> None:
    sign = "<" if is_below_one else "<="
    if isinstance(density, bool) or not isinstance(density, int | float):
        raise TypeError(f"{what} needs 0 < density {sign} 1; got {density!r}, not a number")
    if not 0 < density <= 1 or (is_below_one and density == 1):
        raise ValueError(f"{what} needs 0 < density {sign} 1; got density={density}")
