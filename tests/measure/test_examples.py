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
