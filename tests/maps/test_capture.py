"""Captured maps are the model's own, without padding and bounded, and agree with what `watch` counts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import lazyneuron as lazy
from lazyneuron.enforce import TopK, enforce
from lazyneuron.sites import Site, find_sites

IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
SMALL = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = SMALL | {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2, "pad_token_id": 0}
OPT = SMALL | {"ffn_dim": 24, "word_embed_proj_dim": 16}


class MLP(nn.Module):
    """A residual ReLU MLP that keeps its last maps, and overwrites each one after it was used."""

    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.up, self.drop, self.down = nn.Linear(8, 12), nn.Dropout(dropout), nn.Linear(12, 8)
        self.maps: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.up(x))
        self.maps.append(h.detach().clone())
        y = x + self.down(self.drop(h))
        if not torch.is_grad_enabled():
            h.fill_(-1)
        return y


class Stack(nn.Module):
    """Two of them, checkpointed in training."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.a, self.b = MLP(1, dropout), MLP(2, dropout)

    def forward(self, x: Tensor) -> Any:
        if self.training:
            return checkpoint(self.b, checkpoint(self.a, x, use_reentrant=False), use_reentrant=False)
        return self.b(self.a(x))


def _x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def _num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


@torch.no_grad()
def test_maps_are_the_models_own_in_order():
    """Those of several calls, one after the other, whatever the model does to them afterwards."""
    model = Stack().eval()
    with lazy.capture(model) as maps:
        model(_x(2, 3, 8))
        model(_x(4, 8))
    assert list(maps) == ["a", "b"] == [site.name for site in maps.sites]
    for name, mlp in (("a", model.a), ("b", model.b)):
        first, second = mlp.maps[1:]  # the first call traced the model
        assert torch.equal(maps[name], torch.cat([first.flatten(0, 1), second]))
    assert maps.num_tokens == {"a": 10, "b": 10}


FAMILIES: dict[str, tuple[Callable[[], nn.Module], dict[str, Tensor]]] = {
    "plain, with two masks": (
        lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, decoder_start_token_id=0)),
        {"attention_mask": MASK, "labels": IDS, "decoder_attention_mask": MASK.flip(0)},
    ),
    "gated": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, hidden_act="relu")), {}),
    "padded": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)), {"attention_mask": MASK}),
    "flattened": (lambda: hf.OPTForCausalLM(hf.OPTConfig(**OPT)), {"attention_mask": MASK}),
    "bare experts": (lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**LLAMA, hidden_act="relu")), {}),
    "bfloat16": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, hidden_act="relu")).bfloat16(), {}),
}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("build", "inputs"), FAMILIES.values(), ids=FAMILIES)
def test_the_nonzeros_are_those_that_watch_counts(build, inputs, sparse):
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad(), lazy.watch(model) as probe, lazy.capture(model, sparse=sparse) as maps:
        model(input_ids=IDS, **inputs)
    assert len(maps) == len(probe.sites) > 1
    assert maps.num_tokens == probe.num_tokens
    for name, captured in maps.items():
        assert captured.is_sparse_csr == sparse
        h_TF = captured.to_dense()
        assert [*(h_TF != 0).sum(0).tolist(), len(h_TF), 0] == probe.state()[name].tolist()
        assert h_TF.dtype == next(model.parameters()).dtype


def test_sparse_maps_hold_the_nonzeros_alone():
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
    site = Site("mlp", "1.weight", None, "1.weight", 4, 4, "relu")
    with lazy.capture(model, [site], sparse=True) as maps:
        model(torch.tensor([[0.0, -0.0, 2.0, float("nan")], [0, 0, 0, 0]]))
        model(torch.tensor([[1.0, 0, 0, 0]]))
    found = maps["mlp"]
    assert found.shape == (3, 4)
    assert found.crow_indices().tolist() == [0, 2, 2, 3]
    assert found.col_indices().tolist() == [2, 3, 0]
    assert str(found.values().tolist()) == "[2.0, nan, 1.0]"


@pytest.mark.parametrize("sparse", [False, True])
def test_the_first_tokens_are_kept_and_all_are_counted(sparse):
    model = Stack().eval()
    with lazy.capture(model, "b", max_tokens=5, sparse=sparse) as maps:
        for batch in _x(3, 3, 8):
            model(batch)
    assert maps.num_tokens == {"b": 9}
    assert torch.equal(maps["b"].to_dense(), torch.cat(model.b.maps[1:])[:5])
    kept = sum(tensor.untyped_storage().nbytes() for part in maps._parts["b"] for tensor in part)
    assert kept == (5 * 12 * 4 if not sparse else maps["b"].values().numel() * 12 + 5 * 8)


def test_capturing_changes_no_bit_and_leaves_no_hook():
    """A training step with dropout and checkpointing: each token once, from before the dropout."""
    outcomes = []
    for is_captured in (False, True):
        model = Stack(dropout=0.5).train()
        torch.manual_seed(5)
        maps = lazy.capture(model)
        x = _x(4, 8).requires_grad_()
        if is_captured:
            with maps:
                y = model(x)
                y.square().sum().backward()
            assert torch.equal(maps["a"], model.a.maps[1])
            assert maps.num_tokens == {"a": 4, "b": 4}
            assert not maps["b"].requires_grad
        else:
            y = model(x)
            y.square().sum().backward()
        assert _num_hooks(model) == 0
        outcomes.append([y, x.grad, torch.rand(1), *(p.grad for p in model.parameters())])
    for bare, captured in zip(*outcomes, strict=True):
        assert torch.equal(bare, captured)


def test_what_enforce_selects_is_captured():
    model, x = Stack().eval(), _x(5, 8)
    enforce(model, TopK(k=2), example_inputs=x)
    with lazy.capture(model, sparse=True) as maps:
        model(x)
    assert maps["a"].crow_indices().diff().tolist() == [2] * 5


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
def test_compiled_models_and_autocast():
    model, x = Stack().eval(), _x(4, 8)
    fast: Any = torch.compile(model, backend="eager")
    fast(x)
    with lazy.capture(fast) as maps, torch.autocast("cpu"):
        fast(x)
    assert maps["a"].dtype == torch.bfloat16
    assert torch.equal(maps["a"], model.a.maps[-1])


def test_an_expert_without_a_token_has_an_empty_map():
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([MLP(seed) for seed in range(2)])

        def forward(self, x: Tensor) -> Tensor:
            return self.experts[0](x)

    model = Routed().eval()
    for sparse in (False, True):
        with lazy.capture(model, sparse=sparse) as maps:
            model(_x(3, 8))
        assert [maps[name].shape for name in maps] == [(3, 12), (0, 12)]


def test_misuse_is_an_error_that_says_what_to_do():
    model, x = Stack().eval(), _x(4, 8)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"max_tokens of 1 or more; got {wrong}"):
            lazy.capture(model, max_tokens=wrong)
    with lazy.capture(model) as maps:
        pass
    with pytest.raises(RuntimeError, match="no site is known yet"):
        list(maps)
    with lazy.capture(model, find_sites(model, x)) as maps, pytest.raises(RuntimeError, match="nothing was captured"):
        _ = maps["a"]
    with maps:
        model(x)
    with pytest.raises(KeyError, match=r"no site 'aa'; among the 2 captured are 'a'"):
        _ = maps["aa"]
    assert "aa" not in maps
    assert maps.get("b") is not None
    with maps, pytest.raises(RuntimeError, match="open already"), maps:
        pass
    with pytest.raises(ValueError, match="matches none of the 2 MLPs"), lazy.capture(model, "c"):
        model(x)
    assert _num_hooks(model) == 0
