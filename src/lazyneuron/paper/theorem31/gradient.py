"""Theorem 3.1 of arXiv 2210.06313 by Monte Carlo, and the same gradient in a real network at step 0.

With f = V relu(p), V random with independent zero-mean entries and the target y independent of V, the theorem says
E_V[dloss/dp_i] > 0 for every active i (p_i > 0): a first gradient step lowers what is active, whatever the data.
It speaks of a layer directly below a random linear output. A normalisation in between takes the sign away: the
loss averaged over an isotropic Gaussian head W, E_W[loss(W norm(x), y)], is the same for every x.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lazyneuron.maps.owners import Layout

Loss = Literal["ce", "mse"]
Entries = Literal["gaussian", "sign", "skewed"]
Targets = Literal["independent", "from_v"]

CHUNK_ENTRIES = 2**18  # entries of V held at once: 1 MB in float32, so that it stays in cache
MIN_ACTIVE, MAX_ACTIVE = 0.5, 1.5  # range of |p_i|; the gradient is proportional to p_i, so a tiny one shows no sign


@dataclass(frozen=True)
class Case:
    """One setting of Theorem 3.1: V is [K, F] with independent entries of standard deviation tau.

    entries: gaussian, sign (+tau or -tau), or skewed (tau times a centred exponential). Two fields break an
    assumption, for controls: row_mean is the mean of V's first row, and targets="from_v" lets y depend on V.
    """

    loss: Loss
    entries: Entries
    num_outputs: int
    d_ff: int = 64
    tau: float = 0.4
    row_mean: float = 0.0
    targets: Targets = "independent"

    def __post_init__(self) -> None:
        for field, allowed in (("loss", Loss), ("entries", Entries), ("targets", Targets)):
            if (value := getattr(self, field)) not in get_args(allowed):
                raise ValueError(f"{field} must be one of {', '.join(get_args(allowed))}; got {value!r}")
        if self.num_outputs < 1:
            raise ValueError(f"num_outputs must be at least 1; got {self.num_outputs}")
        if self.d_ff < 2:
            raise ValueError(f"d_ff must be at least 2, one active and one inactive neuron; got {self.d_ff}")
        if not (self.tau > 0 and math.isfinite(self.tau)):
            raise ValueError(f"tau must be positive and finite, or V is almost surely zero; got {self.tau}")
        if not math.isfinite(self.row_mean):
            raise ValueError(f"row_mean must be finite; got {self.row_mean}")

    @property
    def name(self) -> str:
        broken = f" row mean {self.row_mean:g}" if self.row_mean else ""
        broken += " y from V" if self.targets == "from_v" else ""
        return f"{self.loss} {self.entries} K={self.num_outputs}{broken}"

    @property
    def pre_activations(self) -> Tensor:
        """p, shape [F]: fixed, positive and negative in turn, magnitudes evenly spaced from 0.5 to 1.5."""
        sign_F = 1 - 2 * (torch.arange(self.d_ff) % 2)
        return sign_F * torch.linspace(MIN_ACTIVE, MAX_ACTIVE, self.d_ff)


CASES: tuple[Case, ...] = tuple(
    Case(loss, entries, num_outputs)
    for loss in get_args(Loss)
    for entries in get_args(Entries)
    for num_outputs in (2, 10, 100)
)

CONTROLS: dict[Case, Literal[-1, 0]] = {
    # softmax over one output is 1 = y, so every gradient is zero.
    Case("ce", "gaussian", 1): 0,
    # y = 2f turns f - y into -f: the gradient of the theorem with its sign changed, for any entries.
    Case("mse", "gaussian", 10, targets="from_v"): -1,
    Case("mse", "skewed", 10, targets="from_v"): -1,
    # y is the class that f favours: sum_i p_i dloss/dp_i = <f, s> - max f < 0 in every draw; the mean for Gaussian V
    # is proportional to p_i, so it is negative for each i.
    Case("ce", "gaussian", 10, targets="from_v"): -1,
    # E <= (2 tau^2 p_i - row_mean) E[1 - s_1], negative for every i once row_mean > 2 tau^2 max p.
    Case("ce", "gaussian", 10, tau=0.1, row_mean=0.1): -1,
}
"""Settings outside the theorem, and the sign that their mean gradient provably has."""


@dataclass(frozen=True)
class GradientEstimate:
    """E_V[dloss/dp_i], averaged over active i, with its standard error over independent draws of V.

    min_z is the smallest z-score of a single active neuron; compare it with bonferroni_z(num_active).
    closed_form is None where none is known; its error is 0 where it is exact, else independent of `error`.
    """

    mean: float
    error: float
    min_z: float
    num_active: int
    num_draws: int
    closed_form: float | None
    closed_form_error: float | None


def z_score(mean: float, error: float | None) -> float:
    """How many standard errors a mean is away from 0; infinite without an error, and 0 where both are 0."""
    return mean / error if error else math.copysign(math.inf, mean) if mean else 0.0


def bonferroni_z(num_tests: int, alpha: float = 0.05) -> float:
    """The z that the smallest of num_tests must exceed for all to be positive, one-sided, at family level alpha."""
    return NormalDist().inv_cdf(1 - alpha / num_tests)


def pre_activation_gradient(loss: Loss, v_NKF: Tensor, p_F: Tensor, y_NK: Tensor) -> Tensor:
    """dloss/dp, shape [N, F], of N outputs f = V relu(p): <v_i, r> for active i and 0 for the others.

    r = softmax(f) - y for "ce", cross-entropy summed over outputs, where y sums to 1; r = f - y for "mse", which
    is |f - y|^2 / 2. y broadcasts over N.
    """
    f_NK = v_NKF @ p_F.relu()
    residual_NK = (f_NK.softmax(-1) if loss == "ce" else f_NK) - y_NK
    return (residual_NK.unsqueeze(-2) @ v_NKF).squeeze(-2) * (p_F > 0)


def _draw_v(case: Case, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    if case.entries == "gaussian":
        v_NKF = torch.randn(shape, generator=generator)
    elif case.entries == "sign":
        v_NKF = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8).float().mul_(2).sub_(1)
    else:
        v_NKF = torch.rand(shape, generator=generator).neg_().log1p_().neg_().sub_(1)  # inverse of 1 - exp(-x)
    v_NKF.mul_(case.tau)
    v_NKF[:, 0].add_(case.row_mean)
    return v_NKF


def _targets(case: Case, v_NKF: Tensor, p_F: Tensor) -> Tensor:
    """y, shape [K] or [N, K]: the first class, fixed and so independent of V, unless the case lets V choose."""
    first_K = nn.functional.one_hot(torch.tensor(0), case.num_outputs).float()
    if case.targets == "independent":
        return first_K
    f_NK = v_NKF @ p_F.relu()
    return 2 * f_NK if case.loss == "mse" else nn.functional.one_hot(f_NK.argmax(-1), case.num_outputs).float()


class _Moments:
    """Running mean and standard error of independent rows, shape [N, ...] per call, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros(())

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        self.count += len(rows)
        self.total, self.squares = self.total + rows.sum(0), self.squares + rows.square().sum(0)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def error(self) -> Tensor:
        variance = (self.squares / self.count - self.mean.square()).clamp_min(0)
        return (variance / (self.count - 1)).sqrt()


def expected_gradient(case: Case, num_draws: int, seed: int) -> GradientEstimate:
    """Estimate E_V[dloss/dp_i] over active i from num_draws draws of V; the same seed gives the same numbers.

    Closed forms, for zero-mean V and y independent of it: "mse", any entries: tau^2 p_i K, exactly; "ce", Gaussian:
    tau^2 p_i E[1 - sum_k s_k^2] with s = softmax(f), by Stein's lemma, plus row_mean E[s_1 - 1] in that control.
    Its expectation is taken over separate draws of f. Source: arXiv 2210.06313, Theorem 3.1.
    """
    if num_draws < 2:
        raise ValueError(f"a standard error needs num_draws >= 2; got {num_draws}")
    generator = torch.Generator().manual_seed(seed)
    p_F = case.pre_activations
    p_A = p_F[p_F > 0]  # columns of V below inactive neurons touch neither f nor these gradients: not drawn
    outputs, active = case.num_outputs, len(p_A)
    neurons, average, closed = _Moments(), _Moments(), _Moments()
    has_stein_form = case.loss == "ce" and case.entries == "gaussian" and case.targets == "independent"
    per_chunk = max(1, CHUNK_ENTRIES // (outputs * active))
    for start in range(0, num_draws, per_chunk):
        rows = min(per_chunk, num_draws - start)
        v_NKA = _draw_v(case, (rows, outputs, active), generator)
        gradient_NA = pre_activation_gradient(case.loss, v_NKA, p_A, _targets(case, v_NKA, p_A)).double()
        neurons.add(gradient_NA)
        average.add(gradient_NA.mean(-1))
        if has_stein_form:
            f_MK = torch.randn(4 * rows, outputs, generator=generator) * (case.tau * p_A.norm())
            f_MK[:, 0] += case.row_mean * p_A.sum()
            s_MK = f_MK.softmax(-1)
            stein_M = case.tau**2 * p_A.mean() * (1 - s_MK.square().sum(-1)) + case.row_mean * (s_MK[:, 0] - 1)
            closed.add(stein_M)
    closed_form, closed_form_error = None, None
    if has_stein_form:
        closed_form, closed_form_error = closed.mean.item(), closed.error.item()
    elif case.loss == "mse" and case.row_mean == 0:
        sign = 1 if case.targets == "independent" else -1
        closed_form, closed_form_error = sign * case.tau**2 * p_A.double().mean().item() * outputs, 0.0
    return GradientEstimate(
        mean=average.mean.item(),
        error=average.error.item(),
        min_z=min(map(z_score, neurons.mean.tolist(), neurons.error.tolist())),
        num_active=active,
        num_draws=num_draws,
        closed_form=closed_form,
        closed_form_error=closed_form_error,
    )


@dataclass(frozen=True)
class LayerGradient:
    """dloss/dp over one layer's active entries: mean and root mean square, in units of the loss; and the density."""

    mean: float
    rms: float
    density: float

    @property
    def ratio(self) -> float:
        """mean / rms, in [-1, 1]: comparable between layers, free of the loss's scale; 0 where all gradients are 0."""
        return self.mean / self.rms if self.rms else 0.0


def step0_gradients(
    model: nn.Module, down_names: Sequence[str], loss: Callable[[], Tensor]
) -> dict[str, LayerGradient]:
    """Gradient of loss() with respect to the active pre-activations of each ReLU MLP, by down-projection weight name.

    Where a ReLU is active dloss/dp is dloss/dh, h being what enters the down projection, so that is read there, over
    all tokens of the batch: pass no padding, and switch dropout off. loss() runs the model once and returns a
    scalar. One call is one initialisation: repeat it over seeds for a standard error. Leaves parameter .grad, mode
    and hooks as they were. Raises ValueError where h has negative entries, as behind GELU, SiLU or a gate.
    """
    maps: dict[str, list[Tensor]] = {name: [] for name in down_names}

    def keep(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps[name].append(inputs[0])

    layout = Layout(model)
    for name in maps:
        if name not in layout.parameters or not name.endswith(".weight") or layout.owners(name)[1]:
            raise ValueError(f"{name!r} is not the weight of a down projection of this model")
    handles = []
    try:
        for name in maps:
            handles += [owner.register_forward_pre_hook(partial(keep, name)) for owner in layout.owners(name)[0]]
        with torch.enable_grad():
            value = loss()
    finally:
        for handle in handles:
            handle.remove()
    for name, found in maps.items():
        if len(found) != 1:
            raise ValueError(f"loss() must run {name!r} exactly once; it ran {len(found)} times")
        if not found[0].requires_grad:
            raise ValueError(
                f"no gradient reaches {name!r}: its inputs do not require one; unfreeze the weights below it"
            )
        if (found[0] < 0).any():
            raise ValueError(
                f"the activation map entering {name!r} has negative entries: it is not the output of a ReLU"
            )
    inputs = [found[0] for found in maps.values()]
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    return {name: _layer_gradient(name, h, g) for name, h, g in zip(maps, inputs, gradients, strict=True)}


def _layer_gradient(name: str, h: Tensor, gradient: Tensor | None) -> LayerGradient:
    if gradient is None:
        raise ValueError(f"the loss does not depend on {name!r}")
    active = h > 0
    if not active.any():
        raise ValueError(f"no neuron is active in the layer of {name!r}: there is no gradient to average")
    values = gradient[active].double()
    return LayerGradient(values.mean().item(), values.square().mean().sqrt().item(), active.double().mean().item())
