"""Commands as dataclasses: their options, their help, what they print, and what they import."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from lazyneuron.cli import main
from lazyneuron.cli.command import Command
from lazyneuron.cli.measure import Measure
from lazyneuron.cli.reproduce import Reproduce
from tests.load.conftest import saved

__all__ = ["saved"]


@dataclass(frozen=True, kw_only=True)
class Sample(Command):
    """A first line.

    What it does.

    examples:
      sample a 10 % example
    """

    positional = "names"
    names: Annotated[tuple[str, ...], "names", "NAME"] = ()
    seeds: Annotated[tuple[int, ...], "seeds", "N"] = ()
    size: Annotated[Literal["small", "large"], "5 % of it"] = "small"
    is_kept: Annotated[bool, "kept"] = True
    dry_run: Annotated[bool, "dry"] = False
    out: Annotated[Path | None, "folder of COMMAND"] = None
    rate: Annotated[float, "rate"] = 0.1


def parsed(*words):
    return Sample.of(Sample.parser().parse_args(words))


def test_the_fields_are_the_options():
    assert parsed() == Sample()
    words = ["a", "b", "--seeds", "1", "2", "--size", "large", "--is-kept", "false", "--dry-run", "--out", "x"]
    given = parsed(*words, "--rate", "1e-3")
    assert given == Sample(
        names=("a", "b"), seeds=(1, 2), size="large", is_kept=False, dry_run=True, out=Path("x"), rate=0.001
    )
    for wrong in (["--size", "huge"], ["--seeds", "x"], ["--rate", "x"], ["--none"]):
        with pytest.raises(SystemExit) as stopped:
            parsed(*wrong)
        assert stopped.value.code == 2


def test_the_command_line_gives_the_command_again():
    given = Sample(names=("a b", "c"), seeds=(1, 2), is_kept=False, dry_run=True, out=Path("x"), rate=2.5e-5)
    assert given.command == "lazyneuron sample 'a b' c --seeds 1 2 --is-kept false --dry-run --out x --rate 2.5e-05"
    assert parsed("a b", *given.command.partition("' ")[2].split()) == given
    assert Reproduce(names=("fig1", "fig3"), seeds=(1, 2), text="my text").config()["command"] == (
        "lazyneuron reproduce fig1 fig3 --seeds 1 2 --text 'my text'"
    )
    assert Measure(model="m", trust_remote_code=True, sites="a|b").command == (
        "lazyneuron measure m --sites 'a|b' --trust-remote-code"
    )


def test_a_file_holds_the_same_options(tmp_path):
    (tmp_path / "mine.yaml").write_text("seeds: [3]\nsize: large\nout: there\n")
    given = parsed("--config", str(tmp_path / "mine.yaml"), "--rate", "1")
    assert given == Sample(seeds=(3,), size="large", out=Path("there"), rate=1.0)


def test_the_docstring_and_the_annotations_are_the_help():
    shown = Sample.parser().format_help()
    parts = ["A first line.\n\nWhat it does.", "\n  --rate", "examples:\n  sample a 10 %"]
    places = [shown.index(part) for part in parts]
    assert places == sorted(places)
    for line in (
        "names (type: str)",
        "--seeds N [N ...]",
        "5 % of it (default: small)",
        "dry",
        "folder of sample (type: Path)",
        "rate (type: float, default: 0.1)",
    ):
        assert line in shown
    assert "null" not in shown


@pytest.mark.parametrize("name", ["", "measure", "enforce", "advise", "exploit", "reproduce", "report"])
def test_no_help_imports_torch(name):
    words = ["lazyneuron", *filter(None, [name]), "--help"]
    code = f"import sys\nfrom lazyneuron.cli import main\nsys.argv = {words}\n"
    code += "try: main()\nexcept SystemExit as end: assert not end.code\n"
    code += "sys.exit(' '.join({'torch', 'numpy', 'rich', 'altair', 'transformers'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("is_json", [True, False])
def test_the_commands_print(saved, capsys, monkeypatch, tmp_path, is_json):
    flag = ["--json"] * is_json
    folder = str(saved("opt"))
    runs = {
        "advise": ["advise", folder, "--rows", "1", "--tokens", "4", "--out", str(tmp_path), *flag],
        "exploit": ["exploit", folder, "--prompt", "some words", "--tokens", "6", *flag],
    }
    for name, words in runs.items():
        monkeypatch.setattr(sys, "argv", ["lazyneuron", *words])
        main()
        out = capsys.readouterr().out
        if is_json:
            assert json.loads(out)["model"] == folder
        else:
            assert ("oracle" if name == "advise" else "tokens agree") in out
