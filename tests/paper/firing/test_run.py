"""How often neurons fire: enough tokens, every neuron, and the same rates as `watch` gives."""

import pytest

from lazyneuron.paper.firing.run import Firing
from lazyneuron.paper.task import TextBatches


def test_each_site_has_its_firing_curve_and_shares(trained, studied):
    _, runs = trained
    records = studied(Firing(name="firing", of=(runs["t5"],), num_tokens=1500))
    assert {r.stack for r in records} == {"encoder", "decoder"}
    first = [r for r in records if r.stack == "encoder"]
    assert {r.num_tokens for r in first} == {1536}  # of 16 x 32 at a time
    rates = [r.value for r in first if r.what == "firing_rate"]
    assert rates == sorted(rates, reverse=True)
    assert len(rates) == 96
    for share in (r for r in first if r.what == "fires_below"):
        assert share.value == pytest.approx(sum(rate < share.x for rate in rates) / 96)
    (least,) = (r.value for r in first if r.what == "least_firing_rate")
    assert least == rates[-1]
    (never,) = (r.value for r in first if r.what == "never_fired")
    assert never == sum(rate == 0 for rate in rates)
    density = next(r.value for r in first if r.what == "density")
    assert density == pytest.approx(sum(rates) / 96)


def test_every_batch_is_another_one_and_none_is_from_training(trained, studied, monkeypatch):
    steps, draw = [], TextBatches.train

    def train(self, step):
        steps.append(step)
        return draw(self, step)

    monkeypatch.setattr(TextBatches, "train", train)
    _, runs = trained
    studied(Firing(name="batches", of=(runs["t5"],), num_tokens=1500))
    assert steps == [runs["t5"].num_steps + n for n in range(3)]
