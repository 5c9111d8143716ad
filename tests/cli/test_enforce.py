"""The options of `lazyneuron enforce`: read from words, written as a command line, refused in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lazyneuron.cli.enforce import SWEEP, Enforce
from lazyneuron.cli.enforce_run import selection_of
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import UsageError


def budgets(given):
    return Enforce(model="m", budgets=given).density_by_site


def test_budgets_are_read_from_words_and_mappings():
    assert budgets(r"layers\.[0-3]{1,2}\.=0.1,(up|a=b)=2e-2") == {r"layers\.[0-3]{1,2}\.": 0.1, "(up|a=b)": 0.02}
    assert budgets("mlp=1") == {"mlp": 1.0}
    assert budgets({"mlp": 0.5}) == {"mlp": 0.5}
    assert budgets(None) == {}
    for wrong in ("few", "mlp=", "mlp=many", "mlp=0.1,few", ""):
        with pytest.raises(UsageError, match="--budgets takes densities by site, such as"):
            budgets(wrong)
    with pytest.raises(UsageError, match="the budget of 'mlp' must be a density above 0 and at most 1"):
        budgets({"mlp": 5.0})


def test_the_sweep_is_read_from_words():
    assert Enforce(model="m").sweep_densities == SWEEP
    assert Enforce(model="m", sweep="1.0,0.1").sweep_densities == (1.0, 0.1)
    with pytest.raises(UsageError, match=r"--sweep takes densities such as 1\.0,0\.1,0\.05; got '1,few'"):
        Enforce(model="m", sweep="1,few")


def test_sites_that_no_budget_fits_keep_the_density():
    selection = selection_of(Enforce(model="m", density=0.2, budgets={"a": 0.1}))
    assert list(selection.items()) == [("a", TopK(density=0.1)), ("", TopK(density=0.2))]
    assert selection_of(Enforce(model="m", density=0.2)) == TopK(density=0.2)
    assert selection_of(Enforce(model="m", density=0.2, budgets={"": 0.1})) == {"": TopK(density=0.1)}


def test_the_command_names_every_option_that_is_not_the_default():
    asked = Enforce(model="m", budgets={r"a\.": 0.1, "b": 0.02}, finetune=True, steps=7, anneal=True, control=False)
    words = r"lazyneuron enforce m --budgets 'a\.=0.1,b=0.02' --finetune --steps 7 --anneal --control false"
    assert asked.command == words
    asked = Enforce(
        model="m", density=0.1, relufy=True, finetune=True, distill=2, seed=3, sweep="1.0,0.1", out=Path("o")
    )
    words = "lazyneuron enforce m --density 0.1 --relufy --finetune --distill 2 --sweep 1.0,0.1 --seed 3 --out o"
    assert asked.command == words
    assert Enforce(model="org/name").folder == Path("runs/enforce-name")


def test_json_is_alone_on_standard_output_and_the_page_is_written(options, command):
    asked = options(out="cli")
    call = ["enforce", asked.model, "--text", str(asked.text), "--tokens", "90"]
    call += ["--batch", "2", "--length", "24", "--density", "0.125", "--sweep", "1.0,0.5", "--out", str(asked.out)]
    call += ["--finetune", "--steps", "2", "--control", "false", "--budgets", r"layers\.0\.=0.25"]
    done = subprocess.run([sys.executable, "-m", "lazyneuron", *call, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {"model", "folder", "notes", "quality"}
    assert [(row["case"], row["x"]) for row in found["quality"]] == [
        ("before", 1), ("converted", 0.1875), ("sweep", 1), ("sweep", 0.5),
        ("finetuned", 0.1875), ("finetuned", 1), ("finetuned", 0.5),
    ]  # fmt: skip
    row = found["quality"][1]
    assert row.keys() == {"case", "x", "loss", "perplexity", "agreement", "kl", "density", "natural_density"}
    assert row["density"] == pytest.approx(0.1875)
    page = asked.out / "report.html"
    assert "<!doctype html>" in page.read_text()
    assert f"page: {page}" in command(*call).stdout.splitlines()
    wrong = command(*call[:-1], "few")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("lazyneuron: --budgets takes densities by site, such as 'layers")
