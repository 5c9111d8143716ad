"""`lazyneuron advise`: the advice is recorded, also for models that do not generate."""

import io
import json

import pytest
from rich.console import Console

from lazyneuron.cli.advise import Advise
from lazyneuron.cli.advise_run import advise_on
from lazyneuron.records.folder import RunFolder
from tests.load.conftest import saved

__all__ = ["saved"]


@pytest.fixture
def console():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_advice_by_name_is_kept_as_records(saved, console, tmp_path):
    advised = advise_on(Advise(model=str(saved("opt")), rows="1,2", tokens=4, out=tmp_path / "out"), console)
    assert [speed.num_rows for speed in advised.advice.speeds] == [1, 2]
    folder = RunFolder(advised.folder)
    assert {"density", "latency_ms", "step_ms"} <= {record.what for record in folder.records()}
    kept = json.loads((advised.folder / "advice.json").read_text())
    assert kept["verdict"] == advised.advice.verdict
    again = advise_on(Advise(model=str(saved("opt")), rows="1", tokens=4, out=tmp_path / "out"), console)
    assert len(RunFolder(again.folder).records()) < len(folder.records()) + 1


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_models_that_do_not_generate_get_advice(saved, console, tmp_path, family):
    advised = advise_on(Advise(model=str(saved(family)), rows="1,2", tokens=4, out=tmp_path), console)
    assert advised.advice.verdict.startswith("No gain: none")
