"""Selecting hooks in copies, dtypes, autocast, checkpointing, generation, compiled and unusual models."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lazyneuron.enforce.enforce import enforce, enforced, release, set_step
from lazyneuron.enforce.selection import Anneal, StatisticalTopK, TopK
from lazyneuron.enforce.verify import verify
from lazyneuron.errors import UsageError
from lazyneuron.kernels.topk import topk
from lazyneuron.measure import watch
from tests.enforce.models import IDS, by_hand, run


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies_are_enforced_and_released_by_themselves(stack, x, how):
    model = stack(0.5)
    dense = model(x)
    enforce(model, TopK(k=2), example_inputs=x)
    sparse = model(x)
    if how == "save":
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    else:
        twin = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert torch.equal(twin(x), sparse)
    assert enforced(twin) == enforced(model)
    twin[0].register_forward_pre_hook(lambda module, args: None)
    twin.train()
    assert set(verify(twin, x).values()) == {15}  # its own dropout tells it that it trains
    twin.eval()
    release(twin)
    assert torch.equal(twin(x), dense)
    assert torch.equal(model(x), sparse)
    twin = copy.deepcopy(model)
    release(model)
    assert torch.equal(twin(x), sparse)
    assert torch.equal(model(x), dense)


def test_a_bare_copy_is_enforced_too(build):
    model = build("mixtral")
    enforce(model, TopK(k=4))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(run(twin), run(model))
    release(model)
    assert verify(twin, {"input_ids": IDS})
    assert not torch.equal(run(twin), run(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_other_dtypes(stack, x, dtype):
    model = stack()
    enforce(model, TopK(k=3), example_inputs=x)
    model.to(dtype)
    assert torch.equal(model(x.to(dtype)), by_hand(model, x.to(dtype), lambda h: topk(h, 3)))
    assert set(verify(model, x.to(dtype)).values()) == {15}


def test_under_autocast(stack, x):
    model = stack()
    enforce(model, TopK(k=3), example_inputs=x)
    with torch.autocast("cpu", torch.bfloat16):
        assert set(verify(model, x).values()) == {15}
        y = model(x)
        assert torch.equal(y, by_hand(model, x, lambda h: topk(h, 3)))
    assert y.dtype == torch.float32


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_are_those_of_the_selected_model(stack, x, reentrant):
    """With and without gradient checkpointing, which runs a forward pass twice."""
    model = stack(0.3).train()
    enforce(model, TopK(k=3), example_inputs=x)
    found = []
    for how in ("by hand", "plain", "checkpoint"):
        model.zero_grad()
        torch.manual_seed(0)
        y = x.clone().requires_grad_()
        for mlp in model:
            if how == "by hand":
                h = topk(mlp.act(F.linear(y, mlp.up.weight, mlp.up.bias)), 3)
                y = y + F.linear(F.dropout(h, 0.3), mlp.down.weight, mlp.down.bias)
            else:
                y = mlp(y) if how == "plain" else checkpoint(mlp, y, use_reentrant=reentrant)
        y.square().sum().backward()
        found.append([y, *(p.grad.clone() for p in model.parameters())])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("family", ["llama", "t5", "mixtral"])
def test_generated_text_is_that_of_a_model_without_cache(build, family):
    """`generate` calls the encoder by itself and feeds one token at a time: each of them is selected."""
    model = build(family)
    enforce(model, TopK(k=2))
    with watch(model, statistics=["active"]) as probe:
        found = model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    again = model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=False)
    assert torch.equal(found, again)
    assert max(probe.quantile(1.0).values()) == 2
    release(model)
    with watch(model, statistics=["active"]) as probe:
        model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert max(probe.quantile(1.0).values()) > 2


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("first", ["compile", "enforce"])
@pytest.mark.parametrize(
    "selection",
    [TopK(k=2), TopK(k=2, straight_through=True), StatisticalTopK(0.2), Anneal(1, 0.1, 10, step=9)],
    ids=str,
)
def test_compiled_in_one_graph(stack, x, first, selection, training):
    """Dynamo traces the hooks, whether they came before or after it had compiled the model; and forgets them."""
    model = stack(0.3).train(training)
    for mlp in model:  # dynamo looks whether there are hooks, not which
        for module in (mlp.up, mlp.drop, mlp.down):
            module.register_forward_pre_hook(lambda module, args: None)
            module.register_forward_hook(lambda module, args, output: None)
    fast = torch.compile(model, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    dense = (fast if first == "compile" else model)(x)
    enforce(fast if first == "compile" else model, selection, example_inputs=x)
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    assert torch.equal(fast(x), expected)
    assert not torch.equal(expected, dense)
    release(fast)
    torch.manual_seed(0)
    assert torch.equal(fast(x), dense)
    torch._dynamo.reset()


def test_annealing_advances_compiled_models_too(stack, x):
    model = stack()
    with pytest.raises(UsageError, match="no annealing is in force"):
        set_step(model, 1)
    enforce(model, Anneal(1.0, 1 / 12, num_steps=24), example_inputs=x)
    fast = torch.compile(model, backend="eager", fullgraph=True)
    worst = []
    for step in range(26):  # through more values of k than dynamo recompiles for
        set_step(model, step)
        assert torch.equal(fast(x), model(x))
        with watch(model, statistics=["active"]) as probe:
            model(x)
        worst.append(max(probe.quantile(1.0).values()))
    assert worst[-2:] == [1, 1]
    assert worst == sorted(worst, reverse=True)
    assert worst[6] > worst[18] > 1
    assert enforced(model)["0"]["selection"] == {
        "kind": "anneal",
        "start": 1.0,
        "end": 1 / 12,
        "num_steps": 24,
        "step": 25,
    }
    torch._dynamo.reset()


def test_torchs_fused_encoder_is_left_and_comes_back():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 8)
    with torch.inference_mode():
        dense = model(x)
        enforce(model, TopK(k=2), example_inputs=x)
        assert set(verify(model, x).values()) == {10}
        assert not torch.equal(model(x), dense)
        release(model)
        assert torch.equal(model(x), dense)


def test_a_convolution_holds_its_neurons_in_another_axis():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down, self.drop = nn.Conv2d(4, 10, 1), nn.Conv2d(10, 4, 1), nn.Dropout(0.4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(self.drop(F.gelu(self.up(x))))

    model, x = nn.Sequential(Block(), Block()).eval(), torch.randn(2, 4, 3, 5)
    h = topk(F.gelu(model[0].up(x)).movedim(1, -1), 3).movedim(-1, 1)
    expected = x + model[0].down(h)
    enforce(model, {"0": TopK(k=3)}, example_inputs=x)
    assert torch.equal(model[0](x), expected)
    assert verify(model, x) == {"0": 30}
    model.train()
    assert verify(model, x) == {"0": 30}


def test_tied_down_projections_are_all_selected(x):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.ups = nn.ModuleList([nn.Linear(8, 12), nn.Linear(8, 12)])
            self.downs = nn.ModuleList([nn.Linear(12, 8), nn.Linear(12, 8)])
            self.downs[1].weight = self.downs[0].weight

        def forward(self, x: Tensor) -> Tensor:
            for up, down in zip(self.ups, self.downs, strict=True):
                x = x + down(up(x).relu())
            return x

    model = Tied()
    y = x
    for up, down in zip(model.ups, model.downs, strict=True):
        y = y + down(topk(up(y).relu(), 2))
    enforce(model, TopK(k=2), example_inputs=x)
    assert torch.equal(model(x), y)


def test_a_parametrized_down_projection_is_selected(stack, x):
    model = stack()
    for mlp in model:
        torch.nn.utils.parametrizations.weight_norm(mlp.down)
    enforce(model, TopK(k=2), example_inputs=x)
    assert set(verify(model, x).values()) == {15}


def test_an_adapter_sees_the_selected_map(stack, x):
    """What stands beside the down projection (LoRA) reads the same map."""

    class Adapter(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base_layer, self.lora_dropout = base, nn.Dropout(0.5)
            self.a, self.b = nn.Linear(12, 2), nn.Linear(2, 8)

        def forward(self, h: Tensor) -> Tensor:
            seen.append(h)
            y = self.base_layer(h)
            return y + self.b(self.a(self.lora_dropout(h)))

    model = stack()
    for mlp in model:
        mlp.down = Adapter(mlp.down)
    seen: list[Tensor] = []
    enforce(model, TopK(k=2), example_inputs=x)
    assert all(entry["dropout"].endswith("drop") for entry in enforced(model).values())
    seen.clear()
    model(x)
    assert max(int((h != 0).sum(-1).max()) for h in seen) == 2
