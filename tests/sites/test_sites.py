"""Sites are found in models of many families, nothing else is taken for one, and tracing leaves no trace."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from lazyneuron.sites import NoSitesError, Site, find_sites, given_sites, site_table

IDS = torch.arange(3, 17).reshape(2, 7)
IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}
T5 |= {"decoder_start_token_id": 0}
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


class Residual(nn.Module):
    """x + f(x) for each of some modules."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class MLP(nn.Module):
    """An MLP around any activation function."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.relu, d_ff: int = 12) -> None:
        super().__init__()
        self.act = act
        self.w1, self.w2 = nn.Linear(8, d_ff), nn.Linear(d_ff, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.act(self.w1(x)))


class Gated(nn.Module):
    """act(gate(x)) * up(x), with the up branch computed first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        up = self.a(x)
        return self.c(up * F.relu(self.b(x)))


class Attention(nn.Module):
    """Attention written out, with a nonlinear feature map on the queries, as linear attention has."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        scores = F.relu(self.q(x)) @ self.k(x).transpose(-1, -2)
        return self.o(scores.softmax(-1) @ self.v(x))


class SqueezeExcite(nn.Module):
    """A bottleneck over the image's mean whose output scales the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()


class Transposed(nn.Module):
    """Mixer's token mixing: the MLP runs over the token axis."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)


def _downs(model: nn.Module, *shape: int) -> list[str]:
    return [site.down for site in find_sites(model, torch.randn(*shape, generator=torch.Generator().manual_seed(0)))]


def _gelu_by_hand(u: Tensor) -> Tensor:
    return 0.5 * u * (1 + torch.tanh(0.79788456 * (u + 0.044715 * u**3)))


def _top_k(u: Tensor) -> Tensor:
    values, indices = F.relu(u).topk(3, dim=-1)
    return torch.zeros_like(u).scatter(-1, indices, values)


def _squared(u: Tensor) -> Tensor:
    h = u.relu()
    return h * h


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "function": (F.relu, "relu"),
    "in place": (nn.ReLU(inplace=True), "relu"),
    "clamp": (lambda u: u.clamp_min(0), "relu"),
    "square": (lambda u: F.relu(u).square(), "relu^2"),
    "product with itself": (_squared, "relu^2"),
    "gelu from tanh": (_gelu_by_hand, "gelu"),
    "gelu from erf": (lambda u: 0.5 * u * (1 + torch.erf(u / 2**0.5)), "gelu"),
    "gelu from tanh by products": (lambda u: u * 0.5 * (1 + torch.tanh(0.8 * u * (1 + 0.04 * u * u))), "gelu"),
    "sigmoid times its input": (lambda u: u * torch.sigmoid(1.702 * u), "sigmoid+mul"),
    "dropout after": (lambda u: F.dropout(F.silu(u), 0.5), "silu"),
    "times its mask": (lambda u: u * (u > 0), "gt"),
    "where": (lambda u: torch.where(u > 0, u, torch.zeros_like(u)), "gt"),
    "masked_fill": (lambda u: u.masked_fill(u < 0, 0.0), "lt"),
    "top-k": (_top_k, "relu+topk"),
}


@pytest.mark.parametrize(("act", "name"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activations_are_named_and_never_look_gated(act: Callable[[Tensor], Tensor], name: str) -> None:
    """Functional, in-place and hand-written nonlinearities give one plain site each."""
    expected = Site("blocks.0", "blocks.0.w1.weight", None, "blocks.0.w2.weight", 8, 12, name)
    assert find_sites(Residual(MLP(act)), torch.ones(3, 8)) == [expected]


def test_masking_with_a_constant_is_no_activation() -> None:
    """Two linears with a padding mask between them are no MLP."""
    padding = torch.arange(12) > 6
    with pytest.raises(NoSitesError):
        find_sites(Residual(MLP(lambda u: u.masked_fill(padding, 0.0))), torch.ones(3, 8))


def test_plain_mlp_is_a_site_named_as_the_model() -> None:
    """A two-layer classifier alone is an MLP, although its output is no residual stream."""
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    assert find_sites(model, torch.ones(2, 8)) == [Site("", "0.weight", None, "2.weight", 8, 12, "relu")]


def test_gate_is_the_activated_branch_whatever_the_order() -> None:
    """The gate is told from up by the nonlinearity, also with d_ff below d_model."""
    assert find_sites(Residual(Gated()), torch.ones(2, 8)) == [
        Site("blocks.0", "blocks.0.a.weight", "blocks.0.b.weight", "blocks.0.c.weight", 8, 6, "relu")
    ]


def test_transformer_encoder_in_eval_mode() -> None:
    """The fused inference path of torch does not hide the linears, and is back on afterwards."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    assert _downs(model, 2, 5, 8) == ["layers.0.linear2.weight", "layers.1.linear2.weight"]
    assert torch.backends.mha.get_fastpath_enabled()


def test_mixer_has_token_and_channel_sites() -> None:
    """MLPs over the transposed axis count too; two MLPs directly in one module get names of their own."""
    token = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5))
    sites = find_sites(Residual(Transposed(token), MLP(F.gelu)), torch.ones(2, 5, 8))
    assert [(s.name, s.d_model, s.d_ff) for s in sites] == [("blocks.0.mlp", 5, 7), ("blocks.1", 8, 12)]
    flat = Residual(*(nn.Linear(8, 8) for _ in range(4)))
    a, b, c, d = flat.blocks
    flat.forward = lambda x: x + b(a(x).relu()) + d(c(x).relu())
    assert [site.name for site in find_sites(flat, torch.ones(2, 8))] == ["blocks.1", "blocks.3"]


def test_convolutions_of_size_one_are_linears() -> None:
    """1x1 convolutions with batch norm between are MLPs; 3x3 convolutions are not."""

    def block(size: int) -> nn.Module:
        up, down = nn.Conv2d(8, 12, size, padding=size // 2), nn.Conv2d(12, 8, size, padding=size // 2)
        return nn.Sequential(up, nn.BatchNorm2d(12), nn.ReLU(), down)

    assert _downs(Residual(block(1), block(1), block(3)), 2, 8, 4, 4) == ["blocks.0.3.weight", "blocks.1.3.weight"]


def test_shared_modules_and_tied_weights_are_one_site_each() -> None:
    """A module used twice is one site; a tied up weight serves two sites with different downs."""
    shared = MLP()
    assert _downs(Residual(shared, shared), 2, 8) == ["blocks.0.w2.weight"]
    tied = Residual(MLP(), MLP())
    tied.blocks[1].w1.weight = tied.blocks[0].w1.weight
    assert [s.up for s in find_sites(tied, torch.ones(2, 8))] == ["blocks.0.w1.weight"] * 2


def test_weights_are_recognised_behind_views_casts_and_parametrizations() -> None:
    """A weight used as a transposed view, an autocast copy, or computed from parameters keeps its name."""
    model = Residual(MLP())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _downs(model, 2, 8) == ["blocks.0.w2.weight"]
    mlp = MLP()
    mlp.w2 = weight_norm(mlp.w2)
    assert _downs(Residual(mlp), 2, 8) == ["blocks.0.w2.parametrizations.weight.original1"]
    bare = Residual()
    bare.up, bare.down = nn.Parameter(torch.ones(8, 12)), nn.Parameter(torch.ones(8, 12))
    bare.forward = lambda x: x + (x @ bare.up).relu() @ bare.down.t()
    assert _downs(bare, 2, 8) == ["down"]


def test_heads_beside_blocks_are_dropped() -> None:
    """A deep head, a pooler with classifier, and squeeze-excite are no sites."""
    head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    assert _downs(nn.Sequential(Residual(MLP(), MLP()), nn.LayerNorm(8), head), 2, 8) == [
        f"0.blocks.{i}.w2.weight" for i in (0, 1)
    ]
    pooler = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    assert _downs(nn.Sequential(Residual(MLP()), nn.LayerNorm(8), pooler), 2, 8) == ["0.blocks.0.w2.weight"]
    conv = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 1))
    assert _downs(Residual(SqueezeExcite(), conv, SqueezeExcite()), 2, 8, 4, 4) == ["blocks.1.2.weight"]


@pytest.mark.parametrize(
    ("model", "shape"), [(Attention(), (2, 5, 8)), (SqueezeExcite(), (2, 8, 4, 4)), (nn.Linear(8, 3), (2, 8))]
)
def test_no_site_is_an_error_that_says_what_was_seen(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Attention, squeeze-excite and one linear are no MLPs; the message names a weight and the way out."""
    first = next(iter(dict(model.named_parameters())))
    with pytest.raises(NoSitesError, match=rf"no MLP found in {type(model).__name__}: saw .*{first}.*sites=\[Site"):
        find_sites(model, torch.ones(shape))


def test_wrappers_leave_no_prefix() -> None:
    """Names are those of the unwrapped model, whether it or a part of it is wrapped, and also when compiled."""
    model = Residual(MLP(), MLP())
    expected = find_sites(model, torch.ones(2, 8))
    assert find_sites(nn.DataParallel(model), torch.ones(2, 8)) == expected
    compiled = torch.compile(nn.DataParallel(model), backend="eager")
    compiled(torch.ones(2, 8))
    assert find_sites(compiled, (torch.ones(2, 8),)) == expected
    model.blocks[1] = torch.compile(model.blocks[1], backend="eager")
    assert find_sites(model, {"x": torch.ones(2, 8)}) == expected
    assert "torch._dynamo" in sys.modules


def test_tracing_leaves_no_trace() -> None:
    """Modes, gradients, buffers, random state and inputs are as before; the pass ran in eval mode without gradients."""
    seen: list[tuple[bool, bool]] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            seen.append((self.training, torch.is_grad_enabled()))
            return self.norm(x.mul_(2)) + torch.rand(8)

    model = Residual(Counting(), MLP(lambda u: F.dropout(u.relu(), 0.5)))
    model.blocks[1].eval()
    model(torch.ones(2, 8)).sum().backward()
    seen.clear()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    x, random = torch.ones(2, 8), torch.get_rng_state()
    find_sites(model, x)
    assert seen == [(False, False)]
    assert torch.equal(x, torch.ones(2, 8))
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.children()] == [True]
    assert [m.training for m in model.blocks] == [True, False]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for before, p in zip(grads, model.parameters(), strict=True):
        assert torch.equal(before, p.grad)


def test_tracing_inside_autocast_keeps_gradients() -> None:
    """Weights cast during the pass are not reused, without their gradient, by the training step after it."""
    model = Residual(MLP())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        find_sites(model, torch.ones(2, 8))
        model(torch.ones(2, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_models_own_exception_passes_through() -> None:
    """A failing forward raises its own exception object, and the modes are restored."""
    failure = KeyError("mine")

    def fail(u: Tensor) -> Tensor:
        raise failure

    model = Residual(MLP(fail))
    with pytest.raises(KeyError) as caught:
        find_sites(model, torch.ones(2, 8))
    assert caught.value is failure
    assert model.training
    assert torch.is_grad_enabled()


def test_inputs_that_cannot_be_copied_are_refused() -> None:
    """A stateful input could be changed by tracing, so it is copied or refused by name."""
    with pytest.raises(ValueError, match="generator cannot be copied"):
        find_sites(Residual(MLP()), {"x": (i for i in ())})


MODEL = Residual(MLP(), Gated(), MLP(F.gelu))
X = torch.ones(2, 8)
SITES = find_sites(MODEL, X)


def test_a_choice_of_sites_is_all_a_pattern_or_a_list() -> None:
    """None and "auto" are all; an expression is searched for in the names; a list comes back as it is."""
    assert find_sites(MODEL, X, None) == find_sites(MODEL, X, "auto") == SITES
    assert find_sites(MODEL, X, r"\.[12]$") == SITES[1:]
    assert find_sites(MODEL, {"x": X}, "blocks.0") == SITES[:1]
    assert given_sites(MODEL, "blocks") is given_sites(MODEL, None) is None
    own = [dataclasses.replace(SITES[2], name="mine"), SITES[0]]
    assert find_sites(nn.DataParallel(MODEL), {}, tuple(own)) == given_sites(MODEL, own) == own


@pytest.mark.parametrize(
    ("sites", "error", "message"),
    [
        ("decoder", NoSitesError, r"sites='decoder' matches none of the 3 MLPs found: 'blocks.0', 'blocks.1', 'blo"),
        ("(", ValueError, r"sites='\(' is not a valid regular expression: "),
        ([], ValueError, r"sites=\[\] leaves nothing to do: pass 'auto'"),
        (["blocks.0"], TypeError, r"a list of Site; got 'blocks.0'"),
        (3, TypeError, r"a list of Site; got 3"),
        ([SITES[0]] * 2, ValueError, r"two sites are named 'blocks.0'"),
        ([dataclasses.replace(SITES[0], d_ff=13)], ValueError, r"blocks.0.w2.weight of shape \(8, 12\), not d_ff=13"),
        (
            [dataclasses.replace(SITES[1], gate="blocks.1.d.weight")],
            ValueError,
            r"site 'blocks.1': Residual has no parameter 'blocks.1.d.weight'; did you mean 'blocks.1..\.weight'\?",
        ),
        ([dataclasses.replace(SITES[0], up="?")], ValueError, r"'\?'; use a name from its named_parameters\(\)"),
    ],
)
def test_a_wrong_choice_of_sites_says_what_is_wrong(sites: Any, error: type[Exception], message: str) -> None:
    """The error names the site, what it lacks, and what to give instead."""
    with pytest.raises(error, match=message):
        find_sites(MODEL, X, sites)


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


def test_the_table_of_sites_is_aligned() -> None:
    """A leading dot stands for the site's name; a site that is the model itself has none."""
    whole = Site("", "0.weight", None, "2.weight", 8, 1200, "gelu", -3)
    assert str(site_table([SITES[1], whole])).splitlines() == [
        "site      up         gate       down       d_model  d_ff  activation  axis",
        "blocks.1  .a.weight  .b.weight  .c.weight        8     6  relu          -1",
        "(model)   0.weight   -          2.weight         8  1200  gelu          -3",
    ]


class Reached(nn.Module):
    """MLPs behind a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = Residual(MLP(), MLP()), nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        if scale != 1:
            raise ValueError("x needs y with scale")
        return self.head(x if y is None else self.inner(x + y))


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


@pytest.mark.parametrize(
    ("model", "inputs", "note"),
    [
        (Reached(), {"y": X}, "Reached was run with y; it needs x too: add it to the inputs"),
        (Reached(), {"x": X, "z": X}, "Reached was run with x, z; if it needs more, it also takes y, scale"),
        (Reached(), (X, X, X), "Reached was run with no input; it needs x too: add it to the inputs"),
        (Reached(), {"x": X, "y": X[:, :3]}, "Reached was run with x, y; if it needs more, it also takes scale"),
        (hf.T5Model(hf.T5Config(**T5)), {}, "T5Model was run with no input; it needs input_ids or inputs_embeds too"),
        (hf.T5Model(hf.T5Config(**T5)), {"input_ids": IDS}, "it also takes attention_mask, decoder_input_ids, dec"),
    ],
)
def test_a_failed_pass_says_which_inputs_it_may_lack(model: nn.Module, inputs: Any, note: str) -> None:
    """The model's own exception carries a note that names missing arguments, as signature and message tell them."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        find_sites(model, inputs)
    assert note in caught.value.__notes__[0]


class Recurrence(nn.Module):
    """A gate times a state that earlier steps wrote, as in RWKV: tokens mix, so this is no MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.k, self.o = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        k = self.k(x)
        out, state = torch.zeros_like(k), torch.zeros_like(k[:, 0])
        for t in range(x.shape[1]):
            state = 0.5 * state + k[:, t]
            out[:, t] = state
        return self.o(self.r(x).sigmoid() * out)


class SubNorm(MLP):
    """A normalisation between activation and down projection, as in Magneto and EVA-02."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.norm(F.relu(self.w1(x))))


class Scored(MLP):
    """The output is weighted by its own softmax, as in PatchTSMixer."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * y.detach().softmax(-1)


def test_what_mixes_tokens_or_scales_is_told_from_what_is_scaled() -> None:
    """A recurrence is no MLP; one with a norm inside, or whose output is weighted, is."""
    assert _downs(Residual(Recurrence(), MLP()), 2, 3, 8) == ["blocks.1.w2.weight"]
    assert [site.activation for site in find_sites(Residual(SubNorm()), X)] == ["relu+layer_norm"]
    assert _downs(Residual(Scored(), Scored()), 2, 8) == ["blocks.0.w2.weight", "blocks.1.w2.weight"]


def test_a_block_narrower_than_its_stream_is_an_mlp_if_its_output_is_added() -> None:
    """As Perceiver's: a pooler and classifier of the same sizes are none."""
    model = Residual(MLP(d_ff=6))
    model.head = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    body = model.forward
    model.forward = lambda x: model.head(F.layer_norm(body(x), [8]))
    assert _downs(model, 2, 8) == ["blocks.0.w2.weight"]


def test_the_1x1_convolutions_of_a_residual_network_are_no_mlps() -> None:
    """Neither after the sum of two branches, nor one after another with an activation behind each, nor as a head."""

    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2, self.c3 = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
            self.shortcut = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.c3(F.relu(self.c2(F.relu(self.c1(x))))) + self.shortcut(x))

    row = [layer for _ in range(4) for layer in (nn.Conv2d(8, 8, 1), nn.ReLU())]
    head = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 8)]
    for model in (nn.Sequential(*(Bottleneck() for _ in range(3))), nn.Sequential(*row), nn.Sequential(*head)):
        with pytest.raises(NoSitesError):
            find_sites(model, torch.ones(2, 8, 4, 4))


def test_an_mlp_beside_attention_may_share_its_first_weight() -> None:
    """A fused weight gives queries and neurons, as in ViT-22B; where a weight takes all neurons, parts of them do not.

    The second is gMLP's block: half of the neurons are mixed over tokens and gate the other half.
    """

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.o, self.down = nn.Linear(8, 28), nn.Linear(8, 8), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            q, k, h = self.first(x).split([8, 8, 12], -1)
            return self.o((q @ k.mT).softmax(-1) @ x) + self.down(F.gelu(h))

    class SpatialGate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mix, self.down = nn.Linear(8, 12), nn.Linear(5, 5), nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            u, v = F.gelu(self.first(x)).chunk(2, -1)
            return self.down(u * self.mix(F.layer_norm(v, [6]).mT).mT)

    (parallel,) = find_sites(Residual(Parallel()), torch.randn(2, 5, 8))
    assert (parallel.up, parallel.gate, parallel.d_ff) == ("blocks.0.first.weight", None, 12)
    (gated,) = find_sites(Residual(SpatialGate()), torch.randn(2, 5, 8))
    assert (gated.up, gated.gate, gated.d_ff) == ("blocks.0.first.weight", "blocks.0.first.weight", 6)
    assert _downs(Residual(Parallel(), MLP(), SpatialGate()), 2, 5, 8) == [
        "blocks.0.down.weight",
        "blocks.1.w2.weight",
        "blocks.2.down.weight",
    ]
