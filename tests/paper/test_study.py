"""A study in its folder: what it needs, what it does when it is done or was cut short."""

import pytest

from lazyneuron.errors import UsageError
from lazyneuron.paper.latency.skipping import Skipping
from lazyneuron.paper.study import load_trained
from lazyneuron.paper.task import labelled
from lazyneuron.records.folder import RunFolder
from lazyneuron.training.evaluation import Evaluation


def test_without_its_model_a_study_says_what_to_do(trained, tmp_path):
    _, runs = trained
    run = Skipping(name="skipping", of=(runs["vit"],), num_batches=1)
    with pytest.raises(UsageError, match="vit-seed0 holds no finished training: run its recipe first"):
        run.execute(tmp_path / "skipping-seed0", 0, tmp_path)


def test_a_done_study_is_left_alone_and_a_cut_one_begins_again(trained, studied):
    folder, runs = trained
    run = Skipping(name="again", of=(runs["vit"],), num_batches=1)
    first = studied(run)
    path = folder / "again-seed0"
    (path / "done").unlink()
    RunFolder(path).append(first[:2])
    assert studied(run) == first
    before = (path / "records.jsonl").stat().st_mtime_ns
    run.execute(path, 0, folder / "cache")
    assert (path / "records.jsonl").stat().st_mtime_ns == before


def test_a_trained_model_is_what_the_training_left(trained):
    folder, runs = trained
    records = RunFolder(folder / "vit-top8-seed0").records()
    found = load_trained(runs["vit-top8"], folder, 0, folder / "cache")
    evaluation = Evaluation(found.model, found.sites).run(map(labelled, found.batches.test()))
    quality = evaluation.quality
    test = {(r.what, r.site): r.value for r in records if r.split == "test" and r.x is None}
    assert (quality.loss, quality.ece) == (test["loss", ""], test["ece", ""])
    assert evaluation.kept.density == {site.name: test["density", site.name] for site in found.sites}
