"""The MLPs of whole models are found, and an error explains why there is none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from lazyneuron.sites import NoSitesError, Site, find_sites
from tests.sites.models import IDS, T5, Reached, SqueezeExcite, _downs

IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


BERT = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


LLAMA = BERT | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


VIT = BERT | {"image_size": 8, "patch_size": 4}


GPT2 = {"vocab_size": 50, "n_embd": 16, "n_inner": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}


OPT = {"vocab_size": 50, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


OPT |= {"word_embed_proj_dim": 16}


T5_MLPS = [f"encoder.block.{i}.layer.1.DenseReluDense" for i in (0, 1)]


T5_MLPS += [f"decoder.block.{i}.layer.2.DenseReluDense" for i in (0, 1)]


# id, model, inputs, names of its MLPs, up, gate, down within each, activation
FAMILIES: list[tuple[Any, ...]] = [
    (
        "t5",
        lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
        {"input_ids": IDS, "labels": IDS},
        T5_MLPS,
        ("wi.weight", None, "wo.weight", "relu"),
    ),
    (
        "t5-v1.1",
        lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, feed_forward_proj="gated-gelu")),
        {"input_ids": IDS, "labels": IDS},
        T5_MLPS,
        ("wi_1.weight", "wi_0.weight", "wo.weight", "gelu"),
    ),
    (
        "vit, as many labels as d_model",
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT, num_labels=16)),
        {"pixel_values": IMAGES},
        ["vit.layers.0.mlp", "vit.layers.1.mlp"],
        ("fc1.weight", None, "fc2.weight", "gelu"),
    ),
    (
        "bert with pooler and classifier",
        lambda: hf.BertForSequenceClassification(hf.BertConfig(**BERT, num_labels=16)),
        {"input_ids": IDS},
        ["bert.encoder.layer.0", "bert.encoder.layer.1"],
        ("intermediate.dense.weight", None, "output.dense.weight", "gelu"),
    ),
    (
        "bert with its language-model head",
        lambda: hf.BertForMaskedLM(hf.BertConfig(**BERT)),
        {"input_ids": IDS},
        ["bert.encoder.layer.0", "bert.encoder.layer.1"],
        ("intermediate.dense.weight", None, "output.dense.weight", "gelu"),
    ),
    (
        "gpt2 stores in x out and computes GELU from tanh",
        lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2)),
        {"input_ids": IDS},
        ["transformer.h.0.mlp", "transformer.h.1.mlp"],
        ("c_fc.weight", None, "c_proj.weight", "gelu"),
    ),
    (
        "opt",
        lambda: hf.OPTForCausalLM(hf.OPTConfig(**OPT)),
        {"input_ids": IDS},
        ["model.decoder.layers.0", "model.decoder.layers.1"],
        ("fc1.weight", None, "fc2.weight", "relu"),
    ),
    (
        "llama",
        lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)),
        {"input_ids": IDS},
        ["model.layers.0.mlp", "model.layers.1.mlp"],
        ("up_proj.weight", "gate_proj.weight", "down_proj.weight", "silu"),
    ),
    (
        "phi3 has one fused weight",
        lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**LLAMA)),
        {"input_ids": IDS},
        ["model.layers.0.mlp", "model.layers.1.mlp"],
        ("gate_up_proj.weight", "gate_up_proj.weight", "down_proj.weight", "silu"),
    ),
    (
        "nemotron squares its relu",
        lambda: hf.NemotronForCausalLM(hf.NemotronConfig(**LLAMA)),
        {"input_ids": IDS},
        ["model.layers.0.mlp", "model.layers.1.mlp"],
        ("up_proj.weight", None, "down_proj.weight", "relu^2"),
    ),
    (
        "mixtral has 3-D experts",
        lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**LLAMA)),
        {"input_ids": IDS},
        ["model.layers.0.mlp.experts", "model.layers.1.mlp.experts"],
        ("gate_up_proj", "gate_up_proj", "down_proj", "silu"),
    ),
]


@pytest.mark.parametrize(("build", "inputs", "names", "parts"), [f[1:] for f in FAMILIES], ids=[f[0] for f in FAMILIES])
def test_families(
    build: Callable[[], nn.Module], inputs: dict[str, Tensor], names: list[str], parts: tuple[str | None, ...]
) -> None:
    """Every MLP and nothing else (no attention, pooler, classifier, head), in order, with all of its fields right."""
    up, gate, down, activation = parts
    expected = [
        Site(name, f"{name}.{up}", f"{name}.{gate}" if gate else None, f"{name}.{down}", 16, 32, str(activation))
        for name in names
    ]
    model = build()
    assert find_sites(model, inputs) == expected
    assert {site.down for site in expected} <= dict(model.named_parameters()).keys()


class Attention(nn.Module):
    """Attention written out, with a nonlinear feature map on the queries, as linear attention has."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        scores = F.relu(self.q(x)) @ self.k(x).transpose(-1, -2)
        return self.o(scores.softmax(-1) @ self.v(x))


def test_plain_mlp_is_a_site_named_as_the_model() -> None:
    """A two-layer classifier alone is an MLP, although its output is no residual stream."""
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    assert find_sites(model, torch.ones(2, 8)) == [Site("", "0.weight", None, "2.weight", 8, 12, "relu")]


def test_transformer_encoder_in_eval_mode() -> None:
    """The fused inference path of torch does not hide the linears, and is back on afterwards."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    assert _downs(model, 2, 5, 8) == ["layers.0.linear2.weight", "layers.1.linear2.weight"]
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("model", "shape"), [(Attention(), (2, 5, 8)), (SqueezeExcite(), (2, 8, 4, 4)), (nn.Linear(8, 3), (2, 8))]
)
def test_no_site_is_an_error_that_says_what_was_seen(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Attention, squeeze-excite and one linear are no MLPs; the message names a weight and the way out."""
    first = next(iter(dict(model.named_parameters())))
    with pytest.raises(NoSitesError, match=rf"no MLP found in {type(model).__name__}: saw .*{first}.*sites=\[Site"):
        find_sites(model, torch.ones(shape))


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Linear(8, 3), (2, 8), "saw 1 linear weight (weight) and no nonlinearities, but none of these linears ta"),
        (Attention(), (2, 5, 8), "saw 4 linear weights (q.weight, k.weight, v.weight, o.weight) and 1 nonlinearity (r"),
        (
            SqueezeExcite(),
            (2, 8, 4, 4),
            "the linear after a nonlinearity only scales other activations (expand.weight); pas",
        ),
        (Reached(), (2, 8), "did not reach 4 weights (inner.blocks.0.w1.weight, inner.blocks.0.w2.weight, inner.blo"),
    ],
)
def test_no_site_is_explained_by_what_the_pass_saw(model: nn.Module, shape: tuple[int, ...], message: str) -> None:
    """Linears without a nonlinearity between, factors, and MLPs that the inputs did not reach are told apart."""
    with pytest.raises(NoSitesError) as caught:
        find_sites(model, torch.ones(shape))
    assert message in str(caught.value)
    assert str(caught.value).endswith("pass sites=[Site(...)] naming its weights as in named_parameters()")
