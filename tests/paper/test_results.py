"""Experiments: runs under their settings, all seeds of a run in one, and what is missing said."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lazyneuron.paper import results
from lazyneuron.paper.results import Results, Spread, missing, results_of, runs_of
from lazyneuron.records.folder import RunFolder


def read(path: Path) -> dict[str, Results]:
    top = RunFolder(path)
    return {e.name: e for e in results_of(top.recipes(), runs_of("small", top), top.verdicts())}


def test_all_seeds_of_a_run_are_one_run(checked: dict[str, Results]) -> None:
    t5 = checked["fig1"].members[0].run
    assert (t5.name, results.seeds_of(t5), t5.config["seed"]) == ("t5", [0, 1], [0, 1])
    assert results.quality(t5, "accuracy").keys() == {0, 1}


def test_test_records_are_apart_from_those_of_training(checked: dict[str, Results]) -> None:
    run = checked["fig1"].members[0].run
    assert {record.split for record in run.pick("density")} == {"train", "eval"}
    assert {record.split for record in run.tested("density")} == {"test"}
    assert {record.step for record in results.at_end(run)} == {2048}


def test_numbers_are_a_sweep_and_texts_beside_them_no_part_of_it(checked: dict[str, Results]) -> None:
    assert [member.setting for member in checked["topk-accuracy"].trained] == [100.0, 4.0, 1.0, 100.0, 4.0]
    assert not checked["fig1"].is_sweep
    assert checked["fig3"].trained == []


def test_models_have_names_in_words(checked: dict[str, Results]) -> None:
    names = checked["table1"].names
    assert (names["t5"], names["vit-top4pct"], names["mixer"]) == ("T5", "Top-k ViT", "MLP-Mixer")
    assert checked["table1"].model("gone") == "gone"


@pytest.mark.parametrize(("values", "expected"), [([], None), ([2.0], (2, 2, 2, 1)), ([3.0, 1.0], (2, 1, 3, 2))])
def test_spread(values: list[float], expected: tuple[float, ...] | None) -> None:
    found = results.spread(values)
    assert found == (expected and Spread(mean=expected[0], low=expected[1], high=expected[2], count=int(expected[3])))


def test_the_two_mlps_of_a_mixer_block_have_panels_of_their_own(checked: dict[str, Results]) -> None:
    run = checked["mixer"].members[0].run
    places = {results.place_of(run, record) for record in run.pick("density")}
    assert places == {(f"MLPs over {what}", n) for what in ("patches", "channels") for n in range(4)}


def test_what_is_missing_is_said(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    path = make_folder(tmp_path / "small", names=("fig1", "fig2a", "fig4a"), seeds=(0, 1))
    for gone in ("t5-layers6-seed0", "t5-layers6-seed1", "vit-seed1"):
        shutil.rmtree(path / gone)
    records = path / "t5-seed1" / "records.jsonl"
    lines = [line for line in records.read_text().splitlines(keepends=True) if '"step": 2048' not in line]
    records.write_text("".join(lines))
    found = read(path)
    assert missing(found["fig1"]) == ["t5 is not finished: seed 1 at step 1,024 of 2,048."]
    assert missing(found["fig4a"])[0] == "Not there yet: t5-layers6."
    assert "vit lacks seed 1." in missing(found["fig2a"])


def test_a_run_lacks_only_seeds_that_its_own_recipe_asked_for(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    path = make_folder(tmp_path / "small", names=("fig1", "fig2a"), seeds=(0, 1))
    shutil.rmtree(path / "t5-seed1")
    top = RunFolder(path)
    seeds = {"fig1": [0], "fig2a": [0, 1, 2]}
    top.write_recipes([recipe | {"seeds": seeds[recipe["name"]]} for recipe in top.recipes()])
    found = read(path)
    assert missing(found["fig1"]) == []
    assert "t5 lacks seeds 1, 2." in missing(found["fig2a"])
    assert "vit lacks seed 2." in missing(found["fig2a"])


def test_the_packed_results_of_earlier_versions_are_read() -> None:
    found = RunFolder(Path(__file__).parents[2] / "results" / "laptop").verdicts()
    assert len(found) > 50
    assert {(verdict.student_low, verdict.detectable) for verdict in found if verdict.seeds} >= {(None, None)}


def test_runs_that_no_recipe_names_stand_for_themselves(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    path = make_folder(tmp_path / "small", names=("fig3", "fig2b"))
    (path / "recipes.jsonl").unlink()
    assert list(read(path)) == ["firing", "t5", "vit"]
    alone = read(path / "vit-seed0")
    assert [(e.name, len(e.trained), e.figure) for e in alone.values()] == [("vit", 1, "")]


def test_an_experiment_is_begun_by_a_run_of_its_own(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    path = make_folder(tmp_path / "small", names=("fig1", "fig2b", "fig4bc", "activation"))
    for gone in ("t5-ff128", "t5-ff2048", "vit"):
        shutil.rmtree(path / f"{gone}-seed0")
    begun = {name: found.is_begun for name, found in read(path).items()}
    assert begun == {"fig1": True, "fig2b": False, "fig4bc": False, "activation": True}
