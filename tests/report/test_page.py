"""The page opens in a real browser, offline, with every chart drawn; nothing in a record can break or run in it."""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lazyneuron.record import RunFolder, UsageError
from lazyneuron.report import write_report

FIGURES = {  # number of points and of lines
    "fig1-t5": (8 * 13, 8),
    "fig1-vit": (6 * 13, 6),
    "fig2-t5": (2 * 8, 4),
    "fig2-vit": (2 * 6, 2),
    "loss-t5": (4 * 13, 4),
    "loss-vit": (4 * 13, 4),
    "theorem31-cases": (18 + 12, 0),
    "theorem31-step0": (8 + 6, 0),
}
HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    """The page of one whole result folder."""
    folder = tmp_path_factory.mktemp("one")
    return write_report([make_folder(folder / "small")], folder / "out" / "report.html")


def test_one_page_and_a_folder_of_charts_are_written(report: Path) -> None:
    charts = report.parent / "charts"
    assert sorted(path.name for path in charts.iterdir()) == sorted(f"{n}.{e}" for n in FIGURES for e in ("png", "svg"))
    assert sorted(path.name for path in report.parent.iterdir()) == ["charts", "report.html"]
    assert report.stat().st_size < 3_000_000


def test_the_page_tells_the_whole_story(report: Path) -> None:
    text = re.sub(r"<script.*?</script>", "", report.read_text(encoding="utf-8"), flags=re.S)
    for said in (
        "small: 3 hold, 1 does not hold, 1 cannot tell", "2.7 to 3.0", "6.3\u00a0%", "different scale", "0123456789ab",
        "lazyneuron reproduce --scale small --seed 0", "lazyneuron report small", "mse skewed K=100", "no such record",
    ):  # fmt: skip
        assert said in text, said
    assert '<html lang="en">' in text
    assert str(report.parent.parent) not in text
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_chart_draws_its_marks(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report)
    boxes = page.locator(".chart")
    assert {boxes.nth(i).get_attribute("id") for i in range(boxes.count())} == FIGURES.keys()
    for name, (num_points, num_lines) in FIGURES.items():
        box = page.locator(f"#{name}")
        assert box.locator(".mark-symbol.role-mark path").count() == num_points, name
        assert box.locator(".mark-line.role-mark path").count() == num_lines, name
        assert box.get_attribute("aria-label"), name
        assert "NaN" not in box.inner_html(), name


def test_a_point_says_what_it_is(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report)
    page.locator("#fig2-t5 .mark-symbol.role-mark path").first.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for(timeout=5000)
    text = tooltip.inner_text()
    assert "density (%)" in text
    assert "encoder.block.0.mlp" in text


@pytest.mark.parametrize(
    ("name", "entry", "marks", "faded"),
    [
        ("fig1-t5", "2", ".mark-line", 6),
        ("fig2-vit", "training", ".mark-line", 1),
        ("loss-t5", "evaluation", ".mark-line", 2),
        ("theorem31-cases", "closed form", ".mark-symbol", 18),
    ],
)
def test_a_click_in_the_legend_fades_the_rest_and_a_click_beside_ends_that(
    report: Path, open_page: Callable[..., Any], name: str, entry: str, marks: str, faded: int
) -> None:
    page = open_page(report)
    found = page.locator(f'#{name} {marks}.role-mark path[opacity="0.08"]')
    assert found.count() == 0
    page.locator(f"#{name} .role-legend-label text", has_text=entry).click()
    found.first.wait_for(state="attached", timeout=5000)
    assert found.count() == faded
    page.locator(f"#{name} svg.marks").click(position={"x": 4, "y": 4})
    found.first.wait_for(state="detached", timeout=5000)


def redrawn(page: Any, times: int) -> None:
    """Wait until every chart has been drawn so many times."""
    page.wait_for_function(f"[...document.querySelectorAll('.chart')].every((box) => box.dataset.drawn === '{times}')")


def test_page_and_charts_fit_the_screen_and_follow_it(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report, width=1600)
    for times, width in enumerate([1600, 768, 390], 1):
        page.set_viewport_size({"width": width, "height": 900})
        redrawn(page, times)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = "[...document.querySelectorAll('.chart')].map((box) => box.scrollWidth - box.clientWidth)"
        assert max(page.evaluate(boxes)) <= 0, width
        columns = page.locator("#fig1-t5 .role-axis-title").evaluate_all(
            "(all) => all.map((n) => n.getBoundingClientRect().y)"
        )
        assert len({round(y) for y in columns}) == (2 if width > 700 else 4)


def test_all_text_has_contrast_in_light_and_in_dark(
    report: Path, open_page: Callable[..., Any], contrasts: Callable[[Any], list[Any]]
) -> None:
    page = open_page(report, color_scheme="light")
    for times, scheme in enumerate(["light", "dark"], 1):
        page.emulate_media(color_scheme=scheme)
        redrawn(page, times)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        found = contrasts(page)
        assert len(found) > 300
        assert [item for item in found if item[0] < 4.5] == []


def test_a_folder_without_records_still_gives_a_page(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    RunFolder(tmp_path / "new", {"scale": "small"})
    page = open_page(write_report([tmp_path / "new"], tmp_path / "report.html"))
    assert "No claim has been judged yet" in page.inner_text("#claims")
    assert page.locator(".chart").count() == 0
    assert list((tmp_path / "charts").iterdir()) == []


@pytest.mark.parametrize("name", ["theorem31", "vit"])
def test_one_recipe_alone(
    tmp_path: Path, make_folder: Callable[..., Path], open_page: Callable[..., Any], name: str
) -> None:
    whole = make_folder(tmp_path / "whole", names=(name,))
    page = open_page(write_report([whole], tmp_path / "report.html"))
    assert page.locator(".chart").count() == {"theorem31": 2, "vit": 3}[name]


def test_a_member_is_a_result_folder_too(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folder = make_folder(tmp_path / "whole", names=("vit",))
    write_report([folder / "vit"], tmp_path / "report.html")
    assert {path.stem for path in (tmp_path / "charts").iterdir()} == {"fig1-vit", "fig2-vit", "loss-vit"}


def test_an_interrupted_run_is_shown_as_far_as_it_went(
    tmp_path: Path, make_folder: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    folder = make_folder(tmp_path / "cut")
    records = folder / "t5" / "records.jsonl"
    records.write_bytes(records.read_bytes()[:9000])
    (folder / "vit" / "records.jsonl").unlink()
    (folder / "verdicts.jsonl").unlink()
    with pytest.warns(UserWarning, match="dropped the last line"):
        out = write_report([folder], tmp_path / "report.html")
    page = open_page(out)
    assert "This run is not finished" in page.inner_text("#t5")
    assert page.locator("#fig1-t5 .mark-symbol.role-mark path").count() > 0


def test_names_that_are_code_are_shown_as_text(
    tmp_path: Path, make_folder: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    folder = make_folder(tmp_path / "<script>alert(1)<")
    nasty = folder / "t5"
    hostile = [
        replace(record, site=HOSTILE, stack=record.stack and HOSTILE, case=HOSTILE)
        for record in RunFolder(nasty).records()
    ]
    shutil.rmtree(nasty)
    RunFolder(folder / "t5 '<b>", {"kind": "training", HOSTILE: HOSTILE, "command": HOSTILE}).append(hostile)
    RunFolder(folder).write_verdicts([replace(v, text=HOSTILE, reason=HOSTILE) for v in RunFolder(folder).verdicts()])
    page = open_page(write_report([folder], tmp_path / "report.html"))
    assert page.title() == "Lazy neurons: <script>alert(1)<"
    assert page.locator("script").count() == 4
    assert page.locator("img").count() == 0
    assert HOSTILE in page.inner_text("#claims")
    page.locator("#fig1-t5-b .mark-symbol.role-mark path").first.hover(force=True)
    page.locator("#vg-tooltip-element.visible").wait_for(timeout=5000)
    assert page.title() == "Lazy neurons: <script>alert(1)<"
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in (tmp_path / "charts").iterdir())


def test_two_folders_are_compared(
    tmp_path: Path, make_folder: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    folders = [make_folder(tmp_path / "first"), make_folder(tmp_path / "second", names=("t5", "theorem31"), seed=1)]
    out = write_report(folders, tmp_path / "report.html")
    assert out.stat().st_size < 3_000_000
    page = open_page(out, width=390)
    heads = page.locator("#claims thead th").all_inner_texts()
    assert heads[2:4] == ["first", "second"]
    assert page.locator("#fig1-mean-t5 .mark-line.role-mark path").count() == 2 * 2
    assert page.locator("#fig1-t5-second").count() == 1
    assert "not in this folder" in page.inner_text("#claims")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_verdicts_of_several_seeds_stand_in_one_cell(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folder = RunFolder(make_folder(tmp_path / "seeds", names=("theorem31",)))
    folder.write_verdicts([replace(v, seed=seed) for v in folder.verdicts() for seed in (3, 4)])
    text = write_report([folder.path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count('<tbody>\n<tr>\n<th scope="rowgroup"') == 3
    assert text.count('<span class="note">seed 3</span>') == text.count('<span class="note">seed 4</span>') == 3


def test_folders_of_one_name_are_told_apart(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folders = [make_folder(tmp_path / name / "run", names=("vit",)) for name in ("a", "b")]
    text = write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "lazyneuron report a/run b/run" in text


def test_figures_in_the_page_hold_no_more_than_five_digits(report: Path) -> None:
    found = re.search(r'id="figures">(.*?)</script>', report.read_text(encoding="utf-8"))
    assert found
    numbers = re.findall(r":(-?\d+\.\d+(?:e-?\d+)?)", json.dumps(json.loads(found[1]), separators=(",", ":")))
    assert len(numbers) > 500
    assert all(len(re.sub(r"e.*|\D", "", number).strip("0")) <= 5 for number in numbers)


def test_what_cannot_be_reported_is_refused(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="no result folder"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(UsageError, match="holds no run"):
        write_report([tmp_path / "nothing"], tmp_path / "report.html")
    folder = make_folder(tmp_path / "same", names=("theorem31",))
    with pytest.raises(UsageError, match="twice"):
        write_report([folder, folder], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
