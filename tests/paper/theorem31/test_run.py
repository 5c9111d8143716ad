"""The theorem's run: every case, control and layer has its record, and the same seed gives the same bytes."""

from dataclasses import replace

import pytest

from lazyneuron.paper.theorem31.claims import theorem
from lazyneuron.paper.theorem31.gradient import CASES, CONTROLS
from lazyneuron.paper.theorem31.run import Theory
from lazyneuron.paper.trainings import mlp_training
from lazyneuron.records.folder import RunFolder


@pytest.fixture
def theory(small_vit, small_t5):
    network = replace(mlp_training("smoke"), batch_size=64)
    return Theory(num_draws=500, num_initialisations=24, networks=(network, small_vit, small_t5))


def run(theory, path, cache, seed=0):
    progress = []
    theory.execute(path, seed, cache, report=progress.append)
    return RunFolder(path), progress


def test_each_case_control_and_layer_has_its_record(theory, tmp_path, cache):
    folder, seen = run(theory, tmp_path / "run", cache)
    records = folder.records()
    assert {r.case for r in records if r.what == "gradient"} == {case.name for case in CASES}
    assert {r.case for r in records if r.what == "gradient_control"} == {case.name for case in CONTROLS}
    layers = [(r.case, r.stack, r.layer) for r in records if r.what == "gradient_step0"]
    assert layers == [("mlp", "", 0), ("vit", "", 0), ("vit", "", 1), ("t5", "encoder", 0), ("t5", "decoder", 0)]
    assert all(r.error and r.error > 0 for r in records if r.what == "gradient_step0")
    assert [p.step for p in seen] == list(range(1, len(CASES) + len(CONTROLS) + 4))
    assert folder.is_done()
    found = {claim.name: claim.verdict("theorem31", {0: {"t": records}}) for claim in theorem("t")}
    assert found["theorem-controls"].verdict == "holds"
    assert all(verdict.value is not None for verdict in found.values())


def test_a_run_cut_short_begins_again_and_gives_the_same_bytes(theory, tmp_path, cache):
    theory = replace(theory, networks=theory.networks[:1], num_initialisations=2)
    whole, _ = run(theory, tmp_path / "whole", cache)
    cut, _ = run(theory, tmp_path / "cut", cache)
    (cut.path / "done").unlink()
    cut.append(cut.records()[:3])
    run(theory, tmp_path / "cut", cache)
    assert (cut.path / "records.jsonl").read_bytes() == (whole.path / "records.jsonl").read_bytes()
    other, _ = run(theory, tmp_path / "other", cache, seed=1)
    assert [r.value for r in other.records()] != [r.value for r in whole.records()]
