"""What a site knows about itself, and the table of sites."""

import pytest
import torch
from torch import nn

from lazyneuron.sites import RELU_LIKE, Site, find_sites, given_sites, site_table
from tests.sites.models import MLP, SITES, Residual


def test_a_site_knows_whether_it_is_gated_and_where_its_neurons_are() -> None:
    """Linear layers have their neurons last, convolutions before their image axes."""
    assert [(site.is_gated, site.axis) for site in SITES] == [(False, -1), (True, -1), (False, -1)]
    for convolution, axis in ((nn.Conv1d, -2), (nn.Conv2d, -3), (nn.Conv3d, -4)):
        model = Residual(nn.Sequential(convolution(8, 12, 1), nn.ReLU(), convolution(12, 8, 1, groups=4)))
        (site,) = find_sites(model, torch.ones(2, 8, *[4] * (-1 - axis)))
        assert (site.axis, site.d_model, site.d_ff) == (axis, 8, 12)
        assert given_sites(model, [site]) == [site]
    (site,) = find_sites(
        Residual(nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.ConvTranspose2d(12, 8, 1))), torch.ones(2, 8, 4, 4)
    )
    assert (site.d_model, site.d_ff) == (8, 12)


@pytest.mark.parametrize(
    "act",
    [torch.relu, nn.functional.relu6, lambda u: u.relu() ** 2, nn.functional.gelu, nn.functional.silu, torch.tanh],
)
def test_relu_like_activations_are_those_that_leave_zeros(act) -> None:
    (site,) = find_sites(Residual(MLP(act)), torch.ones(2, 8))
    assert (site.activation in RELU_LIKE) == bool((act(torch.linspace(-2, 2, 100)) == 0).any())


def test_the_table_of_sites_is_aligned() -> None:
    """A leading dot stands for the site's name; a site that is the model itself has none."""
    whole = Site("", "0.weight", None, "2.weight", 8, 1200, "gelu", -3)
    assert str(site_table([SITES[1], whole])).splitlines() == [
        "site      up         gate       down       d_model  d_ff  activation  axis",
        "blocks.1  .a.weight  .b.weight  .c.weight        8     6  relu          -1",
        "(model)   0.weight   -          2.weight         8  1200  gelu          -3",
    ]
