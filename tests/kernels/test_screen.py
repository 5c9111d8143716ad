"""A screen's norms bound, in float64, all that rounding to int8 left out."""

import math

import pytest
import torch

from lazyneuron.kernels import screen as module
from lazyneuron.kernels.screen import screen_of


def rows(width):
    torch.manual_seed(0)
    normal = torch.randn(40, width)
    one_huge = torch.randn(width) * 1e-3
    one_huge[width // 2] = 1e6
    return {
        "normal": normal,
        "heavy tails": normal / torch.rand_like(normal),
        "one huge weight": one_huge[None],
        "zero": torch.zeros(1, width),
        "negative zero": -torch.zeros(1, width),
        "denormal": normal * 1e-40,
        "least": torch.full((2, width), 1e-45) * torch.arange(1, 3)[:, None],
        "scale rounds to a denormal": torch.full((150, width), 1e-45) * torch.arange(1, 151)[:, None],
        "large": normal * 1e37,
        "largest": torch.full((1, width), torch.finfo(torch.float32).max),
        "constant": torch.full((1, width), 0.1),
        "halves": torch.arange(width)[None] % 127 + 0.5,
        "integers": (torch.arange(width)[None] % 255 - 127).float(),
    }


@pytest.mark.parametrize("width", [1, 33, 2048])
@pytest.mark.parametrize("kind", rows(1))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norms_bound_what_was_rounded(kind, width, dtype):
    weight = rows(width)[kind].to(dtype)
    weight = torch.where(weight.isinf(), torch.finfo(dtype).max, weight)
    screen = screen_of(weight)
    scale, left, norm = screen.scales_F3.double().unbind(-1)
    assert screen.q_FD.dtype == torch.int8
    assert screen.q_FD.shape == weight.shape
    assert screen.scales_F3.dtype == torch.float32
    assert screen.q_FD.abs().max() <= 127
    assert (scale >= 0).all()
    rounded = scale[:, None] * screen.q_FD.double()
    for i, (whole, row) in enumerate(zip(weight.double().tolist(), rounded.tolist(), strict=True)):
        assert math.dist(whole, row) <= left[i], "what rounding left out"
        assert math.hypot(*row) <= norm[i], "what it kept"
    is_large = weight.double().norm(dim=-1) > 1e38
    assert (is_large | (norm <= 1.001 * (weight.double().norm(dim=-1) + left) + 2.0**-140)).all(), "loose"
    if kind == "normal":
        error = (weight.double() - rounded).norm(dim=-1)
        assert (left <= 1.001 * error + 1e-6 * weight.double().norm(dim=-1)).all(), "loose"
        assert (error <= 0.51 * scale * width**0.5).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_that_is_not_finite_has_no_finite_bound_and_spoils_no_other(bad, dtype):
    weight = torch.randn(5, 9).to(dtype)
    expected = screen_of(weight)
    weight[2, 4] = bad
    screen = screen_of(weight)
    assert not screen.scales_F3[2, 1].isfinite()
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(screen.q_FD[others], expected.q_FD[others])
    assert torch.equal(screen.scales_F3[others], expected.scales_F3[others])


def test_large_weights_are_screened_in_chunks(monkeypatch):
    weight = torch.randn(50, 7)
    expected = screen_of(weight)
    for entries in (1, 7, 30, 349):
        monkeypatch.setattr(module, "_CHUNK_ENTRIES", entries)
        screen = screen_of(weight)
        assert torch.equal(screen.q_FD, expected.q_FD)
        assert torch.equal(screen.scales_F3, expected.scales_F3)


def test_it_adds_a_byte_for_each_weight_and_twelve_for_each_neuron():
    assert screen_of(torch.randn(50, 7)).num_bytes == 50 * 7 + 50 * 12
    assert screen_of(torch.randn(50, 7).bfloat16()).num_bytes == 50 * 7 + 50 * 12


def test_parameters_and_views_may_be_screened():
    weight = torch.nn.Parameter(torch.randn(7, 50))
    screen = screen_of(weight.T)
    assert not screen.scales_F3.requires_grad
    assert torch.equal(screen.q_FD, screen_of(weight.detach().T.contiguous()).q_FD)
