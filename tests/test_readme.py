"""README says what is true: its table of experiments, its command lines and the names it uses."""

import re
import shlex
from pathlib import Path

import pytest

import lazyneuron as lazy
from lazyneuron.cli import _parser
from lazyneuron.paper.registry import EXPERIMENTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {page: (ROOT / page).read_text() for page in ("README.md", "docs/reproduction.md")}
COMMANDS = sorted(
    set(re.findall(r"^    (?:[^#\n]* && )?(lazyneuron [^#\n]*[^#\s])", "\n".join(PAGES.values()), re.MULTILINE))
)


def test_the_table_of_experiments_is_the_registrys():
    wanted = [f"| `{e.name}` | {e.title} | {e.figure} |" for e in EXPERIMENTS.values()]
    assert [line for line in README.splitlines() if re.match(r"\| `[\w-]+` \| .* \| .* \|$", line)] == wanted


@pytest.mark.parametrize("line", COMMANDS)
def test_command_lines_are_understood(line):
    assert len(COMMANDS) > 10
    _parser().parse_args(shlex.split(line)[1:])


def test_the_names_it_uses_are_public():
    names = set(re.findall(r"\blazy\.(\w+)", README))
    assert len(names) > 15
    assert names <= set(lazy.__all__)


@pytest.mark.parametrize("page", PAGES)
def test_the_files_it_links_to_are_there(page):
    links = re.findall(r"\]\((?!http)([^)#]+)", PAGES[page])
    assert links
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
