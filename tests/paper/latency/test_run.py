"""Decoding: every way at every budget below d_ff and at d_ff, dense first and last, and the ratio of the two."""

from pathlib import Path

import pytest

from lazyneuron.paper.latency.run import Latency


@pytest.mark.slow
def test_each_size_and_budget_has_its_times():
    run = Latency(name="latency", sizes=("small",), budgets=(32, 5000), num_tokens=3, repeats=1)
    parts = list(run.measure([], {"recipe": "latency", "seed": 0}, Path()))
    records = [record for _, _, found in parts for record in found]
    assert parts[-1][:2] == (2, 2)
    times = {(r.case, r.x): r.value for r in records if r.what == "latency_ms"}
    ways = {(f"small {way}", k) for way in ("top-k", "exploited") for k in (32, 2048)}
    assert times.keys() == ways | {("small dense", 2048), ("small dense, last", 2048)}
    dense = min(times[f"small {way}", 2048] for way in ("dense", "dense, last", "exploited"))
    speedups = {r.x: r.value for r in records if r.what == "speedup"}
    assert speedups == {k: pytest.approx(dense / times["small exploited", k]) for k in (32, 2048)}
