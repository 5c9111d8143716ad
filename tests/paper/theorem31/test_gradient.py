import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lazyneuron.paper.theorem31.gradient import (
    CASES,
    CONTROLS,
    Case,
    GradientEstimate,
    bonferroni_z,
    expected_gradient,
    pre_activation_gradient,
    step0_gradients,
)

DRAWS = 6_000


def is_near_closed_form(estimate: GradientEstimate) -> bool:
    """Whether the mean is within four standard errors of the closed form, or none is known."""
    if estimate.closed_form is None or estimate.closed_form_error is None:
        return estimate.closed_form is estimate.closed_form_error
    return abs(estimate.mean - estimate.closed_form) <= 4 * math.hypot(estimate.error, estimate.closed_form_error)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_theorem_sign_and_closed_form(case: Case):
    estimate = expected_gradient(case, DRAWS, seed=0)
    assert estimate.mean >= 10 * estimate.error > 0
    assert (estimate.closed_form is None) == (case.loss == "ce" and case.entries != "gaussian")
    assert is_near_closed_form(estimate)


def test_cases_are_the_eighteen_combinations():
    assert len(set(CASES)) == len({case.name for case in CASES}) == 18
    assert {case.num_outputs for case in CASES} == {2, 10, 100}


@pytest.mark.parametrize(("case", "sign"), CONTROLS.items(), ids=lambda value: getattr(value, "name", None))
def test_controls_leave_the_theorem(case: Case, sign: int):
    estimate = expected_gradient(case, DRAWS, seed=0)
    if sign == 0:
        assert (estimate.mean, estimate.error, estimate.min_z) == (0, 0, 0)
    else:
        assert estimate.mean * sign >= 10 * estimate.error > 0
    assert is_near_closed_form(estimate)


def test_every_single_neuron_is_positive():
    estimate = expected_gradient(Case("ce", "gaussian", 2), 30_000, seed=0)
    assert estimate.num_active == 32
    assert bonferroni_z(estimate.num_active) < estimate.min_z < estimate.mean / estimate.error


def test_bonferroni_z_is_the_normal_quantile():
    assert bonferroni_z(1) == pytest.approx(1.6449, abs=1e-4)
    assert bonferroni_z(100) == pytest.approx(3.2905, abs=1e-4)


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_estimate_agrees_with_all_sign_patterns(loss):
    case = Case(loss, "sign", 2, d_ff=6, tau=0.5)
    p = case.pre_activations[case.pre_activations > 0]
    patterns = torch.tensor(list(itertools.product([-0.5, 0.5], repeat=6))).view(64, 2, 3)
    exact = pre_activation_gradient(loss, patterns, p, torch.tensor([1.0, 0.0])).mean(0)
    assert (exact > 0).all()
    estimate = expected_gradient(case, 20_000, seed=1)
    assert abs(estimate.mean - exact.mean().item()) < 4 * estimate.error


def test_gaussian_closed_form_agrees_with_quadrature():
    case = Case("ce", "gaussian", 2)
    p = case.pre_activations[case.pre_activations > 0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    s = 1 / (1 + np.exp(-nodes * case.tau * p.norm().item() * math.sqrt(2)))
    exact = case.tau**2 * p.mean().item() * (weights * 2 * s * (1 - s)).sum() / weights.sum()
    estimate = expected_gradient(case, 20_000, seed=2)
    assert estimate.closed_form is not None
    assert estimate.closed_form_error is not None
    assert abs(estimate.closed_form - exact) < 4 * estimate.closed_form_error < 0.02 * exact


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_vectorised_gradient_is_autograd(loss):
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(5, 3, 7, generator=generator, dtype=torch.float64)
    y = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    y /= y.sum(-1, keepdim=True)
    p = torch.randn(7, generator=generator, dtype=torch.float64)
    for draw in range(5):
        leaf = p.clone().requires_grad_()
        f = v[draw] @ leaf.relu()
        value = nn.functional.cross_entropy(f, y[draw]) if loss == "ce" else (f - y[draw]).square().sum() / 2
        (expected,) = torch.autograd.grad(value, leaf)
        torch.testing.assert_close(pre_activation_gradient(loss, v, p, y)[draw], expected)


def test_estimate_depends_on_the_seed_alone():
    case = Case("ce", "skewed", 10)
    torch.manual_seed(0)
    first = expected_gradient(case, 500, seed=3)
    torch.manual_seed(1)
    assert expected_gradient(case, 500, seed=3) == first
    assert expected_gradient(case, 500, seed=4).mean != first.mean


def test_standard_error_is_that_of_repeated_estimates():
    case = Case("mse", "skewed", 2, d_ff=8)
    estimates = [expected_gradient(case, 200, seed) for seed in range(300)]
    spread = torch.tensor([estimate.mean for estimate in estimates]).std().item()
    assert spread == pytest.approx(sum(estimate.error for estimate in estimates) / 300, rel=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of ce, mse; got 'hinge'"),
        ({"entries": "cauchy"}, "entries must be one of gaussian, sign, skewed; got 'cauchy'"),
        ({"targets": "own"}, "targets must be one of"),
        ({"num_outputs": 0}, "num_outputs must be at least 1; got 0"),
        ({"d_ff": 1}, "d_ff must be at least 2"),
        ({"tau": 0.0}, "tau must be positive"),
        ({"tau": math.inf}, "tau must be positive and finite"),
        ({"row_mean": math.nan}, "row_mean must be finite"),
    ],
)
def test_case_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CASES[0], **change)


def test_one_draw_has_no_error():
    with pytest.raises(ValueError, match="num_draws >= 2; got 1"):
        expected_gradient(CASES[0], 1, seed=0)


class Mlp(nn.Module):
    """Two MLPs and a linear head, with or without a normalisation below the head."""

    def __init__(self, activation: nn.Module | None = None, norm: nn.Module | None = None, residual: bool = False):
        super().__init__()
        self.up1, self.up2 = nn.Linear(16, 64), nn.Linear(16, 64)
        self.down1, self.down2 = nn.Linear(64, 16), nn.Linear(64, 16)
        self.head = nn.Linear(16, 10, bias=False)
        nn.init.normal_(self.head.weight)
        self.activation, self.norm, self.residual = activation or nn.ReLU(), norm or nn.Identity(), residual

    def forward(self, x_TD: Tensor) -> Tensor:
        for up, down in ((self.up1, self.down1), (self.up2, self.down2)):
            x_TD = down(self.activation(up(x_TD))) + (x_TD if self.residual else 0)
        return self.head(self.norm(x_TD))


DOWN = ["down1.weight", "down2.weight"]


def _model_and_loss(seed: int = 0, **options):
    torch.manual_seed(seed)
    model, x, y = Mlp(**options), torch.randn(32, 16), torch.randint(10, (32,))
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def _num_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def test_step0_is_the_gradient_of_the_pre_activation():
    model, loss = _model_and_loss()
    pre = []
    handle = model.up2.register_forward_hook(lambda module, args, output: pre.append(output))
    (gradient,) = torch.autograd.grad(loss(), pre)
    handle.remove()
    found = step0_gradients(model, DOWN, loss)
    active = gradient[pre[0] > 0].double()
    assert list(found) == DOWN
    layer = found["down2.weight"]
    assert layer.mean == pytest.approx(active.mean().item(), rel=1e-5)
    assert layer.ratio == pytest.approx((active.mean() / active.square().mean().sqrt()).item(), rel=1e-5)
    assert layer.density == pytest.approx((pre[0] > 0).double().mean().item())


def test_step0_leaves_no_trace():
    model, loss = _model_and_loss()
    model.up1.weight.grad = torch.full_like(model.up1.weight, 7)
    with torch.no_grad():
        step0_gradients(model, DOWN, loss)
    assert _num_hooks(model) == 0
    assert model.training
    assert (model.up1.weight.grad == 7).all()
    assert all(p.grad is None for name, p in model.named_parameters() if name != "up1.weight")


def test_step0_removes_hooks_when_the_loss_fails():
    model, _ = _model_and_loss()

    def broken() -> Tensor:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        step0_gradients(model, DOWN, broken)
    assert _num_hooks(model) == 0


def test_step0_ratio_is_free_of_scale_and_zero_below_a_zero_head():
    model, loss = _model_and_loss()
    once, scaled = step0_gradients(model, DOWN, loss), step0_gradients(model, DOWN, lambda: 1000 * loss())
    assert scaled["down1.weight"].ratio == pytest.approx(once["down1.weight"].ratio, rel=1e-4)
    assert scaled["down1.weight"].mean == pytest.approx(1000 * once["down1.weight"].mean, rel=1e-4)
    nn.init.zeros_(model.head.weight)
    layer = step0_gradients(model, DOWN, loss)["down2.weight"]
    assert (layer.mean, layer.rms, layer.ratio) == (0, 0, 0)


def test_step0_refuses_what_it_cannot_read():
    model, loss = _model_and_loss()
    with pytest.raises(ValueError, match=r"'down3.weight' is not the weight of a down projection"):
        step0_gradients(model, ["down3.weight"], loss)
    with pytest.raises(ValueError, match=r"'down1.bias' is not the weight"):
        step0_gradients(model, ["down1.bias"], loss)
    with pytest.raises(ValueError, match="exactly once; it ran 2 times"):
        step0_gradients(model, DOWN, lambda: loss() + loss())
    with pytest.raises(ValueError, match=r"does not depend on 'down1.weight'"):
        step0_gradients(model, DOWN, lambda: (loss(), model.up1.weight.sum())[1])
    nn.init.constant_(model.up1.bias, -1e4)
    with pytest.raises(ValueError, match=r"no neuron is active in the layer of 'down1.weight'"):
        step0_gradients(model, DOWN, loss)
    model, loss = _model_and_loss(activation=nn.GELU())
    with pytest.raises(ValueError, match="not the output of a ReLU"):
        step0_gradients(model, DOWN, loss)
    model, loss = _model_and_loss()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="unfreeze"):
        step0_gradients(model, DOWN, loss)


def _z_over_initialisations(num: int, **options) -> dict[str, float]:
    runs = [step0_gradients((m := _model_and_loss(seed, **options))[0], DOWN, m[1]) for seed in range(num)]
    ratios = {name: torch.tensor([run[name].ratio for run in runs]) for name in DOWN}
    return {name: (ratio.mean() / ratio.std() * math.sqrt(num)).item() for name, ratio in ratios.items()}


@pytest.mark.parametrize("residual", [False, True])
def test_step0_is_positive_below_a_linear_head(residual):
    assert min(_z_over_initialisations(200, residual=residual).values()) > 4


@pytest.mark.parametrize("norm", [nn.RMSNorm(16), nn.LayerNorm(16)], ids=["rms", "layer"])
def test_step0_has_no_sign_below_a_norm_and_an_isotropic_head(norm):
    assert max(map(abs, _z_over_initialisations(200, residual=True, norm=norm).values())) < 4
