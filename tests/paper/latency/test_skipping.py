"""Skipping inactive neurons: rounding alone, and as many FLOPs as neurons are active."""

import math

import pytest
import torch

from lazyneuron.paper.latency import recipe, skipping
from lazyneuron.paper.latency.skipping import Skipping, rounding_bound
from tests.paper.records import verdict


def test_the_bound_admits_rounding_and_no_lost_product():
    torch.manual_seed(0)
    h, rows = torch.randn(16, 512).relu(), torch.randn(512, 64)
    exact = h.double() @ rows.double()
    assert ((h @ rows).double() - exact).abs().le(rounding_bound(h, rows)).all()
    last = h.clone()
    last[:, h[0].nonzero()[-1]] = 0
    assert ((last @ rows).double() - exact)[0].abs().gt(rounding_bound(h, rows)[0]).sum() >= 60
    assert rounding_bound(torch.zeros(1, 4), torch.ones(4, 2)).tolist() == [[0, 0]]


def test_skipping_costs_rounding_alone_and_saves_what_density_says(trained, studied):
    _, runs = trained
    records = studied(Skipping(name="skipping", of=tuple(runs.values()), num_batches=2))
    errors = [r.value for r in records if r.what == "skip_error"]
    assert len(errors) == 2 + 2 + 2
    assert all(0 < error < 0.5 for error in errors)
    share = {(r.case, r.site): r.value for r in records if r.what == "skip_flops_share"}
    density = {(r.case, r.site): r.value for r in records if r.what == "density"}
    assert share == density
    assert all(0.2 < value < 0.8 for (run, _), value in share.items() if run != "vit-top8")
    assert all(value <= 8 / 96 for (run, _), value in share.items() if run == "vit-top8")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_number_that_is_none_fails_the_check(trained, studied, monkeypatch, value):
    _, runs = trained
    calls = []

    def broken(*args):
        y_TD, reads = sparse_down(*args)
        calls.append(y_TD)
        if len(calls) == 3:
            y_TD[0, 0] = value
        return y_TD, reads

    sparse_down = skipping.sparse_down
    monkeypatch.setattr(skipping, "sparse_down", broken)
    records = studied(Skipping(name=f"skipping {value}", of=tuple(runs.values()), num_batches=1))
    assert [r.value for r in records if r.what == "skip_error"].count(math.inf) == 1
    found = verdict(recipe.skipping_changes_nothing("s"), {"s": records})
    assert (found.verdict, found.values) == ("does not hold", [math.inf])


def test_tokens_without_an_active_neuron_have_no_error():
    h, rows = torch.zeros(2, 4), torch.ones(4, 3)
    assert skipping.share_of_bound(torch.zeros(2, 3), h, rows) == 0
    assert skipping.share_of_bound(torch.full((2, 3), 1e-30), h, rows) == math.inf
