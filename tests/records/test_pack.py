"""A packed result folder reads like the one it was made from, and is not written to."""

import json
import zipfile

import pytest

from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.records.folder import PACKED, RunFolder
from lazyneuron.records.pack import pack
from lazyneuron.records.record import Record, Source

SOURCE = Source(commit="abc", device="cpu", num_threads=1, versions={"torch": "2.13.0"})


def record(step: int | None) -> Record:
    return Record(what="density", value=0.5, unit="fraction", recipe="t5", seed=0, step=step, source=SOURCE)


@pytest.fixture
def source(tmp_path):
    """Two finished runs with a checkpoint and one that is not finished."""
    top = RunFolder(tmp_path / "plain", {"kind": "reproduce", "scale": "quick"})
    top.write_recipes([{"name": "fig1"}])
    for name in ("t5-seed0", "vit-seed1", "vit-seed2"):
        run = RunFolder(top.path / name, {"name": name})
        run.append(record(step) for step in (0, 1, 2, 8, None))
        run.log(f"step 8 of {name}")
        run.save_checkpoint(8, {})
        if name != "vit-seed2":
            run.mark_done()
    return top.path


@pytest.fixture
def packed(source, tmp_path):
    pack(source, tmp_path / "packed")
    return tmp_path / "packed"


def test_a_packed_folder_is_a_few_files_and_reads_like_the_plain_one(source, packed):
    assert sorted(path.name for path in packed.iterdir()) == ["config.json", PACKED, "recipes.jsonl"]
    plain, top = RunFolder(source), RunFolder(packed)
    assert (top.config, top.recipes(), top.verdicts()) == (plain.config, plain.recipes(), [])
    members = top.members()
    assert [member.path.name for member in members] == ["t5-seed0", "vit-seed1"]
    assert all(member.is_done() for member in members)
    for member, original in zip(members, plain.members(), strict=False):
        assert member.config == original.config
        assert member.records() == original.records()
        assert member.checkpoints() == member.members() == []


def test_unpacking_gives_the_bytes_that_were_packed(source, packed, tmp_path):
    zipfile.ZipFile(packed / PACKED).extractall(tmp_path / "unpacked")
    for path in (tmp_path / "unpacked").rglob("*.*"):
        assert path.read_bytes() == (source / path.relative_to(tmp_path / "unpacked")).read_bytes()
    pack(source, tmp_path / "again")
    assert (tmp_path / "again" / PACKED).read_bytes() == (packed / PACKED).read_bytes()


def test_a_run_in_a_packed_folder_opens_by_its_own_path(packed):
    assert RunFolder(packed / "vit-seed1").records() == [record(step) for step in (0, 1, 2, 8, None)]
    with pytest.raises(UsageError, match="holds no run"):
        RunFolder(packed / "vit-seed2")


def test_trainings_that_are_not_named_keep_their_first_and_last_step(source, tmp_path):
    pack(source, tmp_path / "thin", every_step_of=["t5"])
    whole, thin = RunFolder(tmp_path / "thin").members()
    assert [r.step for r in whole.records()] == [0, 1, 2, 8, None]
    assert thin.records() == [record(0), record(8), record(None)]


def test_a_packed_folder_is_not_written_to(packed):
    with pytest.raises(UsageError, match=r"is packed, so nothing can be added to it: choose another --out, or unpack"):
        RunFolder(packed, {"kind": "reproduce", "scale": "quick"})
    member = RunFolder(packed).members()[0]
    for write in (
        lambda: member.append([record(9)]),
        lambda: member.log("again"),
        lambda: member.write_verdicts([]),
        lambda: member.truncate_records(0),
        lambda: member.save_checkpoint(9, {}),
        member.mark_done,
    ):
        with pytest.raises(UsageError, match="only read: unpack it first"):
            write()
    assert [path for path in packed.rglob("*") if path.is_dir()] == []


def test_an_archive_that_changes_is_read_anew_and_a_damaged_one_is_named(source, packed):
    assert len(RunFolder(packed).members()) == 2
    RunFolder(source / "vit-seed2").mark_done()
    pack(source, packed)
    assert len(RunFolder(packed).members()) == 3
    (packed / PACKED).write_bytes(b"PK")
    with pytest.raises(LazyneuronError, match=r"members\.zip is damaged"):
        RunFolder(packed).members()


def test_a_damaged_line_in_an_archive_is_named(source, packed):
    (source / "t5-seed0" / "records.jsonl").write_text(json.dumps({"step": 0}) + "\n{\n")
    pack(source, packed)
    with pytest.raises(LazyneuronError, match=r"members\.zip/t5-seed0/records\.jsonl line 1 is no record"):
        RunFolder(packed).members()[0].records()
