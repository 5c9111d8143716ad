"""A cache is followed as long as nothing but the model changes it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf

from lazyneuron.measure.probe import watch
from tests.maps.decoding import STATISTICS, Embedded, assert_same, llama, one_pass


def test_two_generations_at_once_do_not_mix():
    """Each cache has its own rows; one that was copied has its positions and no neighbour from before."""
    model = llama()
    one, other = torch.randint(3, 50, (2, 2, 6), generator=torch.Generator().manual_seed(2))
    with watch(model, statistics=STATISTICS) as probe, torch.no_grad():
        caches = [model(ids[:, :3]).past_key_values for ids in (one, other)]
        for i in range(3, 6):
            for ids, cache in zip((one, other), caches, strict=True):
                model(ids[:, i : i + 1], past_key_values=cache)
    assert_same(probe.state(), one_pass(model, [*one, *other]))
    with watch(model, statistics=["position", "overlap"]) as probe, torch.no_grad():
        cache = model(one[:, :5]).past_key_values
        model(one[:, 5:], past_key_values=copy.deepcopy(cache))
    wanted = one_pass(model, [*one[:, :5]], ["overlap"])
    assert probe.state()["model.layers.0.mlp/position"][:7, 1].tolist() == [2] * 6 + [0]
    assert torch.equal(probe.state()["model.layers.0.mlp/overlap"], wanted["model.layers.0.mlp/overlap"])


CHANGES: dict[str, Callable[[Any], Any]] = {
    "cropped": lambda cache: cache.crop(-2),
    "reordered": lambda cache: cache.reorder_cache(torch.tensor([1, 0])),
    "repeated": lambda cache: cache.batch_repeat_interleave(2),
    "in place": lambda cache: cache.layers[0].keys.copy_(cache.layers[0].keys.flip(0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_that_was_changed_is_not_continued(change):
    """Positions are right by its length, and nothing is counted as a neighbour of a token that may be another's."""
    model, ids = llama(), torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(2))
    with watch(model, statistics=["position", "overlap"]) as probe, torch.no_grad():
        cache = model(ids[:, :6]).past_key_values
        CHANGES[change](cache)
        model(ids[:, 6:].repeat(len(cache.layers[0].keys) // 2, 1), past_key_values=cache)
    at = 4 if change == "cropped" else 6
    tokens = torch.tensor([2] * 6 + [0])
    tokens[at] += len(cache.layers[0].keys)
    assert torch.equal(probe.state()["model.layers.0.mlp/position"][:7, 1], tokens)
    wanted = one_pass(model, [*ids[:, :6]], ["overlap"])
    assert torch.equal(probe.state()["model.layers.0.mlp/overlap"], wanted["model.layers.0.mlp/overlap"])


def test_a_cache_that_is_a_tuple_goes_on():
    """Its length is unknown, but it is the tuple of the call before; a reordered one has no known positions."""
    model, ids = Embedded(), torch.randint(3, 50, (3, 6), generator=torch.Generator().manual_seed(2))
    with watch(model, statistics="all") as probe:
        past = model(ids[:, :3])[1]
        for i in range(3, 6):
            past = model(ids[:, i : i + 1], past_key_values=past)[1]
    with watch(model, statistics="all") as alone:
        model(ids)
    assert_same(probe.state(), alone.state())
    with watch(model, statistics="all") as probe:
        past = model(ids[:, :3])[1]
        model(ids[:, 3:4], past_key_values=((past[0][0].flip(0),),))
    with watch(model, statistics="all") as alone:
        model(ids[:, :3])
    for name in ("position", "overlap"):
        assert torch.equal(probe.state()[f"/{name}"][:3], alone.state()[f"/{name}"][:3])
    assert probe.state()["/position"][:, 1].sum() == 9
    assert probe.num_tokens == {"": 12}


def test_a_state_without_a_length_is_followed():
    """RWKV's list of tensors: the tokens before are those that were counted with it."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2}
    model = hf.RwkvForCausalLM(hf.RwkvConfig(**sizes, attention_hidden_size=16, intermediate_size=32)).eval()
    ids = torch.randint(3, 50, (1, 6), generator=torch.Generator().manual_seed(2))
    with watch(model, statistics=["position", "overlap"]) as probe, torch.no_grad():
        state = model(ids[:, :3], use_cache=True).state
        for i in range(3, 6):
            state = model(ids[:, i : i + 1], state=state, use_cache=True).state
    with watch(model, statistics=["position", "overlap"]) as alone, torch.no_grad():
        model(ids, use_cache=False)
    assert_same(probe.state(), alone.state())


def test_a_static_cache_that_was_emptied_begins_anew_in_inference_mode():
    """Tensors made there have no version, so that only the cache's length tells."""
    model = llama()
    one, other = torch.randint(3, 50, (2, 2, 6), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode(), watch(model, statistics=STATISTICS) as probe:
        cache = hf.StaticCache(config=model.config, max_cache_len=8)
        for ids in (one, other):
            cache.reset()
            model(ids[:, :4], past_key_values=cache)
            model(ids[:, 4:], past_key_values=cache)
    assert_same(probe.state(), one_pass(model, [*one, *other]))


def test_positions_that_are_unknown_stay_unknown():
    """What was cached before the watch, in a cache without a length, leaves no place in later calls either."""
    model, ids = Embedded(), torch.randint(3, 50, (3, 7), generator=torch.Generator().manual_seed(2))
    past = model(ids[:, :3])[1]
    with watch(model, statistics=["position", "overlap"]) as probe:
        for start, stop in ((3, 5), (5, 6), (6, 7)):
            past = model(ids[:, start:stop], past_key_values=past)[1]
    with watch(model, statistics=["position", "overlap"]) as alone:
        model(ids[:, 3:])
    assert probe.num_tokens == {"": 12}
    assert not probe.state()["/position"].any()
    assert torch.equal(probe.state()["/overlap"], alone.state()["/overlap"])
