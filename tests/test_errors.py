"""A missing optional dependency is one line that says what to install, and the verbs need none."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lazyneuron import errors
from lazyneuron.errors import UsageError, explained_imports

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
MODULE_OF = {"pillow": "PIL", "scikit-learn": "sklearn", "vl-convert-python": "vl_convert"}
LIGHT = {"numba", "numpy", "safetensors", "torch"}


def modules(requirements):
    """The modules that requirements bring."""
    names = [re.split(r"[><=\[]", line)[0] for line in requirements]
    return {MODULE_OF.get(name, name) for name in names}


def extra_modules(extra):
    return modules(PROJECT["optional-dependencies"][extra]) - {"lazyneuron"}


def run_without(blocked, code, *words):
    """Python's outcome of `code` where the modules `blocked` cannot be imported."""
    head = f"import sys\nfor name in {sorted(blocked)!r}: sys.modules[name] = None\nsys.argv[1:] = {list(words)!r}\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True)


VERBS = """
import torch
import lazyneuron as lazy
from torch import nn

torch.manual_seed(0)
model, x = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512)), torch.randn(1, 512)
sites = lazy.find_sites(model, x)
with torch.no_grad(), lazy.watch(model) as probe:
    dense = model(x)
assert 0.4 < probe.density[""] < 0.6
assert str(probe.table()) and lazy.cost(model, sites, x, probe.density).simulated
with torch.no_grad(), lazy.capture(model, max_tokens=1) as maps:
    model(x)
lazy.enforce(model, lazy.TopK(k=8), example_inputs=x)
assert lazy.verify(model, x) == {"": 1}
lazy.release(model)
lazy.exploit(model, example_inputs=x)
with torch.no_grad():
    torch.testing.assert_close(model(x), dense)
assert lazy.exploited(model).is_lossless
print(lazy.calibrate(model, [x], density=0.1), end="")
for call in (lambda: lazy.from_pretrained("gpt2"), lambda: lazy.trainer_callback("out")):
    try:
        call()
    except lazy.UsageError as error:
        print(error, file=sys.stderr)
"""


def test_the_verbs_need_only_the_four_dependencies():
    assert modules(PROJECT["dependencies"]) == LIGHT
    blocked = {*extra_modules("cli"), *extra_modules("paper"), "yaml", "huggingface_hub", "datasets"}
    done = run_without(blocked, VERBS)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "loading a checkpoint needs huggingface_hub: pip install 'lazyneuron[cli]'",
        "trainer_callback needs transformers: pip install 'lazyneuron[cli]'",
    ]


@pytest.mark.parametrize(
    ("module", "words", "line"),
    [
        ("jsonargparse", ["--help"], "the command line needs jsonargparse: pip install 'lazyneuron[cli]'"),
        ("rich", ["measure", "gpt2"], "measure needs rich: pip install 'lazyneuron[cli]'"),
        ("altair", ["report", "runs"], "report needs altair: pip install 'lazyneuron[cli]'"),
        ("rich", ["reproduce"], "reproduce needs rich: pip install 'lazyneuron[paper]'"),
    ],
)
def test_a_missing_extra_is_one_line(module, words, line):
    done = run_without([module], "from lazyneuron.cli import main\nmain()", *words)
    assert (done.returncode, done.stderr, done.stdout) == (2, f"lazyneuron: {line}\n", "")


RUN = """
from pathlib import Path
from lazyneuron.paper.options import Options
from lazyneuron.paper.registry import find_recipes
from lazyneuron.paper.run import execute

run = find_recipes(["fig2b"], "smoke")[0].runs[1]
try:
    execute(run, Path(sys.argv[1]), 0, Options(scale="smoke"), lambda progress: None)
except Exception as error:
    print(error)
"""


def test_a_run_of_the_paper_names_its_extra(tmp_path):
    done = run_without(["accelerate"], RUN, str(tmp_path))
    assert done.stdout == "reproduce needs accelerate: pip install 'lazyneuron[paper]'\n", done.stderr


def test_other_missing_modules_are_not_explained():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), explained_imports("x"):
        import no_such_module  # noqa: F401  # pyright: ignore[reportMissingImports]
    with pytest.raises(UsageError, match=r"^x needs rich: pip install 'lazyneuron\[cli\]'$"), explained_imports("x"):
        raise ModuleNotFoundError("no rich", name="rich.table")


def test_every_extra_is_known_and_brings_its_modules():
    for module, extra in errors._EXTRA_OF.items():
        needed = extra_modules(extra) | ({"huggingface_hub"} if extra == "cli" else set())
        assert module in needed, f"{module} is not in the extra {extra}"
    known = errors._EXTRA_OF.keys()
    assert (extra_modules("cli") | extra_modules("paper")) <= known
