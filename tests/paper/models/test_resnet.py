"""The ResNet has the published sizes, and the density of its maps is that of its ReLUs, counted by hand."""

import pytest
import torch

from lazyneuron.measure import watch
from lazyneuron.paper.models import RESNET_SIZES, resnet
from lazyneuron.sites import NoSitesError, find_sites, numbered


@pytest.mark.parametrize(("size", "millions"), [("resnet20", 0.27), ("resnet56", 0.85)])
def test_it_has_the_published_number_of_parameters(size, millions):
    with torch.device("meta"):
        model = resnet(size)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_stages_halve_the_image_and_double_the_channels():
    model, shapes = resnet("resnet8", num_classes=7, num_channels=1).eval(), []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[1:])))
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 7)
    assert shapes == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]
    assert model(torch.randn(2, 1, 12, 12)).shape == (2, 7)


def test_a_block_is_two_convolutions_and_a_shortcut():
    """Without its convolutions it is the shortcut under a ReLU: the image itself where the shape stays."""
    torch.manual_seed(0)
    model = resnet("resnet20").eval()
    x = torch.randn(2, 16, 8, 8)
    same, halving = model.blocks[1], model.blocks[3]
    for block in (same, halving):
        block.conv2.weight.data.zero_()
    assert torch.equal(same(x), x.relu())
    expected = torch.einsum("oi,bihw->bohw", halving.shortcut.weight[:, :, 0, 0], x[:, :, ::2, ::2]).relu()
    torch.testing.assert_close(halving(x), expected)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_density_is_that_of_the_relu_inside_each_block(is_training):
    torch.manual_seed(0)
    model, images = resnet("resnet8", num_channels=1).train(is_training), torch.randn(6, 1, 12, 12)
    counted = []
    for block in model.blocks:
        block.norm1.bias.data.fill_(-0.5 * (1 + len(counted)))
        block.norm1.register_forward_hook(lambda module, args, output: counted.append(output > 0))
    with watch(model, model.sites()) as probe:
        model(images)
    assert list(probe.density.values()) == [mask.double().mean().item() for mask in counted]
    assert list(probe.num_active.values()) == [pytest.approx(mask.sum(1).double().mean().item()) for mask in counted]
    assert len(set(probe.density.values())) == 3


def test_every_block_has_a_site_and_tracing_finds_none():
    model = resnet("resnet20", num_channels=1)
    sites = model.sites()
    assert [(site.name, site.d_model, site.d_ff) for site in sites][::3] == [
        ("blocks.0", 16, 16),
        ("blocks.3", 16, 32),
        ("blocks.6", 32, 64),
    ]
    assert [(stack, layer) for stack, layer, _ in numbered(sites)] == [("", n) for n in range(9)]
    with pytest.raises(NoSitesError):
        find_sites(model, torch.randn(1, 1, 12, 12))


def test_half_of_the_maps_are_active_at_the_start():
    torch.manual_seed(0)
    model, images = resnet("resnet20", num_channels=1), torch.randn(64, 1, 12, 12)
    with watch(model, model.sites()) as probe:
        model(images)
    assert all(0.4 < density < 0.6 for density in probe.density.values())


def test_a_bad_size_names_the_choices():
    with pytest.raises(ValueError, match=f"no ResNet size 'huge': choose one of {', '.join(RESNET_SIZES)}"):
        resnet("huge")
