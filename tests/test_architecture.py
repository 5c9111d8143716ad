"""Each part of the package imports only from those above it in `ORDER`, and pages import no model."""

import ast
from pathlib import Path

import pytest

import lazyneuron

ORDER = [
    "errors",
    "records",
    "data",
    "load",
    "sites",
    "maps",
    "kernels",
    "measure",
    "enforce",
    "exploit",
    "training",
    "pages",
    "paper",
    "cli",
]
ALLOWED = {part: set(ORDER[:place]) for place, part in enumerate(ORDER)} | {"pages": {"errors", "records"}}
ROOT = Path(lazyneuron.__file__).parent
HEAVY = {"transformers", "accelerate", "sklearn", "altair", "datasets"}


def imports(file: Path) -> list[tuple[str, bool]]:
    """Modules that a file imports, and whether it does so at its top level (not inside a function)."""
    tree = ast.parse(file.read_text())
    nested = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [(name, id(node) not in nested) for name in names]
    return found


FILES = [file for file in sorted(ROOT.rglob("*.py")) if file.parent != ROOT or file.stem in ORDER]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_part_imports_only_from_those_above_it(file):
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for module, _ in imports(file):
        if module.startswith("lazyneuron."):
            other = module.split(".")[1]
            assert other == part or other in ALLOWED[part], f"{file.name} imports {module}"


@pytest.mark.parametrize(
    "part", ["records/folder.py", "sites/find.py", "sites/trace.py", "cli/__init__.py", "cli/command.py", "__init__.py"]
)
def test_what_every_user_imports_is_light(part):
    heavy = {name for name, at_top in imports(ROOT / part) if at_top and name.split(".")[0] in HEAVY}
    assert not heavy


def test_no_file_outgrows_one_thing():
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in ROOT.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
