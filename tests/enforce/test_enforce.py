"""Enforced models keep what the selection keeps, everywhere a model may be taken; released ones are as before."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextMLP

from lazyneuron.enforce.enforce import enforce, enforced, release, set_step
from lazyneuron.enforce.selection import Anneal, GroupTopK, StatisticalTopK, Threshold, TopK
from lazyneuron.enforce.verify import NotSparseError, verify
from lazyneuron.errors import UsageError
from lazyneuron.kernels.topk import statistical_topk, topk
from lazyneuron.measure import watch
from lazyneuron.sites import NoSitesError, Site, find_sites

IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))
FAMILIES = ["llama", "gpt2", "opt", "bert", "t5", "albert", "mixtral", "phi3"]


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Any = model(input_ids=IDS, labels=IDS) if "T5" in type(model).__name__ else model(input_ids=IDS)
    return out.logits if "logits" in out else out.last_hidden_state


def num_hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_pre_hooks) + len(m._forward_hooks) + len(m._forward_hooks_always_called) for m in model.modules()
    )


def by_hand(model: Any, x: Tensor, select: Any) -> Tensor:
    """The stack in eval mode with a function put in by hand."""
    for mlp in model:
        x = x + F.linear(select(mlp.act(mlp.up(x))), mlp.down.weight, mlp.down.bias)
    return x


@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_face_models_need_no_inputs(build, family):
    """At most k fire at every token, the outputs differ, the state does not, and release gives the bits back."""
    model = build(family)
    before, state = run(model), {name: (p.data_ptr(), p.clone()) for name, p in model.state_dict().items()}
    enforce(model, TopK(k=3))
    assert len(enforced(model)) == {"albert": 1, "t5": 4}.get(family, 2)
    assert not torch.equal(run(model), before)
    with watch(model) as probe:
        run(model)
    for site, density in probe.density.items():
        assert 0 < density <= 3 / probe.state()[site][:-2].numel()
    inputs = {"input_ids": IDS, "labels": IDS} if family == "t5" else {"input_ids": IDS}
    assert verify(model, inputs) == probe.num_tokens
    assert {name: p.data_ptr() for name, p in model.state_dict().items()} == {n: at for n, (at, _) in state.items()}
    assert all(torch.equal(p, state[name][1]) for name, p in model.state_dict().items())
    release(model)
    assert torch.equal(run(model), before)
    assert enforced(model) == {}
    assert num_hooks(model) == 0


def test_decoders_are_given_inputs_of_their_own(build):
    """Pegasus, unlike T5 and BART, brings none for its decoder."""
    model = build("pegasus")
    enforce(model, TopK(k=3))
    assert [*enforced(model)] == ["model.encoder.layers.0", "model.decoder.layers.0"]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_neurons_are_the_model_before(build, family):
    model = build(family)
    before = run(model)
    enforce(model, TopK(density=1.0))
    assert torch.equal(run(model), before)


@pytest.mark.parametrize(
    "selection",
    [TopK(k=2), GroupTopK(1, 3), Threshold(0.3), Anneal(1, 0.1, 10, step=9)],
    ids=lambda s: type(s).__name__,
)
def test_the_map_is_selected_after_the_activation(stack, x, selection):
    model = stack(activation=nn.GELU)
    expected = by_hand(model, x, selection.apply)
    enforce(model, selection, example_inputs=x)
    assert torch.equal(model(x), expected)


def test_statistical_top_k_acts_before_the_activation(stack, x):
    model = stack(activation=nn.GELU)
    y = x
    for mlp in model:
        y = y + mlp.down(F.gelu(statistical_topk(mlp.up(y), 0.2)))
    enforce(model, StatisticalTopK(0.2), example_inputs=x)
    assert torch.equal(model(x), y)


def test_statistical_top_k_acts_on_the_gate(build):
    """Where its gate is cut off, the map is zero; and it equals a Gemma 3n that was configured so."""
    model = build("llama")
    mlp: Any = model.model.layers[0].mlp
    enforce(model, StatisticalTopK(0.1, form="gemma3n"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "hidden_activation": "silu"}
    gemma = Gemma3nTextMLP(hf.Gemma3nTextConfig(**sizes, activation_sparsity_pattern=[0.9]), layer_idx=0)
    gemma.load_state_dict(mlp.state_dict())
    x = torch.randn(4, 16)
    assert torch.equal(mlp(x), gemma(x))


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("given", [False, True])
def test_selection_comes_before_the_dropout(stack, x, p, given):
    """In training the k are chosen among all neurons, not among those that the dropout left."""
    model = stack(p).train()
    torch.manual_seed(3)
    y = x
    for mlp in model:
        y = y + mlp.down(mlp.drop(topk(mlp.act(mlp.up(y)), 4)))
    sites = find_sites(model, x) if given else "auto"
    enforce(model, TopK(k=4), sites, example_inputs=x)
    assert {entry["dropout"] for entry in enforced(model).values()} == {"0.drop", "1.drop"}
    torch.manual_seed(3)
    assert torch.equal(model(x), y)
    with watch(model) as probe:
        model(x)
    assert max(probe.num_active.values()) <= 4
    assert min(probe.num_active.values()) > 3  # those that fire before the dropout
    assert set(verify(model, x).values()) == {15}


def test_a_dropout_of_other_widths_is_left_alone(x):
    """One module may drop both the map and the output of the MLP."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down, self.drop = nn.Linear(8, 12), nn.Linear(12, 8), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.drop(self.down(self.drop(self.up(x).relu())))

    model = Both().train()
    torch.manual_seed(1)
    expected = x + model.drop(model.down(model.drop(topk(model.up(x).relu(), 2))))
    enforce(model, TopK(k=2), example_inputs=x)
    torch.manual_seed(1)
    assert torch.equal(model(x), expected)


def test_watch_sees_the_selected_whichever_came_first(stack, x):
    model = stack()
    sites = find_sites(model, x)
    enforce(model, TopK(k=2), sites, x)
    with watch(model, sites) as after:
        model(x)
    release(model)
    with watch(model, sites) as before:
        enforce(model, TopK(k=2), sites, x)
        model(x)
    assert before.num_active == after.num_active
    assert max(after.num_active.values()) <= 2


def test_budgets_by_name_and_expression(stack, x):
    """Names come before expressions, the first expression before the next; what none fits stays dense."""
    model = stack()
    enforce(model, {"[01]": TopK(k=1), "": TopK(k=9), "1": TopK(k=3)}, example_inputs=x)
    assert {name: entry["selection"]["k"] for name, entry in enforced(model).items()} == {"0": 1, "1": 3}
    enforce(model, {"1": TopK(k=3)}, example_inputs=x)
    assert [*enforced(model)] == ["1"]
    expected = model[1](F.linear(model[0].up(x).relu(), model[0].down.weight, model[0].down.bias) + x)
    assert torch.equal(model(x), expected)


def test_sites_may_be_chosen(stack, x):
    model = stack()
    enforce(model, TopK(k=2), "^0$", x)
    assert [*enforced(model)] == ["0"]
    enforce(model, TopK(k=2), find_sites(model, x)[1:], x)
    assert [*enforced(model)] == ["1"]


@pytest.mark.parametrize("selection", [TopK(k=2), Threshold(0.3), StatisticalTopK(0.2)], ids=str)
def test_the_sites_of_an_enforced_model_are_the_same(build, stack, x, selection):
    """The pass that finds them sees the model as it is without a selection."""
    for model, inputs in ((stack(0.1, nn.GELU), x), (build("t5"), {"input_ids": IDS, "labels": IDS})):
        sites = find_sites(model, inputs)
        enforce(model, selection, example_inputs=inputs)
        assert find_sites(model, inputs) == sites


def test_enforcing_again_replaces(stack, x):
    model = stack()
    enforce(model, TopK(k=1), example_inputs=x)
    count = num_hooks(model)
    enforce(model, TopK(k=5), example_inputs=x)
    assert num_hooks(model) == count
    assert torch.equal(model(x), by_hand(model, x, lambda h: topk(h, 5)))


def test_what_is_in_force_can_be_read_and_put_in_again(stack, x):
    import json

    model, other = stack(0.5), stack(0.5)
    enforce(model, {"0": TopK(k=2), "1": Threshold(0.25)}, example_inputs=x)
    written = json.loads(json.dumps(enforced(model)))
    assert written["1"] == {
        "selection": {"kind": "threshold", "tau": 0.25},
        "site": {"up": "1.up.weight", "gate": None, "down": "1.down.weight", "d_model": 8, "d_ff": 12}
        | {"activation": "relu", "axis": -1},
        "dropout": "1.drop",
    }
    enforce(other, written)
    assert enforced(other) == enforced(model)
    for mode in (True, False):
        torch.manual_seed(0)
        expected = model.train(mode)(x)
        torch.manual_seed(0)
        assert torch.equal(other.train(mode)(x), expected)


def test_what_was_in_force_elsewhere_is_checked(stack, x):
    model = stack()
    enforce(model, TopK(k=2), example_inputs=x)
    with pytest.raises(ValueError, match=r"site '0': Alone has no parameter '0\.up\.weight'"):
        enforce(Alone(), enforced(model))


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


class Alone(nn.Module):
    """One MLP without a block around it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


SITE = Site("", "up.weight", None, "down.weight", 8, 12, "relu")


def test_a_list_of_sites_needs_no_inputs_without_dropout(stack, x):
    model = Alone()
    enforce(model, TopK(k=2), [SITE])
    assert verify(model, x) == {"": 15}
    with_dropout = stack(0.1)
    message = r"site '0' has the dropout 0.drop: pass a batch as example_inputs="
    with pytest.raises(UsageError, match=message):
        enforce(with_dropout, TopK(k=2), find_sites(with_dropout, x))


REFUSED: list[tuple[type[Exception], dict[str, Any], str]] = [
    (UsageError, {}, "Alone has no dummy inputs: pass a batch as example_inputs="),
    (ValueError, {"selection": TopK(k=13)}, "site '': top-k needs 0 < k <= d_ff; got k=13 with d_ff=12"),
    (TypeError, {"selection": 3}, "enforce takes a selection such as TopK"),
    (UsageError, {"selection": {"x": TopK(k=1)}}, "'x' matches none of the 1 sites: ''"),
    (ValueError, {"selection": {"(": TopK(k=1)}}, "'(' is neither the name of a site nor a regular expression"),
    (ValueError, {"selection": {"": {"site": {}}}}, "the mapping is not one that enforced(model) returns"),
    (NoSitesError, {"sites": "nothing"}, "sites='nothing' matches none of the 1 MLPs"),
]


@pytest.mark.parametrize(("kind", "how", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refusals_change_nothing(x, kind, how, message):
    model = Alone()
    enforce(model, TopK(k=3), example_inputs=x)
    spec = enforced(model)
    inputs = {} if not how else {"example_inputs": x}
    with pytest.raises(kind) as error:
        enforce(model, **({"selection": TopK(k=1)} | how | inputs))
    assert str(error.value).startswith(message)
    assert enforced(model) == spec


def test_a_gate_that_cannot_be_told_is_refused(build):
    with pytest.raises(UsageError, match=r"site 'model.layers.0.mlp': .* fused weight model.layers.0.mlp.gate_up_proj"):
        enforce(build("phi3"), StatisticalTopK(0.1))
    with pytest.raises(UsageError, match=r"site 'model.layers.0.mlp.experts': .* fused weight"):
        enforce(build("mixtral"), StatisticalTopK(0.1))


def test_a_dropout_before_an_activation_in_place_is_not_before_down(x):
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.drop, self.act, self.down = nn.Linear(8, 12), nn.Dropout(0.5), nn.ReLU(True), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(self.act(self.drop(self.up(x))))

    model = InPlace().train()
    torch.manual_seed(1)
    expected = x + model.down(topk(model.drop(model.up(x)).relu(), 2))
    enforce(model, TopK(k=2), example_inputs=x)
    torch.manual_seed(1)
    assert torch.equal(model(x), expected)


def test_a_dropout_that_serves_others_is_refused(x):
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.drop = Alone(), Alone(), nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            for mlp in (self.a, self.b):
                x = x + mlp.down(self.drop(mlp.up(x).relu()))
            return x

    model = Shared()
    sites = [Site("", "a.up.weight", None, "a.down.weight", 8, 12, "relu")]
    with pytest.raises(UsageError, match=r"site '': drop drops more than this map"):
        enforce(model, TopK(k=2), sites, x)


def test_verify_tells_who_broke_the_promise(stack, x):
    model = stack()
    with pytest.raises(UsageError, match="nothing to verify"):
        verify(model, x)
    sites = find_sites(model, x)
    enforce(model, {"0": TopK(k=2), "1": GroupTopK(1, 3)}, example_inputs=x)
    assert verify(model, (x,)) == {"0": 15, "1": 15}
    model[1].down.register_forward_pre_hook(lambda module, args: torch.ones_like(args[0]))
    with pytest.raises(NotSparseError) as error:
        verify(model, x)
    promise = "at most 1 nonzeros in each block of 4 does not hold for 15 of 15 tokens; the worst has 4"
    assert str(error.value) == f"site '1': {promise}"
    assert isinstance(error.value, AssertionError)
    enforce(model, Threshold(2.0), sites[1:], x)
    with pytest.raises(NotSparseError, match=r"no nonzero of magnitude 2.0 or less does not hold for 15 of 15"):
        verify(model, x)


def test_verify_leaves_nothing_behind(stack, x):
    model = stack()
    enforce(model, TopK(k=2), example_inputs=x)
    count = num_hooks(model)
    verify(model, x)
    assert num_hooks(model) == count
    with pytest.raises(RuntimeError):
        verify(model, x[..., :3])
    assert num_hooks(model) == count
