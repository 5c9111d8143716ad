"""The public names, and that importing them is silent and light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lazyneuron

NAMES = [
    "Advice",
    "Anneal",
    "CapturedMaps",
    "Choice",
    "Cost",
    "Exploited",
    "GroupTopK",
    "LazyneuronError",
    "Monitor",
    "NoSitesError",
    "NotSparseError",
    "PartCost",
    "Probe",
    "Record",
    "RunFolder",
    "Site",
    "Source",
    "StatisticalTopK",
    "StoppedError",
    "Threshold",
    "TopExamples",
    "TopK",
    "UsageError",
    "Verdict",
    "advise",
    "calibrate",
    "capture",
    "choose",
    "cost",
    "enforce",
    "enforced",
    "exploit",
    "exploited",
    "find_sites",
    "from_pretrained",
    "lightning_callback",
    "release",
    "relufy",
    "restore",
    "set_step",
    "top_examples",
    "trainer_callback",
    "unexploit",
    "verify",
    "watch",
]


def test_the_public_names_are_these():
    assert lazyneuron.__all__ == NAMES
    assert dir(lazyneuron) == NAMES


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(lazyneuron.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(seen) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_can_be_had_and_is_documented(name):
    assert getattr(lazyneuron, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'wach'"):
        lazyneuron.wach  # noqa: B018


def test_import_is_silent_and_loads_nothing_heavy():
    code = (
        "import sys, lazyneuron; lazyneuron.watch; "
        "sys.exit(bool({'transformers', 'accelerate', 'altair', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
