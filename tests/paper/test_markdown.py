"""The page of a reproduction in Markdown: it renders whole, links lead somewhere, and every chart is there."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from lazyneuron.errors import UsageError
from lazyneuron.paper import page as page_module
from lazyneuron.paper.page import write_report
from lazyneuron.records.folder import RunFolder
from tests.pages.reproduced import EXPERIMENTS, write_folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("markdown")
    return write_report([write_folder(folder / "small", seeds=(0, 1, 2))], folder / "docs" / "results.md")


def test_every_experiment_has_a_heading_that_the_list_on_top_leads_to(page: Path) -> None:
    text = page.read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Claims", *(title for title, *_ in EXPERIMENTS.values())]
    anchors = [re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert re.findall(r"\]\(#([^)]+)\)", text) == anchors[1:]


def test_every_chart_that_it_shows_is_beside_it_and_no_other(page: Path) -> None:
    shown = re.findall(r"!\[[^]]+\]\(results/([^)]+)\)", page.read_text())
    assert sorted(shown) == sorted(path.name for path in (page.parent / "results").iterdir())
    assert len(shown) > len(EXPERIMENTS)
    assert "Click" not in page.read_text()


def test_verdicts_stand_with_values_and_intervals(page: Path) -> None:
    text = page.read_text()
    assert "**3 hold, 1 does not hold, 1 cannot tell**" in text
    assert "| t5 | about 0.5 | ✅ holds | 0.4997 | 0.4987 to 0.5007 | between 0.45 and 0.55: " in text
    assert "- ❌ does not hold: Wider models have a lower density. On t5 0.61 (0.61 to 0.61), expected" in text


def test_the_first_table_checks_and_grades(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "small", ["mixer"], seeds=(0, 1, 2))
    graded, check, plain, *rest = RunFolder(folder).verdicts()
    students = {"student_low": 0.49, "student_high": 0.51}
    density = {"density": 0.05, "density_low": 0.04, "density_high": 0.06}
    graded = replace(graded, line="Few | are active.", grade="halves", **students, **density)
    plain = replace(plain, line="Few | are active.", verdict="cannot tell", reason="too few seeds")
    rest[-1] = replace(rest[-1], line="Few | are active.", claim="second", text="Every layer.", reported="0.24")
    RunFolder(folder).write_verdicts([graded, replace(check, is_check=True, claim="check"), plain, *rest])
    text = write_report([folder], tmp_path / "page.md").read_text()
    assert "**1 holds, 1 does not hold, 2 cannot tell; 1 of 1 check passes**" in text
    assert text.index("| claim | the paper reports | here | why |") < text.index("## Claims") < text.index("## Checks")
    assert (
        f"| Few \\| are active. | about 0.5 | {graded.text}<br>✅ holds: t5 density 0.05 (0.04 to 0.06), halves<br>"
        "❔ cannot tell: mixer 0.4997 (0.4987 to 0.5007) | too few seeds |"
        "\n|  | 0.24 | Every layer.<br>"
    ) in text
    assert "✅ holds, halves | 0.4997 | 0.49 to 0.51 (bootstrap 0.4987 to 0.5007) |" in text
    claims, checks = text.split("## Claims")[1].split("## Checks")
    assert ("| vit |" in claims, "| vit |" in checks.split("\n## ")[0]) == (False, True)
    assert re.search(r"^- \[The Mixer too\].*does not hold; 1 of 1 check passes$", text, re.MULTILINE)
    assert MarkdownIt("commonmark").enable("table").render(text).count("<table>") >= 3


def test_tables_render_with_as_many_cells_in_each_row_as_titles(page: Path) -> None:
    html = MarkdownIt("commonmark").enable("table").render(page.read_text())
    tables = re.findall(r"<table>.*?</table>", html, re.DOTALL)
    assert len(tables) == len(re.findall(r"^\| -", page.read_text(), re.MULTILINE)) > len(EXPERIMENTS)
    for table in tables:
        titles, *rows = (len(re.findall(r"<t[hd]", row)) for row in table.split("<tr>")[1:])
        assert rows
        assert set(rows) == {titles}
    assert not re.findall(r"<p>\s*\|", html)


def test_texts_stay_within_their_cells(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "small", ["mixer"])
    odd = [replace(verdict, on="a | b\n<script>") for verdict in RunFolder(folder).verdicts()]
    RunFolder(folder).write_verdicts(odd)
    assert "| a \\| b &lt;script> |" in write_report([folder], tmp_path / "page.md").read_text()


def test_only_one_reproduction_has_a_page_in_markdown(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name, ["mixer"]) for name in "ab"]
    with pytest.raises(UsageError, match="of one result folder"):
        write_report(folders, tmp_path / "page.md")
    RunFolder(tmp_path / "measured", {"kind": "measure"})
    with pytest.raises(UsageError, match="is no result folder of lazyneuron reproduce"):
        write_report([tmp_path / "measured"], tmp_path / "page.md")


def test_its_template_is_package_data() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())
    package = Path(page_module.__file__).parent.parent
    data = project["tool"]["setuptools"]["package-data"]["lazyneuron"]
    packaged = {file for pattern in data for file in package.glob(pattern)}
    assert {file for ending in ("html", "css", "md") for file in package.rglob(f"*.{ending}")} <= packaged
