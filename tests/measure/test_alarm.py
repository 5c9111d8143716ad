"""A model that is not what its config declares is reported by warning, table and records; all others are not."""

import warnings
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.measure.alarm import Alarm, alarm_texts, alarms
from lazyneuron.measure.probe_records import firing_records
from tests.families.configs import IDS, LLAMA
from tests.test_families import FAMILIES, build


def bitnet(activation: nn.Module | None) -> nn.Module:
    """BitNet, whose config declares ReLU², run with another activation in its place."""
    torch.manual_seed(0)
    model: Any = hf.BitNetForCausalLM(hf.BitNetConfig(**LLAMA)).eval()
    if activation is not None:
        for layer in model.model.layers:
            layer.mlp.act_fn = activation
    return model


def test_bitnet_run_with_silu_raises_the_alarm():
    model = bitnet(nn.SiLU())
    probe = lazy.watch(model).attach()
    model(input_ids=IDS)
    with pytest.warns(UserWarning, match=r"relu2 declared, silu traced, and 100.00 % of the neurons are active at"):
        probe.detach()
    assert [alarm.site for alarm in probe.alarms] == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert "relu2 declared, silu traced" in str(probe.table()).splitlines()[-1]
    records = [r for r in firing_records(probe, recipe="x", seed=0) if r.what == "unlike_config"]
    assert [(r.site, r.value, r.case) for r in records] == [
        (alarm.site, alarm.density, "relu2 declared, silu traced") for alarm in probe.alarms
    ]
    with warnings.catch_warnings(action="error"), probe:  # once
        model(input_ids=IDS)
    with pytest.warns(UserWarning, match="silu traced"), lazy.watch(model):  # by `with` too
        model(input_ids=IDS)


def test_the_model_as_it_was_trained_raises_none():
    model = bitnet(None)
    with lazy.watch(model) as probe:
        model(input_ids=IDS)
    assert probe.declared == {"model.layers.0.mlp": "relu2", "model.layers.1.mlp": "relu2"}
    assert probe.alarms == []
    assert "config" not in str(probe.table())


def test_a_selection_in_force_and_a_relufied_model_raise_none():
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)).eval()
    inputs = {"input_ids": IDS}
    lazy.enforce(model, lazy.TopK(k=4), example_inputs=inputs)
    for _ in range(2):
        with lazy.watch(model) as probe:
            model(**inputs)
        assert probe.alarms == []
        lazy.release(model)
        lazy.relufy(model, inputs)
    assert probe.density["model.layers.0.mlp"] < 0.7


def site(activation: str) -> lazy.Site:
    return lazy.Site("mlp", "up", None, "down", 4, 8, activation)


@pytest.mark.parametrize(
    ("declared", "traced", "density", "is_alarm"),
    [
        ("relu", "relu", 0.99, True),
        ("relu", "relu", 0.98, False),
        ("ReLU2", "silu", 0.8, True),
        ("relu2", "gelu", 0.5, False),  # the sites may have been found in another model
        ("relu", "relu", float("nan"), False),
        ("silu", "silu", 1.0, False),
        ("silu", "relu", 0.5, True),
        ("gelu_new", "relu^2", 0.1, True),
        ("silu", "relu", 1.0, False),
        ("gelu_pytorch_tanh", "relu+gelu", 0.05, False),  # Gemma 3n
        ("tanh", "relu", 0.5, False),
    ],
)
def test_the_rule(declared, traced, density, is_alarm):
    assert bool(alarms([site(traced)], {"mlp": declared}, {"mlp": density})) == is_alarm
    assert alarms([site(traced)], {}, {"mlp": density}) == []


def test_many_sites_are_named_in_one_sentence():
    found = [Alarm(f"layers.{n}", "relu declared, silu traced", 0.99 + n / 1000) for n in range(5)]
    (text,) = alarm_texts(found)
    assert "relu declared, silu traced, and 99.00 to 99.40 % of the neurons are active at layers.0, layers.1" in text
    assert "layers.2 and 2 more" in text


class ChannelMix(nn.Module):
    """RWKV-7's channel mix (arXiv 2503.14456): input mixed with the token before, squared ReLU, no gate."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.x_k = nn.Parameter(torch.rand(d_model))
        self.key, self.value = nn.Linear(d_model, d_ff, bias=False), nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        before = torch.nn.functional.pad(x, (0, 0, 1, -1))
        return self.value(torch.relu(self.key(x + (before - x) * self.x_k)) ** 2)


class Block(nn.Module):
    """A residual channel mix."""

    def __init__(self) -> None:
        super().__init__()
        self.ffn = ChannelMix(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [
    "ArceeForCausalLM", "BitNetForCausalLM", "NanoChatForCausalLM", "PersimmonForCausalLM", "NemotronHForCausalLM",
    "RwkvForCausalLM", "Gemma3nForCausalLM, sparse", "RWKV-7",
])  # fmt: skip
def test_sparse_families_are_counted_as_by_hand(name):
    """The counts are those of what enters the down projection: after ReLU², or Gemma 3n's Gaussian top-k."""
    torch.manual_seed(0)
    if name == "RWKV-7":
        model, inputs = nn.Sequential(Block(), Block()), {"input": torch.randn(2, 7, 8)}
    else:
        model, inputs = build(name.split(",")[0], FAMILIES[name][0]), FAMILIES[name][1]
    activation = "relu+gelu" if "Gemma" in name else "relu^2"
    model.eval()
    sites = lazy.find_sites(model, inputs)
    assert {site.activation for site in sites} == {activation}
    by_hand: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    modules = dict(model.named_modules())
    plain = [site for site in sites if site.down.removesuffix(".weight") in modules]
    for site in plain:  # experts' weights are no modules
        owner = modules[site.down.removesuffix(".weight")]
        owner.register_forward_pre_hook(lambda _, args, name=site.name: by_hand[name].append(args[0].flatten(0, -2)))
    with torch.no_grad(), lazy.watch(model, sites) as probe:
        model(**inputs)
    assert plain
    for site in plain:
        h_TF = torch.cat(by_hand[site.name])
        assert probe.num_tokens[site.name] == len(h_TF) == 14
        assert torch.equal(probe.firing_rate[site.name], (h_TF != 0).double().mean(0))
    assert probe.alarms == []
    assert max(probe.density.values()) < 0.75
    if "Gemma" in name:
        assert max(probe.density.values()) < 0.2  # 5 % are asked for
