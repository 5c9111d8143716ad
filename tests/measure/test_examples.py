"""The tokens that wake a neuron: exact, in the order of the data, however the data are split."""

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.kernels.values import EDGES
from lazyneuron.measure.examples import SiteExamples, top_examples
from tests.maps.models import IDS, SMALL


class Maps(nn.Module):
    """An MLP whose activation maps are looked up, so that tests know every value."""

    def __init__(self, table_VF: Tensor) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(table_VF)
        self.up, self.down = (
            nn.Linear(table_VF.shape[1], table_VF.shape[1], bias=False),
            nn.Linear(table_VF.shape[1], 4),
        )
        nn.init.eye_(self.up.weight)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.down(torch.relu(self.up(self.embed(input_ids))))


def table(seed: int = 0) -> Tensor:
    """Values of 16 neurons at each of 30 token ids, with many ties."""
    return torch.randint(-3, 9, (30, 16), generator=torch.Generator().manual_seed(seed)).float()


def by_hand(ids: Tensor, mask: Tensor, values_VF: Tensor, n: int, context: int) -> SiteExamples:
    """Sorted in Python: the largest first, then the earliest."""
    edges = torch.tensor(EDGES)
    found = SiteExamples.empty(values_VF.shape[1], n, 2 * context + 1, torch.device("cpu"))
    real_TF = values_VF[ids[mask]]
    for f, column in enumerate(torch.bucketize(real_TF, edges, right=True).masked_fill(real_TF <= 0, 0).T):
        found.histogram[f] = column.bincount(minlength=16)
    places = [(b, s) for b in range(len(ids)) for s in range(ids.shape[1]) if mask[b, s]]
    for f in range(values_VF.shape[1]):
        ranked = sorted(places, key=lambda place: -float(values_VF[ids[place], f]))
        for i, (b, s) in enumerate([place for place in ranked if values_VF[ids[place], f] > 0][:n]):
            around = range(s - context, s + context + 1)
            seen = [int(ids[b, j]) if 0 <= j < ids.shape[1] and mask[b, j] else -1 for j in around]
            found.values[f, i], found.sequences[f, i], found.positions[f, i] = values_VF[ids[b, s], f], b, s
            found.windows[f, i] = torch.tensor(seen, dtype=torch.int32)
    return found


@pytest.mark.parametrize("batch", [1, 7, 40])
@pytest.mark.parametrize("context", [0, 3])
def test_examples_are_the_largest_and_the_earliest_for_any_split(batch: int, context: int) -> None:
    generator, values = torch.Generator().manual_seed(1), table()
    ids = torch.randint(30, (40, 9), generator=generator)
    mask = torch.arange(9) < torch.randint(1, 10, (40, 1), generator=generator)
    model, expected = Maps(values), by_hand(ids, mask, values, 5, context)
    with top_examples(model, 5, context=context) as examples:
        for part, real in zip(ids.split(batch), mask.split(batch), strict=True):
            model(part, attention_mask=real.long())
    for name, want in expected.tensors().items():
        assert torch.equal(examples[""].tensors()[name], want), name


def test_examples_stand_beside_watch_and_change_nothing() -> None:
    torch.manual_seed(0)
    model = hf.OPTForCausalLM(hf.OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16)).eval()
    mask = torch.ones_like(IDS)
    expected = model(IDS, mask).logits
    with lazy.watch(model) as probe, top_examples(model, 3) as examples:
        assert torch.equal(model(IDS, mask).logits, expected)
    for site in probe.sites:
        has_example = examples[site.name].values[:, 0] > 0
        assert torch.equal(has_example, probe.firing_rate[site.name] > 0)
        middle = examples[site.name].windows[..., 10]
        assert set(middle[examples[site.name].values > 0].tolist()) <= set(IDS.flatten().tolist())


def test_memory_does_not_grow_with_the_data() -> None:
    model = Maps(table())

    def size(num_batches: int) -> int:
        with top_examples(model, 4) as examples:
            for seed in range(num_batches):
                model(torch.randint(30, (8, 20), generator=torch.Generator().manual_seed(seed)))
        return sum(x.nbytes for x in examples[""].tensors().values())

    assert size(1) == size(20) == 16 * (4 * (8 * 10 + 16) + 128)


def test_interrupted_examples_go_on_as_if_nothing_had_happened() -> None:
    model, ids = Maps(table()), torch.randint(30, (12, 9), generator=torch.Generator().manual_seed(2))
    with top_examples(model, 4) as whole:
        model(ids[:6])
        model(ids[6:])
    with top_examples(model, 4) as first:
        model(ids[:6])
    second = top_examples(model, 4)
    second.load_state(first.state())
    with second:
        model(ids[6:])
    for name, want in whole.state().items():
        assert torch.equal(second.state()[name], want), name


def llama(**experts: int) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "eos_token_id": None}
    if experts:
        return hf.MixtralForCausalLM(hf.MixtralConfig(**sizes, **heads, **experts)).eval()
    return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, **heads)).eval().double()


TEXT = torch.randint(3, 50, (3, 11), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("steps", [[11], [6, 1, 1, 1, 1, 1], [3] + [1] * 8, [4, 7]])
@pytest.mark.parametrize("num_pads", [0, 2])
def test_calls_with_a_cache_are_one_sequence_and_positions_leave_padding_out(steps: list[int], num_pads: int) -> None:
    model, mask = llama(), torch.ones_like(TEXT)
    mask[1, :num_pads] = 0
    with top_examples(model, 4, context=3) as whole:
        model(TEXT[[0]])
        model(TEXT[[1], num_pads:])
        model(TEXT[[2]])
    stop, cache = 0, None
    with top_examples(model, 4, context=3) as parts, torch.no_grad():
        for step in steps:
            start, stop = stop, stop + step
            place = (mask.cumsum(1) - 1).clamp(min=0)[:, start:stop]
            given = {"attention_mask": mask[:, :stop], "position_ids": place, "past_key_values": cache}
            cache = model(TEXT[:, start:stop], **given, use_cache=True).past_key_values
    for site in whole.sites:
        a, b = whole[site.name], parts[site.name]
        assert torch.allclose(a.values, b.values, atol=1e-6)
        assert torch.equal(a.positions, b.positions)
        assert torch.equal(a.sequences, b.sequences)
        assert torch.equal(a.windows[..., :4], b.windows[..., :4])
        after = b.windows[..., 4:]  # what a later call held is not known when a token is kept
        assert torch.equal(after, a.windows[..., 4:].masked_fill(after < 0, -1))
        assert torch.equal(a.histogram, b.histogram)


def test_packed_documents_are_sequences_of_their_own() -> None:
    model = llama()
    with top_examples(model, 4, context=3) as apart:
        model(TEXT[[0], :5])
        model(TEXT[[0], 5:])
    places = torch.cat([torch.arange(5), torch.arange(6)])[None]
    with top_examples(model, 4, context=3) as packed:
        model(TEXT[[0]], position_ids=places, use_cache=False)  # so that attention keeps the documents apart
    for site in apart.sites:
        for name, want in apart[site.name].tensors().items():
            assert torch.allclose(packed[site.name].tensors()[name].double(), want.double(), atol=1e-6), name


def test_at_experts_the_sequence_is_unknown_and_position_and_token_are_right() -> None:
    model = llama(num_local_experts=4, num_experts_per_tok=2)
    with top_examples(model, 4, context=2) as examples:
        model(TEXT)
    for site in examples.sites:
        found = examples[site.name]
        is_there = found.values > 0
        assert is_there.any()
        assert (found.sequences == -1).all()
        held = TEXT[:, found.positions[is_there].long()] == found.windows[is_there][:, 2]
        assert held.any(0).all()
        assert (found.windows[..., [0, 1, 3, 4]] == -1).all()


def test_nan_and_wrong_sizes() -> None:
    values = table()
    values[3] = torch.nan
    model = Maps(values)
    with top_examples(model, 2) as examples:
        model(torch.tensor([[3, 4, 3, 5]]))
    assert not examples[""].values.isnan().any()
    assert set(examples[""].positions.flatten().tolist()) <= {-1, 1, 3}
    assert examples[""].histogram.sum(1).tolist() == [2] * 16
    with pytest.raises(ValueError, match="n of 1 or more"):
        top_examples(model, 0)
