"""The command line as its user meets it: help, one-line errors and exit codes, Ctrl-C, and the whole of smoke."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from lazyneuron.records.folder import RunFolder


def call(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "lazyneuron", *map(str, words)], capture_output=True, text=True, **options
    )


def one_line(done):
    """Exit code and the one line on standard error of a command."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return done.returncode, lines[0]


def test_help_answers_within_a_second_and_teaches():
    call("--help")
    times = []
    for _ in range(3):
        began = time.monotonic()
        done = call("--help")
        times.append(time.monotonic() - began)
    assert done.returncode == 0
    assert "reproduce" in done.stdout
    assert "report" in done.stdout
    assert min(times) < 1.0
    assert "examples:" in call("reproduce", "--help").stdout


def test_version_and_module_form():
    assert call("--version").stdout.strip()


def test_help_loads_neither_torch_nor_charts():
    code = (
        "import sys\nfrom lazyneuron.cli import main\nsys.argv = ['lazyneuron', '--help']\n"
        "try: main()\nexcept SystemExit: pass\nsys.exit(bool({'torch', 'altair', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_print_config_gives_a_file_that_config_reads(tmp_path):
    printed = call("reproduce", "fig1", "--seeds", "4", "2", "--print_config")
    assert "- 4\n- 2" in printed.stdout
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    again = call("reproduce", "--config", tmp_path / "mine.yaml", "--print_config")
    assert again.stdout == printed.stdout


def test_an_unknown_recipe_is_a_usage_error(command, tmp_path):
    code, line = one_line(command("reproduce", "fig9", "--out", tmp_path / "out"))
    assert code == 2
    assert line.startswith("lazyneuron: no recipe 'fig9': choose from fig1, fig2a, ")
    assert line.endswith("statistical-topk, corruptions")
    assert not (tmp_path / "out").exists()


def test_a_wrong_scale_and_a_wrong_option_exit_with_2():
    assert call("reproduce", "--scale", "huge").returncode == 2
    assert call("reproduce", "--no-such-option").returncode == 2
    assert call().returncode == 2


def test_a_folder_of_another_run_is_refused_and_left_alone(command, tmp_path):
    RunFolder(tmp_path, {"scale": "quick", "kind": "reproduce"}).log("begun")
    before = (tmp_path / "config.json").read_bytes()
    code, line = one_line(command("reproduce", "--scale", "smoke", "--out", tmp_path))
    assert code == 2
    assert "holds a run with another config" in line
    assert "choose another --out" in line
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_refused(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, line = one_line(command("reproduce", "--out", tmp_path / "file" / "below"))
    assert (code, "cannot write to" in line) == (2, True)


def test_report_on_a_folder_without_a_run_is_a_usage_error(command, tmp_path):
    code, line = one_line(command("report", tmp_path))
    assert (code, "holds no run" in line) == (2, True)


def one_class(path: Path) -> list[object]:
    (path / "images/cat").mkdir(parents=True)
    Image.new("RGB", (12, 12)).save(path / "images/cat/1.png")
    return ["fig2b", "--images", path / "images"]


OWN = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 4)), torch.randn(2, 50, 4)
"""


def test_measure_prints_a_table_and_json_and_writes_the_page(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("own_mlp.py").write_text(OWN)
    done = command("measure", "own_mlp:build", "--tokens", "100", "--out", "out")
    assert done.returncode == 0, done.stderr
    density = next(r.value for r in RunFolder(tmp_path / "out").records() if r.what == "density")
    row = next(line for line in done.stdout.splitlines() if "(model)" in line)
    assert row.split()[:5] == ["0", "(model)", "relu", "30", f"{100 * density:.2f}"]
    assert "page: out/report.html" in done.stdout
    assert "How many neurons of own_mlp:build are active?" in (tmp_path / "out/report.html").read_text()
    again = call("measure", "own_mlp:build", "--tokens", "100", "--out", "out", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["sites"][0]["density"] == density


def test_measure_refuses_in_one_line(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words, message in (
        (["no/such/model"], "no model at no/such/model"),
        (["own:build"], "no module own"),
        (["gpt2", "--tokens", "0"], "tokens must be 1 or more; got 0"),
        (["gpt2", "--dtype", "int8"], "no dtype 'int8'"),
    ):
        code, line = one_line(command("measure", *words))
        assert code == 2
        assert message in line
    assert "examples:" in command("measure", "--help").stdout


def missing_text(path: Path) -> list[object]:
    return ["fig1", "--text", path / "missing.txt"]


@pytest.mark.parametrize(("words", "message"), [(one_class, "holds 1 class folder(s)"), (missing_text, "no text at")])
def test_bad_data_is_a_usage_error_of_one_line(words, message, command, tmp_path):
    code, line = one_line(command("reproduce", *words(tmp_path), "--scale", "smoke", "--out", tmp_path / "out"))
    assert (code, message in line) == (2, True)
    debug = command("reproduce", *words(tmp_path / "2"), "--scale", "smoke", "--out", tmp_path / "out2", "--debug")
    assert "Traceback" in debug.stderr


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "lazyneuron", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """What smoke runs by itself, never interrupted: its folder, how the command ended, after how many seconds."""
    folder = tmp_path_factory.mktemp("smoke")
    began = time.monotonic()
    done = call("reproduce", "--scale", "smoke", "--out", folder / "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out", done, time.monotonic() - began


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(smoke, command, tmp_path):
    words = ["reproduce", "fig2b", "--scale", "smoke", "--out", tmp_path / "out"]
    process = start(*words)
    while not list(tmp_path.glob("out/*/checkpoint-*")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip() == "lazyneuron: stopped; finished work is saved. The same command resumes from there"
    saved = {file.parent.name for file in tmp_path.glob("out/*/checkpoint-*")}
    assert saved
    done = command(*words)
    assert done.returncode == 0, done.stderr
    whole, *_ = smoke
    for name in ("t5-seed0", "vit-seed0"):
        cut, uncut = (folder / name / "records.jsonl" for folder in (tmp_path / "out", whole))
        assert cut.read_bytes() == uncut.read_bytes()


@pytest.mark.slow
def test_a_corrupt_checkpoint_fails_with_1_and_names_the_mend(smoke, command, tmp_path):
    whole, *_ = smoke
    shutil.copytree(whole / "t5-seed0", tmp_path / "t5-seed0")
    shutil.copy(whole / "config.json", tmp_path)
    (tmp_path / "t5-seed0/done").unlink()
    newest = RunFolder(tmp_path / "t5-seed0").checkpoints()[-1]
    newest.write_bytes(b"not a checkpoint")
    words = ["reproduce", "fig3", "--scale", "smoke", "--out", tmp_path]
    done = command(*words)
    assert done.returncode == 1
    assert f"checkpoint {newest} is damaged" in done.stderr
    newest.unlink()
    assert command(*words).returncode == 0


@pytest.mark.slow
def test_smoke_within_90_seconds(smoke, command, tmp_path):
    """All recipes are run by .ci/run."""
    out, done, seconds = smoke
    print(f"smoke took {seconds:.0f} s")
    assert seconds < 90
    assert "does not hold" in done.stdout
    assert "about" in done.stdout.partition("t5-seed0")[0]
    assert {"fig1", "fig2a", "fig2b", "theorem31"} <= {v.recipe for v in RunFolder(out).verdicts()}
    assert "fig2b" in [recipe["name"] for recipe in RunFolder(out).recipes()]
    assert (out / "report.html").stat().st_size > 100_000
    again = command("reproduce", "--scale", "smoke", "--out", out)
    assert again.returncode == 0
    assert "controls: Beyond the paper; 4 runs, 4 done" in again.stdout
    rebuilt = call("report", out, "--out", tmp_path / "page.html")
    assert rebuilt.stdout.strip() == str(tmp_path / "page.html")
    assert len(list((tmp_path / "charts").glob("*.png"))) >= 6


def test_all_and_a_name_contradict_each_other(command, tmp_path):
    code, line = one_line(command("reproduce", "fig1", "--all", "--out", tmp_path / "out"))
    assert (code, line) == (2, "lazyneuron: --all runs every recipe: leave out --all or fig1")
