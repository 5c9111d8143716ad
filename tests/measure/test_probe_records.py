"""Records of a probe hold what the counts say; curves are thinned and stay true."""

import pytest
import torch
from torch import nn

from lazyneuron.measure import watch
from lazyneuron.measure.probe_records import firing_records, probe_records
from lazyneuron.sites import Site


def test_static_shares_are_those_of_the_firing_counts():
    """Of 200 tokens, neuron 0 fires at 100, neuron 1 at 10, neuron 2 at 1, neuron 3 at none."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
    x = torch.zeros(4, 50, 4)
    x[:2, :, 0], x[0, :10, 1], x[0, 0, 2] = 1, 1, 1
    site = Site("mlp", "1.weight", None, "1.weight", 4, 4, "relu")
    with watch(model, [site], statistics=["halves"]) as probe:
        model(x)
    found = {r.what: r.value for r in probe_records(probe, recipe="measure") if r.x is None}
    assert found["density"] == 111 / 800
    assert (found["never_fired"], found["rarely_fired"]) == (1, 2)
    assert (found["hot_90"], found["hot_99"]) == (1 / 4, 2 / 4)  # 100 and 110 of 111
    assert found["hot_overlap"] == 1 / 2  # the first half has neurons 0 and 1 hot, the second neuron 0 alone
    records = list(firing_records(probe, recipe="mine", seed=3, split="train", step=7))
    assert {(r.site, r.step, r.split, r.seed, r.num_tokens) for r in records} == {("mlp", 7, "train", 3, 200)}
    assert {r.what: r.unit for r in records}["hot_90"] == "fraction"


def test_curves_are_thinned_and_stay_true():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1000), nn.ReLU(), nn.Linear(1000, 4))
    with watch(model, statistics="all") as probe:
        model(torch.randn(3, 700, 4))
    records = list(probe_records(probe, recipe="measure"))

    def curve(what: str) -> list[tuple[float, float]]:
        return [(r.x, r.value) for r in records if r.what == what and r.x is not None]

    rates = probe.firing_rate[""].sort(descending=True).values
    assert len(curve("firing_rate")) == 129
    assert curve("firing_rate")[0] == (0, rates[0])
    assert curve("firing_rate")[-1] == (1, rates[-1])
    assert len(curve("token_share")) <= 65
    assert sum(value for _, value in curve("token_share")) == pytest.approx(1)
    widths = {b - a for (a, _), (b, _) in zip(curve("token_share"), curve("token_share")[1:], strict=False)}
    assert len(widths) == 1
    positions = curve("density_by_position")
    assert len(positions) <= 256
    assert positions[0] == (1.0, pytest.approx(probe.density_by_position[""][:3].mean().item()))
