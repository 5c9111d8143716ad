"""What tells a sparse layer from one that is blind to its input, by hand and against the formula."""

import pytest
import torch
from torch import nn

from lazyneuron.paper.input_shares import InputShares
from lazyneuron.sites import Site

D, S = 16, 5


class SevenIsNaN(nn.Module):
    def forward(self, x):
        return x.masked_fill(x == 7, float("nan"))


class Mlp(nn.Module):
    """As many neurons as inputs, each of them of its own input alone."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(D, D, bias=False), activation, nn.Linear(D, D, bias=False)
        nn.init.eye_(self.up.weight)

    def forward(self, x):
        return self.down(self.act(self.up(x)))


def shares_of(*batches, activation=None) -> tuple[float, float]:
    """The shares of inputs [B, S, D], whose neuron f fires where input f is above 0."""
    model = Mlp(activation or nn.ReLU())
    site = Site(name="mlp", up="up.weight", gate=None, down="down.weight", d_model=D, d_ff=D, activation="relu")
    shares = InputShares(model, [site])
    with torch.no_grad():
        for batch in batches:  # closed in between
            with shares:
                model(batch)
        model(torch.randn(3, S, D) + 5)
    assert not any(module._forward_pre_hooks for module in model.modules())
    return shares.input_share["mlp"], shares.mean_share["mlp"]


@pytest.fixture
def drawn():
    return torch.Generator().manual_seed(0)


def test_random_maps_follow_the_input(drawn):
    x = torch.randn(400, S, D, generator=drawn)
    input_share, mean_share = shares_of(x)
    assert input_share == pytest.approx(1 - 1 / 400, abs=2e-3)
    assert mean_share < 0.01


def test_a_constant_map_is_blind(drawn):
    x = torch.randn(1, 1, D, generator=drawn).expand(7, S, D)
    assert shares_of(x) == (0, pytest.approx(1))
    assert shares_of(torch.zeros(7, S, D)) == (0, 0)


def test_a_map_of_the_position_alone_is_blind(drawn):
    x = torch.randn(1, S, D, generator=drawn)
    input_share, mean_share = shares_of(x.expand(7, S, D), x.expand(3, S, D))
    assert input_share == pytest.approx(0, abs=1e-12)
    assert mean_share == pytest.approx((x.mean((0, 1)).square().sum() / x.square().sum(-1).mean()).item())


def test_both_shares_are_those_of_the_formula_over_batches_of_any_size(drawn):
    x = torch.randn(11, S, D, generator=drawn) + torch.randn(1, S, D, generator=drawn)
    fired = (x > 0).double()
    at_position, over_all = fired.mean(0), fired.mean((0, 1))
    wanted = (at_position * (1 - at_position)).sum() / (S * (over_all * (1 - over_all)).sum())
    assert 0.2 < wanted < 0.8
    mean = x.mean((0, 1)).square().sum() / x.square().sum(-1).mean()
    assert shares_of(x) == shares_of(x[:4], x[4:5], x[5:]) == pytest.approx((wanted.item(), mean.item()), rel=1e-6)


def test_every_nonzero_entry_counts_whatever_its_sign_and_nan_does_not(drawn):
    x = torch.randn(50, S, D, generator=drawn)
    assert shares_of(x, activation=nn.Identity())[0] == 0  # all fire always
    x = (x + torch.randn(1, S, D, generator=drawn)).relu()
    x[:, :, 0] = 0
    wanted = shares_of(x, activation=nn.Identity())[0]
    assert 0.2 < wanted < 0.8
    x[:, :, 0] = 7
    assert shares_of(-x, activation=nn.Identity())[0] == wanted
    x[::2, :, 0] = 0
    assert shares_of(x, activation=SevenIsNaN())[0] == wanted


def test_shorter_batches_count_at_their_own_positions():
    long = torch.ones(2, S, D)
    short = -torch.ones(2, 2, D)
    fired = torch.tensor([0.5, 0.5, 1, 1, 1]), torch.tensor([4.0, 4, 2, 2, 2])
    rate = (fired[0] * fired[1]).sum() / fired[1].sum()
    wanted = (fired[1] * fired[0] * (1 - fired[0])).sum() / (fired[1].sum() * rate * (1 - rate))
    assert shares_of(long, short)[0] == shares_of(short, long)[0] == pytest.approx(wanted.item())
