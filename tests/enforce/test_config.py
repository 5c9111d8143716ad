"""What is written into a model's config stays that model's: others may have been built from the same object."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from lazyneuron.enforce.enforce import enforce, enforced, release, set_step
from lazyneuron.enforce.relufy import relufy
from lazyneuron.enforce.saved import from_pretrained
from lazyneuron.enforce.selection import Anneal, TopK
from tests.enforce.conftest import PAIR, SMALL
from tests.enforce.models import run


def saved(model: Any, folder: Path) -> dict[str, Any]:
    """The config that the model leaves in its folder."""
    model.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def shared_configs(model: nn.Module) -> set[frozenset[str]]:
    """Which modules (and parts of the config) hold one config object."""
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, hf.PretrainedConfig):
                holders.setdefault(id(value), []).append(f"{name}.{key}")
    for key, value in vars(model.config).items():
        if isinstance(value, hf.PretrainedConfig):
            holders.setdefault(id(value), []).append(f"config/{key}")
    return {frozenset(names) for names in holders.values()}


def test_a_twin_of_the_same_config_object_stays_dense(build, tmp_path):
    model = build("llama")
    twin = type(model)(model.config).eval()
    dense, config, before = run(twin), model.config, shared_configs(model)
    generation = model.generation_config
    enforce(model, Anneal(1.0, 0.1, num_steps=10))
    set_step(model, 7)
    assert "lazyneuron" not in saved(twin, tmp_path / "twin")
    assert torch.equal(run(from_pretrained(str(tmp_path / "twin"))), dense)
    assert saved(model, tmp_path / "sparse")["lazyneuron"] == enforced(model)
    assert shared_configs(model) == before
    assert model.generation_config is generation
    assert twin.config is config
    release(model)
    assert "lazyneuron" not in saved(model, tmp_path / "released")
    assert shared_configs(model) == before
    enforce(twin, TopK(k=2))
    assert "lazyneuron" not in saved(model, tmp_path / "again")


def test_releasing_one_of_two_leaves_the_other_enforced(build, tmp_path):
    model = build("llama")
    enforce(model, TopK(k=2))
    twin = type(model)(model.config).eval()
    enforce(twin, TopK(k=3))
    release(model)
    assert saved(twin, tmp_path)["lazyneuron"] == enforced(twin)


def test_a_twin_of_a_relufied_model_keeps_its_activation(build, tmp_path):
    model = build("llama")
    twin = type(model)(model.config).eval()
    before = shared_configs(model)
    assert relufy(model)
    assert saved(twin, tmp_path / "twin")["hidden_act"] == "silu"
    assert torch.equal(run(type(twin).from_pretrained(tmp_path / "twin").eval()), run(twin))
    assert saved(model, tmp_path / "relu")["hidden_act"] == "relu"
    assert shared_configs(model) == before


@pytest.mark.parametrize("act", [lambda part: enforce(part, TopK(k=2)), relufy], ids=["enforce", "relufy"])
def test_a_part_is_saved_with_the_whole_model(build, act, tmp_path):
    model = build("llama")
    twin = type(model)(model.config)
    act(model.model)
    assert model.config is model.model.config is not twin.config
    saved(model, tmp_path)
    assert torch.equal(run(from_pretrained(str(tmp_path))), run(model))


def test_the_parts_of_a_composite_config_stay_those_of_the_models_parts():
    vision = hf.ViTConfig(**SMALL, image_size=8, patch_size=4, num_channels=1)
    decoder = hf.BartConfig(**PAIR, add_cross_attention=True, is_decoder=True)
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, decoder)
    model, twin = (hf.VisionEncoderDecoderModel(config) for _ in range(2))
    before = shared_configs(model)
    assert any(len(names) > 2 and any("/" in name for name in names) for names in before), "nothing is shared here"
    enforce(model.encoder, TopK(k=2))
    assert shared_configs(model) == before
    assert model.config.encoder.lazyneuron == enforced(model.encoder)
    assert not hasattr(twin.config.encoder, "lazyneuron")
    release(model.encoder)
    assert not hasattr(model.config.encoder, "lazyneuron")
