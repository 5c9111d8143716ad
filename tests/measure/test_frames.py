"""Counts as a data frame of either library, as HTML in a notebook, and as a chart."""

import io
from html import escape

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from tests.test_errors import run_without


@pytest.fixture
def probe() -> lazy.Probe:
    torch.manual_seed(0)
    blocks = (nn.Sequential(nn.Linear(6, d_ff), nn.ReLU(), nn.Linear(d_ff, 6)) for d_ff in (8, 12))
    model = nn.Sequential(*blocks)
    with lazy.watch(model, statistics=["energy_90"]) as found:
        model(torch.randn(4, 5, 6))
    return found


@pytest.mark.parametrize("backend", ["polars", "pandas"])
def test_a_frame_has_a_row_per_site_or_per_neuron(probe, backend):
    pytest.importorskip(backend)
    frame = probe.to_frame(backend=backend)
    assert type(frame).__module__.startswith(backend)
    assert list(frame["site"]) == ["0", "1"]
    assert list(frame["d_ff"]) == [8, 12]
    assert list(frame["density"]) == list(probe.density.values())
    assert list(frame["never_fired"]) == list(probe.never_fired.values())
    assert list(frame["energy_90"]) == list(probe.share("energy_90").values())
    neurons = probe.to_frame("neuron", backend=backend)
    assert list(neurons.columns) == ["stack", "layer", "site", "neuron", "firing_rate"]
    assert list(neurons["neuron"]) == [*range(8), *range(12)]
    assert list(neurons["firing_rate"]) == torch.cat([*probe.firing_rate.values()]).tolist()


def test_a_frame_is_written_as_parquet_and_json_by_its_own_means(probe, tmp_path):
    polars = pytest.importorskip("polars")
    frame = probe.to_frame()
    frame.write_parquet(tmp_path / "counts.parquet")
    assert polars.read_parquet(tmp_path / "counts.parquet").equals(frame)
    assert polars.read_json(io.StringIO(frame.write_json()))["density"].to_list() == frame["density"].to_list()


def test_a_site_without_a_token_has_a_row_of_nulls():
    polars = pytest.importorskip("polars")
    site = lazy.Site("", "0.weight", None, "2.weight", 6, 8, "relu")
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
    frame = lazy.watch(model, [site]).to_frame()
    assert isinstance(frame, polars.DataFrame)
    assert (frame["num_tokens"].to_list(), "density" in frame.columns) == ([0], False)


def test_notebooks_show_the_table_and_a_chart(probe):
    assert probe._repr_html_() == probe.table()._repr_html_()
    assert lazy.watch(nn.Linear(2, 2))._repr_html_() is None  # nothing is known yet
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
    parts = lazy.cost(model, lazy.find_sites(model, torch.ones(1, 6)), torch.ones(1, 6))
    assert parts._repr_html_() == parts.table()._repr_html_()
    advice = lazy.advise(model, torch.ones(1, 6))
    html = advice._repr_html_()
    assert html.count("<table") == len(advice.tables()) > 0
    assert escape(advice.verdict) in html
    spec = probe.plot().to_dict()
    (rows,) = spec["datasets"].values()
    assert [row["density"] for row in rows] == list(probe.density.values())
    assert (spec["encoding"]["x"]["field"], spec["encoding"]["y"]["field"]) == ("layer", "density")


CODE = """
import lazyneuron as lazy
from torch import nn
probe = lazy.watch(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)))
for call in (probe.to_frame, probe.plot):
    try:
        call()
    except lazy.UsageError as error:
        print(error)
"""


def test_what_is_missing_is_named():
    done = run_without({"narwhals", "polars", "pandas", "altair"}, CODE)
    assert done.stdout.splitlines() == [
        "to_frame needs narwhals: pip install 'lazyneuron[frames]'",
        "plot needs altair: pip install 'lazyneuron[cli]'",
    ], done.stderr
    done = run_without({"polars", "pandas"}, CODE)
    assert done.stdout.startswith("to_frame needs polars: pip install 'lazyneuron[frames]'"), done.stderr


def test_a_row_is_a_site_or_a_neuron(probe):
    with pytest.raises(ValueError, match="a row per 'site' or per 'neuron'; got per='token'"):
        probe.to_frame("token")
