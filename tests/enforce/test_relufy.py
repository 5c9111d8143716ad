"""ReLU takes the place of smooth activations in MLPs, the config keeps it, and what cannot be swapped is refused."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import logging

from lazyneuron.enforce.relufy import relufy
from lazyneuron.errors import UsageError
from lazyneuron.sites import dummy_inputs, find_sites

IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2}
VIT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8}
OTHERS: dict[str, Any] = {
    "gated t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(**SIZES, feed_forward_proj="gated-gelu", decoder_start_token_id=0, eos_token_id=1)
    ),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT, patch_size=4)),
}


@pytest.fixture(autouse=True)
def _no_bars():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def outputs(model: Any, inputs: Any) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "mixtral", "gated t5", "vit"])
def test_hugging_face_models_keep_it(build, family, tmp_path):
    torch.manual_seed(0)
    model = OTHERS[family]().eval() if family in OTHERS else build(family)
    inputs = dummy_inputs(model)
    assert inputs is not None
    before, state = outputs(model, inputs), {name: p.clone() for name, p in model.state_dict().items()}
    swapped = relufy(model)
    assert {type(model.get_submodule(name)) for name in swapped} == {nn.ReLU}
    assert {site.activation for site in find_sites(model, inputs)} == {"relu"}
    assert not torch.equal(outputs(model, inputs), before)
    assert all(torch.equal(p, state[name]) for name, p in model.state_dict().items())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(outputs(again, inputs), outputs(model, inputs))
    assert relufy(model) == []


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU])
def test_models_of_ones_own(stack, x, activation):
    model, twin = stack(activation=activation), stack()
    assert relufy(model, x) == ["0.act", "1.act"]
    assert torch.equal(model(x), twin(x))
    with pytest.raises(UsageError, match="Stack has no dummy inputs: pass a batch as example_inputs="):
        relufy(model)


def test_other_activations_stay(x):
    """A smooth gate of attention, or a head's, is none of an MLP's."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.silu, self.up, self.down = nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 12), nn.Linear(12, 8)
            self.act = nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(self.act(self.up(F.layer_norm(self.silu(self.before(x)), (8,)))))

    model = nn.Sequential(Block(), Block())
    assert relufy(model, x) == ["0.act", "1.act"]
    assert type(model[0].silu) is nn.SiLU


def test_experts_without_a_token_are_swapped(x):
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([self.expert() for _ in range(3)])

        @staticmethod
        def expert() -> nn.Module:
            made = nn.Sequential()
            made.up, made.act, made.down = nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)
            return made

        def forward(self, x: Tensor) -> Tensor:
            return x + self.experts[1](x)

    assert relufy(Experts(), x) == ["experts.0.act", "experts.1.act", "experts.2.act"]


def unchanged(model: nn.Module, inputs: Any, message: str) -> None:
    before = {name: id(module) for name, module in model.named_modules()}
    with pytest.raises(UsageError, match=message):
        relufy(model, inputs)
    assert {name: id(module) for name, module in model.named_modules()} == before


def test_functions_are_refused(x):
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(F.gelu(self.up(x)))

    model = nn.Sequential(Functional(), Functional())
    unchanged(model, x, r"site '0': its activation \(gelu\) is no module that can be replaced")


def test_one_module_for_many_things_is_refused(x):
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.act, self.norm = nn.Linear(8, 12), nn.Linear(12, 8), nn.GELU(), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(self.act(self.up(self.norm(self.act(x)))))

    unchanged(
        nn.Sequential(Shared(), Shared()), x, r"0.act is used outside the MLPs too: give the MLP a module of its own"
    )


def test_a_config_that_cannot_say_it_is_refused(build):
    class Hard(hf.LlamaForCausalLM):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for layer in self.model.layers:
                layer.mlp.act_fn = nn.GELU()

    llama = build("llama")
    message = r"model.layers.0.mlp.act_fn: saving would lose its ReLU, as its config has no entry for it"
    unchanged(Hard(llama.config), None, message)
    llama.config.hidden_act = "relu"
    unchanged(llama, None, message)
