"""What `lazyneuron enforce` is asked: read from words, told in words again, refused in one line."""

import json
import subprocess
import sys

import pytest

from lazyneuron.cli.enforce_options import SWEEP, Options, read_budgets, read_sweep
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import UsageError
from lazyneuron.training.finetune import Finetuning


def test_budgets_are_read_from_words_and_mappings():
    assert read_budgets(r"layers\.[0-3]{1,2}\.=0.1,(up|a=b)=2e-2") == {r"layers\.[0-3]{1,2}\.": 0.1, "(up|a=b)": 0.02}
    assert read_budgets("mlp=1") == {"mlp": 1.0}
    assert read_budgets({"mlp": 0.5}) == {"mlp": 0.5}
    assert read_budgets(None) == {}
    for wrong in ("few", "mlp=", "mlp=many", "mlp=0.1,few", ""):
        with pytest.raises(UsageError, match="--budgets takes densities by site, such as"):
            read_budgets(wrong)
    with pytest.raises(UsageError, match="the budget of 'mlp' must be a density above 0 and at most 1"):
        Options(model="m", budgets={"mlp": 5.0})
    assert read_sweep(None) == SWEEP
    assert read_sweep("1.0,0.1") == (1.0, 0.1)


def test_sites_that_no_budget_fits_keep_the_density():
    selection = Options(model="m", density=0.2, budgets={"a": 0.1}).selection
    assert selection == {"a": TopK(density=0.1), "": TopK(density=0.2)}
    assert Options(model="m", density=0.2).selection == TopK(density=0.2)
    assert Options(model="m", density=0.2, budgets={"": 0.1}).selection == {"": TopK(density=0.1)}


def test_the_command_names_every_option():
    how = Finetuning(num_steps=7)
    asked = Options(model="m", budgets={r"a\.": 0.1, "b": 0.02}, finetune=how, anneal=True, control=False)
    words = r"lazyneuron enforce m --density 0.05 --budgets 'a\.=0.1,b=0.02' --finetune --steps 7 --lr 0.0001"
    assert asked.command == f"{words} --anneal --control false --tokens 20000 --batch 8"


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
    assert page.stat().st_mtime > 0
    assert f"page: {page}" in command(*call).stdout.splitlines()
    wrong = command(*call[:-1], "few")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("lazyneuron: --budgets takes densities by site, such as 'layers")
