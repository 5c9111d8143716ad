"""Decoding in turns: each k between two dense turns, ratios within a round, models that do not disturb each other."""

import importlib
from itertools import count
from pathlib import Path

import pytest
import torch

from lazyneuron.enforce.enforce import enforced
from lazyneuron.errors import LazyneuronError
from lazyneuron.exploit.decode import Timed
from lazyneuron.exploit.exploit import exploited
from lazyneuron.paper.latency import run as module
from lazyneuron.paper.latency.run import Latency, Turns
from lazyneuron.paper.models import T5_SIZES
from lazyneuron.paper.models.t5 import T5Size

RUN = Latency(name="latency", sizes=("flat",), budgets=(32, 64, 5000), num_tokens=4, num_rounds=2)
D_FF = 2048
DECODER = "decoder.block.0.layer.2.DenseReluDense"


@pytest.fixture(autouse=True)
def flat(monkeypatch):
    """A T5 as small as kernels take it, exploited as if it were larger than the cache."""
    monkeypatch.setitem(T5_SIZES, "flat", T5Size(1, 128, D_FF, 2, 64))
    monkeypatch.setattr(importlib.import_module("lazyneuron.exploit.exploit"), "CACHE_BYTES", 0)


def records_of(run):
    parts = list(run.measure([], {"recipe": "latency", "seed": 0}, Path()))
    return parts, [record for _, _, found in parts for record in found]


def test_each_k_has_its_times_and_ratios_in_every_round():
    parts, records = records_of(RUN)
    assert [part[:2] for part in parts] == [(1, 2), (2, 2)]
    for number in (0, 1):
        times = {(r.case, r.x): r.value for r in records if r.what == "latency_ms" and r.step == number}
        ways = {(f"flat {way}", k) for way in ("dense", "top-k", "exploited") for k in (32, 64, D_FF)}
        assert times.keys() == ways | {("flat threads", D_FF)}
        assert all(value > 0 for value in times.values())
        ratios = {(r.what, r.x): r.value for r in records if r.unit == "times" and r.step == number}
        gain = ratios.pop(("threads_gain", D_FF))
        assert gain > 0
        for k in (32, 64, D_FF):
            fast = times["flat exploited", k]
            assert ratios.pop(("speedup", k)) == pytest.approx(times["flat dense", k] / fast)
            assert ratios.pop(("speedup_threads", k)) == pytest.approx(times["flat threads", D_FF] / fast)
        assert not ratios


def test_dense_is_the_mean_of_the_turns_before_and_after(monkeypatch):
    """Turn n takes n milliseconds, and those that warm up do not count."""
    turns = count(1)

    def decode(model, inputs, num_tokens):
        number = next(turns) if num_tokens == RUN.num_tokens else 1000
        return Timed(torch.zeros(1, num_tokens), [float(number)] * (num_tokens - 1))

    monkeypatch.setattr(module, "decode", decode)
    _, records = records_of(RUN)
    times = {(r.case, r.x, r.step): r.value for r in records if r.what == "latency_ms"}
    for number, first in ((0, 1), (1, 13)):
        for place, k in enumerate((32, 64, D_FF)):
            found = [times[f"flat {way}", k, number] - first for way in ("dense", "top-k", "exploited")]
            assert found == [3 * place + 1.5, 3 * place + 1, 3 * place + 2]
        assert times["flat threads", D_FF, number] - first == 10
    (gain,) = [r.value for r in records if r.what == "threads_gain" and r.step == 0]
    assert gain == pytest.approx((10 + 12) / 2 / 11)


def test_other_tokens_are_an_error(monkeypatch):
    drawn = count()
    monkeypatch.setattr(module, "decode", lambda model, inputs, n: Timed(torch.tensor([[next(drawn)]]), [1.0]))
    with pytest.raises(LazyneuronError, match="exploited T5 flat with k=32 decodes other tokens"):
        records_of(RUN)


def test_every_model_goes_its_own_way_on_the_same_weights():
    """A small k is exploited at once, although half of the neurons fire at d_ff; the threads' model never skips."""
    turns = Turns("flat", [32, D_FF], 0, 3)
    for name, weight in turns.dense.named_parameters():
        assert weight.is_contiguous()
        assert all(model.get_parameter(name) is weight for model in turns.masked.values())
        other = turns.threads.get_parameter(name)
        assert torch.equal(other, weight)
        assert other is not weight
        assert all(model.get_parameter(name) is other for model in turns.exploited.values())
    assert not enforced(turns.dense)
    assert not enforced(turns.threads)
    list(turns.round({"recipe": "latency", "seed": 0}))
    ways = {k: exploited(model)[DECODER] for k, model in turns.exploited.items()}
    assert (ways[32].last_up.name, ways[32].last_down.name) == ("screened", "sparse down")
    assert ways[32].density <= 32 / D_FF < 0.3 < ways[D_FF].density
    mlps = exploited(turns.threads)
    assert {(one.last_up.name, one.last_down.name) for one in mlps.values()} == {("dense", "dense")}
    assert not exploited(turns.dense)
    assert not exploited(turns.masked[32])


def test_the_dense_model_and_the_one_on_our_threads_decode_the_same():
    turns = Turns("flat", [32, D_FF], 0, 3)
    tokens = turns.time(turns.dense)[0]
    assert torch.equal(tokens, turns.time(turns.threads)[0])
    assert torch.equal(tokens, turns.time(turns.exploited[D_FF])[0])
