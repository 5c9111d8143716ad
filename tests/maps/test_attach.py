"""Every map is seen once, whatever the model does, and hooks change nothing and are gone afterwards."""

import copy
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from lazyneuron.enforce import TopK, enforce
from lazyneuron.maps.attach import MapHooks
from lazyneuron.measure.probe import watch
from lazyneuron.sites import Site, find_sites
from tests.maps.models import IDS, MLP, SMALL, Stack, build_t5, num_hooks, random


@pytest.mark.parametrize("given", [False, True])
def test_watching_changes_no_bit(given: bool) -> None:
    """Loss, logits, gradients and random state of a training step are equal with and without watching."""
    torch.manual_seed(0)
    model = Stack().train()
    outcomes = []
    for watching in (False, True):
        model.zero_grad()
        torch.manual_seed(5)
        probe = watch(model, find_sites(model, random(4, 8)) if given else None)
        if watching:
            with probe:
                y = model(random(4, 8))
                y.square().sum().backward()
        else:
            y = model(random(4, 8))
            y.square().sum().backward()
        outcomes.append([y, torch.rand(1), *(p.grad.clone() for p in model.parameters())])
    for bare, watched in zip(*outcomes, strict=True):
        assert torch.equal(bare, watched)


def test_transformer_encoder_in_inference_is_counted() -> None:
    """Torch's fused inference path would skip the hooks; the watched encoder leaves it."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2, enable_nested_tensor=False)
    with torch.inference_mode(), watch(model.eval()) as probe:
        model(random(2, 5, 8))
        assert probe.num_tokens == {"layers.0": 10, "layers.1": 10}
        model(random(1, 5, 8))
    assert probe.num_tokens == {"layers.0": 15, "layers.1": 15}
    with torch.inference_mode():
        probe = watch(model, probe.sites)
        assert set(probe.num_tokens.values()) == {0}  # reading first must not hinder counting
        with probe:
            model(random(2, 5, 8))
    with probe:
        model(random(2, 5, 8))
    assert set(probe.num_tokens.values()) == {20}


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_counts_once(reentrant: bool) -> None:
    """The second forward of a checkpoint, inside backward, does not count."""
    model, x = Stack(reentrant).train(), random(4, 8).requires_grad_()
    with watch(model) as probe:
        model(x).sum().backward()
    assert len(model.a.maps) == 3  # traced, run, recomputed
    assert probe.num_tokens == {"a": 4, "b": 4}


@pytest.mark.parametrize("autocast", [False, True])
def test_what_dropout_zeroes_before_the_down_projection_is_not_silent(autocast: bool) -> None:
    """In training mode the map is the one before nn.Dropout, exactly, in T5 and in torch's own layer."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.5, batch_first=True).train()
    t5 = build_t5().train()
    assert t5.config.dropout_rate == 0.1
    maps: dict[str, list[Tensor]] = {"": [], "encoder": []}
    layer.activation = lambda x: maps[""].append(F.relu(x)) or maps[""][-1]
    act = t5.encoder.block[0].layer[1].DenseReluDense.act
    act.register_forward_hook(lambda module, args, output: maps["encoder"].append(output))
    with watch(layer) as probe, torch.autocast("cpu", enabled=autocast):
        layer(random(5, 7, 8))
    assert probe.density[""] == (maps[""][-1] > 0).double().mean().item()
    with watch(t5) as probe, torch.autocast("cpu", enabled=autocast):
        t5(input_ids=IDS, labels=IDS)
    found = probe.density["encoder.block.0.layer.1.DenseReluDense"]
    assert found == (maps["encoder"][-1] > 0).double().mean().item()


def test_functional_dropout_counts_as_inactive() -> None:
    """Neurons that a functional dropout zeroes count as inactive, as documented."""
    model = MLP()
    with watch(model) as probe:
        for _ in range(20):
            model(random(50, 8))
    before_dropout = (model.maps[0] > 0).double().mean().item()
    assert probe.density[""] == pytest.approx(0.7 * before_dropout, rel=0.05)


def test_convolutions_count_channels() -> None:
    """In a 1x1 convolution the neurons are channels and every pixel is a token."""
    model = nn.Sequential(nn.Conv2d(3, 7, 1), nn.ReLU(), nn.Conv2d(7, 3, 1))
    x = random(2, 3, 4, 5)
    with watch(model) as probe:
        model(x)
    active = (model[0](x) > 0).sum((0, 2, 3))
    assert probe.state()[""].tolist() == [*active.tolist(), 40, 0]


def test_bare_weights_count_too() -> None:
    """A down weight without a module of its own is counted at its product, and so are 3-D experts."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Parameter(random(12, 8)), nn.Parameter(random(12, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x + F.relu(F.linear(x, self.up)) @ self.down

    model, x = Bare(), random(5, 8)
    with watch(model) as probe:
        model(x)
    assert probe.state()[""].tolist() == [*(x @ model.up.T > 0).sum(0).tolist(), 5, 0]
    sizes = {"intermediate_size": 32, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    mixtral = hf.MixtralForCausalLM(hf.MixtralConfig(**SMALL, **sizes, hidden_act="relu"))
    with watch(mixtral) as probe:
        mixtral(IDS)
    assert set(probe.num_tokens.values()) == {24}  # each of 12 tokens goes to two experts
    assert all(0.2 < density < 0.8 for density in probe.density.values())
    sites = find_sites(model, x)
    with pytest.warns(UserWarning, match="no product with the bare down weight"), watch(model, sites):
        torch.einsum("td,df->tf", x, model.down.T)


def test_tied_down_weights_are_counted_at_both_modules() -> None:
    """One site whose weight two modules share sees the tokens of both."""
    model = Stack()
    model.b.w2.weight = model.a.w2.weight
    with watch(model) as probe:
        model(random(4, 8))
    assert probe.num_tokens == {"a": 8}


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # dynamo's own, at graph breaks
@pytest.mark.parametrize("when", ["before", "in place", "inside", "around"])
def test_compiled_models_are_counted(when: str) -> None:
    """Compiling before, in place, inside the watch or around the call loses no count, and leaves no counting behind."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)), random(4, 8)
    expected = [*(model[0](x) > 0).sum(0).tolist(), 4, 0]
    run: Any = model
    if when == "before":
        run = torch.compile(model, backend="eager")
    elif when == "in place":
        model.compile(backend="eager")
    elif when == "around":
        run = torch.compile(lambda x: model(x), backend="eager")
    run(x)
    with watch(run if when == "before" else model) as probe:
        if when == "inside":
            run = torch.compile(model, backend="eager")
        y = run(x)
    assert probe.state()[""].tolist() == expected
    assert torch.equal(run(x), y)
    assert probe.num_tokens == {"": 4}


def test_an_expression_chooses_sites() -> None:
    """`sites` as a regular expression keeps what it matches, and says what there was if nothing does."""
    model = Stack()
    with watch(model, "^b$") as probe:
        model(random(4, 8))
    assert probe.num_tokens == {"b": 4}
    with pytest.raises(ValueError, match="'c' matches none of the 2 MLPs found: 'a', 'b'"), watch(model, "c"):
        model(random(4, 8))
    assert num_hooks(model) == 0


def test_a_copy_of_a_watched_model_counts_nothing() -> None:
    """The hooks that a deep copy carries along are dead, and the copy can be watched itself."""
    model = Stack()
    with watch(model) as probe:
        model(random(4, 8))
        twin = copy.deepcopy(model)
        twin(random(5, 8))
        with watch(twin) as other:
            twin(random(3, 8))
    assert probe.num_tokens == {"a": 4, "b": 4}
    assert other.num_tokens == {"a": 3, "b": 3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_may_change_its_type_while_watched(dtype: torch.dtype) -> None:
    """`.to()` and `.half()` inside keep the hooks; counts in each type are those of the maps."""
    model, x = Stack().eval(), random(4, 8)
    with watch(model) as probe:
        model(x)
        model.to(dtype)
        model(x.to(dtype))
    active = sum(int((h > 0).sum()) for h in model.a.maps[1:])
    assert int(probe.state()["a"][:-2].sum()) == active
    assert probe.num_tokens == {"a": 8, "b": 8}


def test_autocast_maps_are_counted_as_they_are() -> None:
    """Under autocast the map is in bfloat16, and so is what counts."""
    model, x = Stack().eval(), random(64, 8)
    with watch(model, statistics="all") as probe, torch.autocast("cpu"):
        y = model(x)
    assert model.a.maps[-1].dtype == torch.bfloat16
    assert probe.density["a"] == (model.a.maps[-1] > 0).double().mean().item()
    with torch.autocast("cpu"):
        assert torch.equal(model(x), y)


def test_nested_watches_are_independent() -> None:
    """An inner watch, and its tracing pass, adds nothing to the outer one; leaving it keeps the outer one's hooks."""
    model = Stack()
    with watch(model) as outer:
        model(random(4, 8))
        with watch(model) as inner:
            model(random(2, 8))
        model(random(1, 8))
    assert outer.num_tokens == {"a": 7, "b": 7}
    assert inner.num_tokens == {"a": 2, "b": 2}
    assert num_hooks(model) == 0


def test_handles_are_gone_whatever_happens() -> None:
    """Leaving by an exception of the caller or of the model, or failing to open, leaves no hook."""
    model = Stack()
    probe = watch(model)

    def fail_inside() -> None:
        with probe:
            model(random(4, 8))
            assert num_hooks(model) == 6
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert num_hooks(model) == 0
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), probe:
        model(random(4, 7))
    assert num_hooks(model) == 0
    assert probe.num_tokens == {"a": 4, "b": 4}
    sites = [*find_sites(model, random(1, 8)), Site("c", "c.w1.weight", None, "c.w2.weight", 8, 12, "relu")]
    with pytest.raises(ValueError, match=r"site 'c': Stack has no parameter 'c\.w1\.weight'"):
        watch(model, sites).__enter__()
    assert num_hooks(model) == 0


def test_before_selection_sees_the_map_that_another_hook_changes() -> None:
    """What a hook selects is seen after it, or, on request, before it, whichever was there first."""
    model = Stack().eval()
    sites = find_sites(model, random(1, 8))
    for module in (model.a.w2, model.b.w2):
        module.register_forward_pre_hook(lambda module, args: (args[0] * (torch.arange(12) < 3),), prepend=True)
    with watch(model, sites, before_selection=True) as before, watch(model, sites) as after:
        model(random(50, 8))
    natural = (model.a.maps[-1] > 0).double().mean().item()
    assert before.density["a"] == natural
    assert after.density["a"] == (model.a.maps[-1][:, :3] > 0).double().sum().item() / 600


def test_calls_without_gradients_are_left_out_on_request() -> None:
    """Also of a part alone, as of DDP's module in an evaluation; reentrant checkpointing is no such call."""
    model = Stack().train()
    seen: list[str] = []
    hooks = MapHooks(
        model, find_sites(model, random(1, 8)), lambda site, h, mask: seen.append(site.name), needs_grad=True
    )
    with hooks:
        with torch.no_grad():
            model(random(4, 8))
            model.a(random(4, 8))
        assert seen == []
        model.reentrant = True
        model(random(4, 8).requires_grad_()).sum().backward()
    assert seen == ["a", "b"]


def test_before_selection_sees_the_whole_map_under_an_adapter() -> None:
    """An adapter (LoRA) owns its base layer's weight, for watching as for enforcing."""

    class Adapter(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base_layer, self.a, self.b = base, nn.Linear(12, 2, bias=False), nn.Linear(2, 8, bias=False)

        def forward(self, h: Tensor) -> Tensor:
            return self.base_layer(h) + self.b(self.a(h))

    model, x = MLP().eval(), random(20, 8)
    model.w2 = Adapter(model.w2)
    site = Site("", "w1.weight", None, "w2.base_layer.weight", 8, 12, "relu")
    enforce(model, TopK(k=1), [site], x)
    with watch(model, [site], before_selection=True) as before, watch(model, [site]) as after:
        model(x)
    assert before.num_active[""] == (model.maps[-1] > 0).double().sum(-1).mean().item() > 2
    assert after.num_active[""] <= 1
