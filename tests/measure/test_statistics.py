"""Every statistic against a loop over tokens, and the same however the data is cut."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lazyneuron.measure import Probe, watch
from lazyneuron.measure.statistics import MAX_POSITIONS, STATISTICS, hot_neurons, mean, quantile
from lazyneuron.sites import Site

ALL = tuple(STATISTICS)


class Block(nn.Module):
    """An MLP of 6 inputs and 40 neurons over [B, S, 6], with an attention mask that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 40)
        self.down = nn.Linear(40, 6)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.down(torch.relu(self.up(x) - 0.5))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Block()


def maps_of(model: Block, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.relu(model.up(x) - 0.5)


def counted(model: Block, *batches: tuple[Tensor, Tensor | None], statistics=ALL) -> Probe:
    with watch(model, statistics=statistics) as probe:
        for x, mask in batches:
            model(x, attention_mask=mask)
    return probe


def test_the_histogram_gives_density_mean_and_quantiles(model):
    x = torch.randn(7, 5, 6)
    probe = counted(model, (x, None))
    counts = (maps_of(model, x) != 0).sum(-1).flatten().numpy()
    assert probe.histogram()[""].tolist() == np.bincount(counts, minlength=41).tolist()
    assert probe.share("active") == pytest.approx(probe.density)
    for q in (0, 0.01, 0.25, 0.5, 0.9, 0.99, 1):
        assert probe.quantile(q)[""] == np.quantile(counts, q, method="inverted_cdf")
    assert probe.share("energy_90")[""] < probe.share("energy_99")[""] <= probe.density[""]
    assert mean(probe.histogram("relative")[""]) <= mean(probe.histogram("active")[""])


def test_neurons_that_never_fired_are_counted(model):
    with torch.no_grad():
        model.up.bias[:13] = -100.0
    x = torch.randn(50, 3, 6)
    silent = int((maps_of(model, x) == 0).all(0).all(0).sum())
    assert silent >= 13
    assert counted(model, (x, None)).never_fired == {"": silent}


def test_density_by_position_is_that_of_a_loop(model):
    x = torch.randn(9, 5, 6) * torch.linspace(0.2, 3, 5)[:, None]
    found = counted(model, (x, None)).density_by_position[""]
    assert torch.equal(found, (maps_of(model, x) != 0).double().mean((0, 2)))


def test_positions_beyond_the_last_are_pooled(model):
    x = torch.randn(1, MAX_POSITIONS + 3, 6)
    found = counted(model, (x, None), statistics=["position"]).density_by_position[""]
    assert len(found) == MAX_POSITIONS
    assert found[-1] == (maps_of(model, x)[0, MAX_POSITIONS - 1 :] != 0).double().mean()


def test_overlap_is_that_of_a_loop_over_neighbours(model):
    x = torch.randn(4, 6, 6).cumsum(1)
    active = (maps_of(model, x) != 0).numpy()
    both = sum(int((row[i] & row[i - 1]).sum()) for row in active for i in range(1, 6))
    either = sum(int((row[i] | row[i - 1]).sum()) for row in active for i in range(1, 6))
    assert counted(model, (x, None)).overlap == {"": both / either}


def test_padding_counts_in_no_statistic(model):
    x = torch.randn(3, 6, 6)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 2 + [0] * 4])
    padded = counted(model, (x, mask)).state()
    alone = counted(model, *((row[None, : m.sum()], None) for row, m in zip(x, mask, strict=True))).state()
    assert padded.keys() == alone.keys() == {"", *(f"/{name}" for name in ALL)}
    assert all(torch.equal(padded[name], alone[name]) for name in padded)


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 7], [12]])
def test_the_cut_into_batches_changes_nothing_and_probes_merge(model, sizes):
    x = torch.randn(12, 4, 6)
    whole = counted(model, (x, None)).state()
    cut = counted(model, *((part, None) for part in x.split(sizes))).state()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    first, *others = (counted(model, (part, None)) for part in x.split(sizes))
    for other in others:
        first.merge(other)
    assert all(torch.equal(whole[name], first.state()[name]) for name in whole if name != "/halves")
    assert first.state()["/halves"][-1] == 12


def test_every_second_sequence_is_of_the_second_half_however_calls_and_padding_cut_them(model):
    x, mask = torch.randn(7, 4, 6), torch.ones(7, 4, dtype=torch.long)
    mask[1], mask[4, 2:] = 0, 0  # a sequence of padding alone is none
    second = [2, 4, 6]  # of the sequences 0, 2, 3, 4, 5, 6, every second one: 2, 4 and 6
    fires = (maps_of(model, x) != 0) & (mask != 0)[..., None]
    by_hand = fires[second].sum((0, 1))
    for sizes in ([7], [1, 2, 3, 1]):
        parts = zip(x.split(sizes), mask.split(sizes), strict=True)
        found = counted(model, *parts, statistics=["halves"]).state()["/halves"]
        assert found.tolist() == [*by_hand.tolist(), 6]


def test_hot_neurons_of_the_halves_overlap_as_their_sets_do():
    """Neurons 0 and 1 make up 90 % of the first half's activity, 0 and 2 that of the second; 3 fires once in each."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(5, 2))
    site = Site("", "1.weight", None, "1.weight", 5, 5, "relu")
    first = torch.tensor([[1.0, 1, 0, 0, 0]] * 10 + [[0.0, 0, 0, 1, 0]])
    second = torch.tensor([[1.0, 0, 1, 0, 0]] * 10 + [[0.0, 0, 0, 1, 0]])
    with watch(model, [site], statistics=["halves"]) as probe:
        model(torch.stack([first, second]))
    assert probe.hot_overlap() == {"": 1 / 3}
    assert probe.hot_overlap(1) == {"": 2 / 4}
    assert probe.hot_neurons()[""].tolist() == [0, 1, 2]
    assert probe.hot_neurons(1)[""].tolist() == [0, 1, 2, 3]
    assert probe.hot_neurons(0.5)[""].tolist() == [0, 1]  # 20 of 42 are not half of it
    with watch(model, [site], statistics=["halves"]) as probe:
        model(torch.zeros(2, 3, 5))
    assert math.isnan(probe.hot_overlap()[""])


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]))
def test_hot_neurons_are_the_fewest_that_reach_the_share(counts, share):
    chosen = hot_neurons(torch.tensor(counts), share).tolist()
    wanted = round(share * 100) * sum(counts)
    held = [100 * counts[neuron] for neuron in chosen]
    assert sum(held) >= wanted
    assert not held or sum(held[:-1]) < wanted
    rest = [counts[neuron] for neuron in range(len(counts)) if neuron not in chosen]
    assert not chosen or max(rest, default=0) <= min(counts[neuron] for neuron in chosen)


def test_neurons_that_fire_at_less_than_one_percent_of_the_tokens_are_rare():
    """1 of 200 tokens is rare, and so is none; 2 of 200 are not."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 2))
    site = Site("", "1.weight", None, "1.weight", 3, 3, "relu")
    x = torch.zeros(200, 3)
    x[0, 0], x[:2, 1] = 1, 1
    with watch(model, [site]) as probe:
        assert (probe.rarely_fired, probe.never_fired) == ({"": 3}, {"": 3})
        model(x)
    assert (probe.rarely_fired, probe.never_fired) == ({"": 2}, {"": 1})


def test_a_model_without_sequences_has_single_tokens(model):
    probe = counted(model, (torch.randn(8, 6), None))
    assert len(probe.density_by_position[""]) == 1
    assert math.isnan(probe.overlap[""])


def test_mistakes_are_named(model):
    with pytest.raises(ValueError, match="no statistic 'sum': choose from active, relative"):
        watch(model, statistics=["sum"])
    probe = counted(model, (torch.randn(2, 3, 6), None), statistics=["active"])
    with pytest.raises(ValueError, match=r"'overlap' was not counted: watch\(model, statistics=\['overlap'\]\)"):
        _ = probe.overlap
    with pytest.raises(ValueError, match="'position' has no histogram: choose from active"):
        probe.histogram("position")
    with pytest.raises(ValueError, match=r"cannot merge a probe of statistics \[\] into one of \['active'\]"):
        probe.merge(counted(model, (torch.randn(2, 3, 6), None), statistics=()))
    with pytest.raises(ValueError, match="a share of all activity lies above 0 and up to 1; got 0"):
        probe.hot_neurons(0)
    with pytest.raises(ValueError, match="'halves' was not counted"):
        probe.hot_overlap()
    with pytest.raises(ValueError, match="a quantile lies between 0 and 1; got 2"):
        probe.quantile(2)
    with pytest.raises(ValueError, match="no token was counted"):
        quantile(torch.zeros(5, dtype=torch.int64), 0.5)
