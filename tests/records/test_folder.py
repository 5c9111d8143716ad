"""Records survive crashes, keep their parent, and a folder refuses what is not its own."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
import torch

from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.records.folder import RunFolder, cache_folder
from lazyneuron.records.record import Record, Source, Verdict

SOURCE = Source(commit="abc", device="cpu", num_threads=1, versions={"torch": "2.13.0"})


def record(step: int, source: Source | None = SOURCE) -> Record:
    return Record(what="density", value=0.5, unit="fraction", recipe="t5", seed=0, step=step, source=source)


def test_records_come_back_equal_and_in_order(tmp_path):
    folder = RunFolder(tmp_path / "run", {"a": 1})
    folder.append([record(0), record(1)])
    RunFolder(tmp_path / "run").append([record(2)])
    assert RunFolder(tmp_path / "run").records() == [record(0), record(1), record(2)]


def test_a_source_is_written_once_until_it_changes(tmp_path):
    folder = RunFolder(tmp_path, {})
    other = dataclasses.replace(SOURCE, commit="def")
    folder.append([record(0), record(1)])
    folder.append([record(2)])
    folder.append([record(3, other), record(4)])
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert sum("source" in json.loads(line) for line in lines) == 3
    assert [r.source.commit for r in folder.records() if r.source] == ["abc", "abc", "abc", "def", "abc"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_cut_short_is_dropped_with_a_note_and_the_next_append_mends_the_file(tmp_path, cut):
    folder = RunFolder(tmp_path, {})
    folder.append([record(0), record(1)])
    file = tmp_path / "records.jsonl"
    os.truncate(file, file.stat().st_size - cut)
    with pytest.warns(UserWarning, match="dropped the last line"):
        assert RunFolder(tmp_path).records() == [record(0)]
    with pytest.warns(UserWarning, match="dropped the last line"):
        RunFolder(tmp_path).append([record(2)])
    assert RunFolder(tmp_path).records() == [record(0), record(2)]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    folder = RunFolder(tmp_path, {})
    (tmp_path / "records.jsonl").write_text('{"what": "x"\n{}\n')
    with pytest.raises(LazyneuronError, match=re.escape("records.jsonl line 1 is damaged")):
        folder.records()


def test_another_config_is_refused_and_names_what_differs(tmp_path):
    RunFolder(tmp_path, {"seed": 0, "scale": "quick"})
    RunFolder(tmp_path, {"seed": 0, "scale": "quick"}).log("begun")
    with pytest.raises(UsageError, match=r"another config \(seed\)"):
        RunFolder(tmp_path, {"seed": 1, "scale": "quick", "command": "b"})


def test_a_folder_in_which_nothing_was_begun_takes_another_config(tmp_path):
    RunFolder(tmp_path, {"seed": 0})
    RunFolder(tmp_path, {"seed": 1})
    assert RunFolder(tmp_path).config == {"seed": 1}


def test_commands_that_go_on_in_a_folder_are_all_kept(tmp_path):
    RunFolder(tmp_path, {"seed": 0}).log("begun without one")
    for command in ({"command": "a"}, {"command": "b"}, {}, {"command": "a"}):
        RunFolder(tmp_path, {"seed": 0} | command).log("went on")
    assert RunFolder(tmp_path).config == {"seed": 0, "command": "a && b"}


def test_a_folder_without_a_run_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        RunFolder(tmp_path)
    with pytest.raises(UsageError, match="holds no run"):
        RunFolder(tmp_path / "missing")


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        RunFolder(tmp_path / "file", {})


def test_checkpoints_keep_the_newest_and_come_back(tmp_path):
    folder = RunFolder(tmp_path, {})
    assert folder.load_checkpoint() is None
    for step in (1, 2, 3):
        folder.append([record(step)])
        folder.save_checkpoint(step, {"w": torch.full((3,), float(step))})
    assert [path.name for path in folder.checkpoints()] == ["checkpoint-000000002.pt", "checkpoint-000000003.pt"]
    state = folder.load_checkpoint()
    assert state is not None
    assert state["step"] == 3
    assert state["w"].tolist() == [3.0] * 3
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_is_named_with_the_one_before_it(tmp_path, damage):
    folder = RunFolder(tmp_path, {})
    for step in (1, 2):
        folder.save_checkpoint(step, {"w": torch.arange(1000.0)})
    newest = folder.checkpoints()[-1]
    data = bytearray(newest.read_bytes())
    if damage == "flip":
        position = data.find(torch.arange(1000.0).numpy().tobytes()[:400])
        data[position + 200] ^= 1
    newest.write_bytes({"truncate": data[:-100], "flip": data, "empty": b""}[damage])
    with pytest.raises(
        LazyneuronError, match=r"000002\.pt is damaged.*remove it, and .* from checkpoint-000000001\.pt"
    ):
        folder.load_checkpoint()
    newest.unlink()
    state = folder.load_checkpoint()
    assert state is not None
    assert state["step"] == 1


def test_truncate_goes_back_to_a_checkpoint_and_writes_the_same_bytes_again(tmp_path):
    folder = RunFolder(tmp_path, {})
    folder.append([record(0)])
    size = folder.records_size()
    folder.append([record(1)])
    whole = (tmp_path / "records.jsonl").read_bytes()
    folder.truncate_records(size)
    assert folder.records() == [record(0)]
    folder.append([record(1)])
    assert (tmp_path / "records.jsonl").read_bytes() == whole
    folder.truncate_records(0)
    folder.append([record(0), record(1)])
    assert (tmp_path / "records.jsonl").read_bytes() == whole
    with pytest.raises(LazyneuronError, match="shorter than its checkpoint"):
        folder.truncate_records(10**6)


def test_verdicts_are_replaced_as_a_whole(tmp_path):
    folder = RunFolder(tmp_path, {})
    verdict = Verdict(
        claim="c",
        text="t",
        where="w",
        metric="m",
        expected="e",
        value=None,
        verdict="cannot tell",
        reason="r",
        recipe="fig1",
        on="t5",
        seeds=[0, 1],
        values=[0.0, 0.2],
    )
    folder.write_verdicts([verdict, verdict])
    judged = dataclasses.replace(verdict, value=0.1, low=0.0, high=0.2, verdict="holds")
    folder.write_verdicts([judged])
    assert folder.verdicts() == [judged]


def test_what_the_experiments_are_about_is_replaced_as_a_whole(tmp_path):
    folder = RunFolder(tmp_path, {})
    assert folder.recipes() == []
    recipe = {"name": "fig1", "title": "T5 \u201cgrows\u201d sparse", "runs": ["t5"], "settings": [1.5, "long"]}
    folder.write_recipes([recipe, recipe])
    folder.write_recipes(iter([recipe]))
    assert folder.recipes() == [recipe]


def test_source_here_knows_this_code_and_these_libraries():
    source = Source.here("cpu", 3)
    assert source.versions["torch"] == torch.__version__
    assert source.num_threads == 3
    assert re.fullmatch(r"[0-9a-f]{7,12}(\+changes)?|unknown", source.commit)


def test_the_cache_follows_its_variables(monkeypatch):
    monkeypatch.setenv("LAZYNEURON_CACHE", "here")
    assert cache_folder() == Path("here")
    monkeypatch.delenv("LAZYNEURON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "there")
    assert cache_folder() == Path("there/lazyneuron")
