"""Counts equal brute force, however the batch is split and merged, and reading them is safe at any time."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lazyneuron.measure.probe import watch
from lazyneuron.sites import Site, find_sites
from tests.maps.models import IDS, MLP, Stack, build_t5, num_hooks, random


def test_counts_equal_brute_force() -> None:
    """Density, tokens, actives and per-neuron rates are those of the maps themselves."""
    model = MLP().eval()
    with watch(model) as probe:
        for batch in random(3, 4, 5, 8):
            model(batch)
    h_TF = torch.cat(model.maps[1:]).reshape(-1, 12)  # the first call traced the model
    assert probe.num_tokens == {"": 60}
    assert probe.density == {"": pytest.approx((h_TF > 0).double().mean().item(), rel=1e-12)}
    assert probe.num_active == {"": pytest.approx((h_TF > 0).sum(1).double().mean().item(), rel=1e-12)}
    assert torch.equal(probe.firing_rate[""], (h_TF > 0).double().mean(0))
    assert probe.state()[""].tolist() == [*(h_TF > 0).sum(0).tolist(), 60, 0]


def test_t5_counts_equal_a_wrapper_around_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks at the down projection count what an independent wrapper of the activation function sees."""
    model, seen = build_t5(), []
    for name, module in model.named_modules():
        if name.endswith("DenseReluDense"):
            relu = module.act
            monkeypatch.setattr(module, "act", nn.Sequential(relu, _Spy(seen)))
    sites = find_sites(model, {"input_ids": IDS, "labels": IDS})
    seen.clear()
    with watch(model, sites) as probe:
        model(input_ids=IDS, labels=IDS)
    assert [probe.density[site.name] for site in sites] == pytest.approx(seen, rel=1e-12)


class _Spy(nn.Module):
    def __init__(self, seen: list[float]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, h: Tensor) -> Tensor:
        self.seen.append(sum(value > 0 for value in h.flatten().tolist()) / h.numel())
        return h


def test_batch_cut_and_merge_do_not_matter() -> None:
    """One batch, three batches, and two merged probes give identical integers."""
    model, x = Stack().eval(), random(6, 5, 8)
    sites = find_sites(model, x)

    def count(*batches: Tensor) -> Any:
        with watch(model, sites) as probe:
            for batch in batches:
                model(batch)
        return probe

    whole, cut, left, right = count(x), count(x[:1], x[1:3], x[3:]), count(x[:2]), count(x[2:])
    left.merge(right)
    for name, counts in whole.state().items():
        assert torch.equal(counts, cut.state()[name])
        assert torch.equal(counts, left.state()[name])
    fresh = watch(model)
    fresh.merge(whole)
    assert fresh.density == whole.density
    other = Site("a", "a.w1.weight", None, "a.w2.weight", 8, 13, "relu")
    with pytest.raises(ValueError, match="'a': d_ff is 12 here and 13 there"):
        whole.merge(watch(model, [other]))


def test_nan_is_counted_apart_and_negative_zero_is_not_active() -> None:
    """Active is strictly nonzero; NaN entries have a number of their own, and the table names their layer."""
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
    site = Site("mlp", "1.weight", None, "1.weight", 4, 4, "relu")
    with watch(model, [site]) as probe:
        model(torch.tensor([[float("nan"), -0.0, 0.0, -1.0]]))
    assert probe.state()["mlp"].tolist() == [0, 0, 0, 1, 1, 1]
    assert probe.num_nan == {"mlp": 1}
    assert str(probe.table()).splitlines()[-1] == "note: NaN entries, counted apart: 1 at mlp"


def test_attach_and_detach_go_on_counting() -> None:
    """Without a `with`, and as often as one likes."""
    model = Stack()
    probe = watch(model).attach()
    model(random(4, 8))
    probe.detach()
    probe.detach()
    model(random(4, 8))
    assert num_hooks(model) == 0
    probe.attach()
    model(random(2, 8))
    probe.detach()
    assert probe.num_tokens == {"a": 6, "b": 6}


def test_misuse_is_refused_in_one_line() -> None:
    """Reading too early, opening twice, a site of the wrong width, and two sites of one name say so."""
    model = MLP()
    with pytest.raises(RuntimeError, match="no site is known yet"):
        _ = watch(model).density
    with watch(model) as probe, pytest.raises(RuntimeError, match="open already"):
        probe.__enter__()
    wrong = Site("", "w1.weight", None, "w2.weight", 8, 11, "relu")
    with pytest.raises(ValueError, match=r"MLP has w2\.weight of shape \(8, 12\), not d_ff=11"), watch(model, [wrong]):
        pass
    site = Site("", "w2.weight", None, "w1.weight", 12, 12, "relu")
    with watch(model, [site]), pytest.raises(ValueError, match=r"w1\.weight got 8 neurons, the site has 12"):
        model(random(4, 8))
    with pytest.raises(ValueError, match="two sites are named"), watch(model, [site, site]):
        pass
    assert str(watch(model, [site]).density) == "{'': nan}"


def test_table_has_a_line_per_site() -> None:
    """The printed table holds each site's numbers, and warns where zero means little."""
    model = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
    with watch(model) as probe:
        model(random(4, 8))
    head, row, note = str(probe.table()).splitlines()
    assert head.split() == ["site", "activation", "d_ff", "tokens", "active/token", "density", "%"]
    assert row.split() == ["(model)", "gelu", "12", "4", "12.0", "100.00"]
    assert "gelu: rarely zero" in note


@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 0, 8), (0, 8)])
def test_calls_without_a_token_count_nothing(shape: tuple[int, ...]) -> None:
    """An empty batch passes, and the numbers are those of no token."""
    model = Stack().eval()
    sites = find_sites(model, random(1, 8))
    with watch(model, sites, statistics="all") as probe:
        model(torch.empty(shape))
    assert probe.num_tokens == {"a": 0, "b": 0}
    assert str(probe.density) == "{'a': nan, 'b': nan}"
