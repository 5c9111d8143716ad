"""The builders give the paper's shapes, ReLU everywhere, and about half of the neurons active at the start."""

import pytest
import torch

from lazyneuron.measure import watch
from lazyneuron.paper.models import MIXER_SIZES, MLP, T5_SIZES, VIT_SIZES, MLPMixer, mixer, t5, vit
from lazyneuron.sites import find_sites


@pytest.mark.parametrize(
    ("size", "millions"), [("small", 60.5), ("base", 222.9), ("large", 737.7), ("3b", 2851.6), ("11b", 11307.3)]
)
def test_t5_has_the_published_number_of_parameters(size, millions):
    with torch.device("meta"):
        model = t5(size)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("size", "millions"), [("vit-ti16", 5.7), ("vit-s16", 22.1), ("vit-b16", 86.6), ("vit-l16", 304.3)]
)
def test_vit_has_the_published_number_of_parameters(size, millions):
    with torch.device("meta"):
        model = vit(size)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(("size", "millions"), [("mixer-s16", 18.5), ("mixer-b16", 59.9), ("mixer-l16", 208.2)])
def test_mixer_has_the_published_number_of_parameters(size, millions):
    with torch.device("meta"):
        model = mixer(size)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_t5_sites_are_its_relu_mlps_in_order():
    model = t5("tiny", vocab_size=300)
    tokens = torch.randint(3, 200, (2, 9))
    sites = find_sites(model, {"input_ids": tokens, "decoder_input_ids": tokens})
    assert [site.name.split(".")[0] for site in sites] == ["encoder"] * 3 + ["decoder"] * 3
    assert {(site.activation, site.d_ff, site.gate) for site in sites} == {("relu", 512, None)}


def vit_and_input():
    return vit("vit-tiny", num_classes=10, image_size=12, num_channels=1), torch.randn(64, 1, 12, 12)


def mixer_and_input():
    model = MLPMixer(image_size=12, patch_size=3, num_classes=10, num_channels=1, num_layers=2, d_model=64, d_ff=256)
    return model, torch.randn(64, 1, 12, 12)


def mlp_and_input():
    return MLP(144, 512, 10), torch.randn(64, 1, 12, 12)


@pytest.mark.parametrize(("build", "num_sites"), [(vit_and_input, 4), (mixer_and_input, 4), (mlp_and_input, 1)])
def test_half_of_the_neurons_are_active_at_the_start(build, num_sites):
    torch.manual_seed(0)
    model, images = build()
    sites = find_sites(model, images)
    with watch(model, sites) as probe:
        model(images)
    assert len(sites) == num_sites
    assert all(0.4 < density < 0.6 for density in probe.density.values())


def test_layers_and_width_can_be_replaced():
    model = t5("tiny", vocab_size=300, num_layers=1, d_ff=96)
    assert model.encoder.block[0].layer[1].DenseReluDense.wi.weight.shape == (96, 64)
    assert len(model.encoder.block) == len(model.decoder.block) == 1
    assert len(vit("vit-tiny", image_size=12, num_layers=2).vit.layers) == 2


def test_bad_sizes_name_the_choices():
    with pytest.raises(ValueError, match=f"no T5 size 'huge': choose one of {', '.join(T5_SIZES)}"):
        t5("huge")
    with pytest.raises(ValueError, match=f"no ViT size 'vit': choose one of {', '.join(VIT_SIZES)}"):
        vit("vit")
    with pytest.raises(ValueError, match=f"no Mixer size 'big': choose one of {', '.join(MIXER_SIZES)}"):
        mixer("big")
    with pytest.raises(ValueError, match="patches of 16 pixels do not tile an image of 30"):
        vit("vit-b16", image_size=30)
    with pytest.raises(ValueError, match="patches of 5 pixels do not tile an image of 12"):
        MLPMixer(image_size=12, patch_size=5, num_classes=2)
