"""Selections act where they should, are replaced and removed, and refusals change nothing."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional as F
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextMLP

from lazyneuron.enforce.enforce import enforce, enforced, release
from lazyneuron.enforce.selection import Anneal, GroupTopK, StatisticalTopK, Threshold, TopK
from lazyneuron.enforce.verify import verify
from lazyneuron.errors import UsageError
from lazyneuron.kernels.topk import statistical_topk, topk
from lazyneuron.measure import watch
from lazyneuron.sites import NoSitesError, Site, find_sites
from tests.enforce.models import IDS, Alone, by_hand, num_hooks, run

FAMILIES = ["llama", "gpt2", "opt", "bert", "t5", "albert", "mixtral", "phi3"]


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
