"""Sites of many model families, built from tiny configs without a hub: right names and number, no head among them."""

import re
import warnings
from collections import Counter
from typing import Any

import pytest
import torch
import transformers as hf

from lazyneuron.sites import NoSitesError, Site, find_sites
from lazyneuron.sites.select import given_sites
from tests.families import mixed, speech, text, vision
from tests.families.configs import DEEPSEEK, IDS, T5, TEXT

FAMILIES = text.FAMILIES | vision.FAMILIES | speech.FAMILIES | mixed.FAMILIES


def build(name: str, configuration: Any) -> torch.nn.Module:
    kind = getattr(hf, name)
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        return kind(configuration() if callable(configuration) else kind.config_class(**configuration))


def starred(name: str) -> str:
    """A path with a star for each number: of a layer, of an expert."""
    return ".".join(re.sub(r"^(expert_)?\d+$", r"\1*", part) for part in name.split("."))


def weights(site: Site) -> tuple[str | None, ...]:
    """The names of up, gate and down inside the site (starred where they are outside), and the activation."""
    start = f"{site.name}."
    names = (site.up, site.gate, site.down)
    inside = [name and (name.removeprefix(start) if name.startswith(start) else starred(name)) for name in names]
    return (*inside, site.activation)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_these_mlps_and_no_others(family):
    configuration, inputs, expected = FAMILIES[family]
    model = build(family.split(",")[0], configuration)
    if not expected:
        with pytest.raises(NoSitesError):
            find_sites(model, inputs)
        return
    sites = find_sites(model, inputs)
    count = Counter(starred(site.name) for site in sites)
    assert count == {name: number for name, (number, _) in expected.items()}
    assert {(starred(site.name), weights(site)) for site in sites} == {(name, w) for name, (_, w) in expected.items()}
    assert len({site.name for site in sites}) == len({site.down for site in sites}) == len(sites)
    assert given_sites(model, sites) == sites


@pytest.mark.filterwarnings("ignore")
def test_routed_and_shared_experts_are_apart():
    sites = find_sites(build("DeepseekV3ForCausalLM", DEEPSEEK), TEXT)
    assert [(site.name.removeprefix("model.layers."), site.d_ff) for site in sites] == [
        ("0.mlp", 32),
        ("1.mlp.experts", 8),
        ("1.mlp.shared_experts", 8),
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_experts_are_found_however_they_are_computed(implementation):
    configuration, inputs, expected = FAMILIES["GptOssForCausalLM"]
    model = build("GptOssForCausalLM", configuration)
    model.set_experts_implementation(implementation)
    sites = find_sites(model, inputs)
    assert [site.name for site in sites] == [f"model.layers.{i}.mlp.experts" for i in (0, 1)]
    assert {weights(site) for site in sites} == {w for _, w in expected.values()}


@pytest.mark.filterwarnings("ignore")
def test_an_expert_that_got_no_token_is_a_site_too():
    experts = {"num_experts": 6, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    one_token = {"input_ids": IDS[:1, :1], "labels": IDS[:1, :1]}
    sites = find_sites(build("SwitchTransformersForConditionalGeneration", T5 | experts), one_token)
    names = [site.name for site in sites]
    assert sorted(name for name in names if "expert" in name) == [
        f"{stack}.block.1.layer.{layer}.mlp.experts.expert_{i}"
        for stack, layer in (("decoder", 2), ("encoder", 1))
        for i in range(6)
    ]
    assert len(names) == len(set(names)) == 14


FC = ("fc1.weight", None, "fc2.weight", "gelu")
TIMM: dict[str, dict[str, tuple[int, tuple[str, str | None, str, str]]]] = {
    "vit_tiny_patch16_224": {"blocks.*.mlp": (12, FC)},
    "deit_tiny_distilled_patch16_224": {"blocks.*.mlp": (12, FC)},
    "vit_huge_patch14_xp_224": {"blocks.*": (32, ("in_proj.weight", None, "mlp_out_proj.weight", "gelu"))},
    "mixer_s32_224": {"blocks.*.mlp_tokens": (8, FC), "blocks.*.mlp_channels": (8, FC)},
    "resmlp_12_224": {"blocks.*.mlp_channels": (12, FC)},
    "gmlp_ti16_224": {"blocks.*.mlp_channels": (30, ("fc1.weight", "fc1.weight", "fc2.weight", "gelu"))},
    "convnext_atto": {"stages.*.blocks.*.mlp": (12, FC)},
    "convnextv2_atto": {"stages.*.blocks.*.mlp": (12, FC)},
    "swin_tiny_patch4_window7_224": {"layers.*.blocks.*.mlp": (12, FC)},
    "swinv2_tiny_window8_256": {"layers.*.blocks.*.mlp": (12, FC)},
    "eva02_tiny_patch14_224": {"blocks.*.mlp": (12, ("fc1.weight", "fc1.weight", "fc2.weight", "silu"))},
    "eva02_base_patch14_224": {"blocks.*.mlp": (12, ("fc1_x.weight", "fc1_g.weight", "fc2.weight", "silu+layer_norm"))},
    "maxvit_tiny_tf_224": {
        f"stages.*.blocks.*.{part}.mlp": (11, (*FC[:3], "gelu")) for part in ("attn_block", "attn_grid")
    },
    "coatnet_nano_rw_224": {"stages.*.blocks.*.mlp": (9, FC)},
    "mvitv2_tiny": {"stages.*.blocks.*.mlp": (10, FC)},
    "pvt_v2_b2_li": {"stages.*.blocks.*.mlp": (16, (*FC[:3], "relu+gelu"))},
    "poolformer_s12": {"stages.*.blocks.*.mlp": (12, FC)},
    "starnet_s050": {"stages.*.*": (6, ("f2.conv.weight", "f1.conv.weight", "g.conv.weight", "relu6"))},
    "efficientnet_b0": {},
    "mobilenetv3_small_050": {},
    "seresnet50": {},
    "resnet50": {},
    "resnet50_mlp": {},
    "regnety_002": {},
    "hgnetv2_b0": {},
    "darknetaa53": {},
    "densenet121": {},
}


@pytest.mark.parametrize("name", TIMM)
def test_a_model_of_timm_has_these_mlps_and_no_squeeze_excite(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        images = torch.empty(2, *model.default_cfg["input_size"])
    expected = TIMM[name]
    try:
        sites = find_sites(model, images)
    except NoSitesError:
        sites = []
    assert Counter(starred(site.name) for site in sites) == {key: number for key, (number, _) in expected.items()}
    assert {(starred(site.name), weights(site)) for site in sites} == {(key, w) for key, (_, w) in expected.items()}


@pytest.mark.xfail(strict=True, reason="a depthwise convolution after the activation, as in a MobileNet's bottleneck")
def test_a_convolutional_mlp_with_two_activations_is_found():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("efficientformerv2_s0")
        images = torch.empty(2, *model.default_cfg["input_size"])
    assert find_sites(model, images)
