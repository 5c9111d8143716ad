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

from lazyneuron.errors import UsageError
from lazyneuron.pages.charts import Run
from lazyneuron.pages.page import provenance
from lazyneuron.paper.page import write_report
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record

FIGURES = {  # number of points and of lines
    "fig1-steps-t5": (2 * 8 * 13, 2 * 8),
    "fig2a-layers-vit": (6, 1),
    "fig2b-splits-t5": (2 * 2 * 8, 2 * 4),
    "fig3-firing": (4, 2 * 8),
    "theorem31-cases": (2 * (18 + 12), 0),
    "fig4bc-setting": (2 * 3 * 2 * 2, 4),
    "topk-accuracy-difference": (4 + 2, 2),
    "latency-time": (2 * 6, 4),
    "latency-speedup": (6, 2),
    "table1-reliability": (2 * 2 * 4, 1 + 4),
    "table1-severity": (3 * 2 * 6, 6),
    "statistical-topk-kept": (2 * 6, 2),
    "long-run-law": (2 * 2 * (13 + 7), 2 * 2 * 2 * 2),
    "corruptions-relative": (8 + 1, 0),
}
CLOSED = {"fig1-curves": (0, 5), "fig1-layers-t5": (8, 2), "corruptions-severity": (8 * 2 * 6, 16)}
HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    """The page of one whole result folder with two seeds."""
    folder = tmp_path_factory.mktemp("one")
    return write_report([make_folder(folder / "small", seeds=(0, 1))], folder / "out" / "report.html")


def test_one_page_and_a_folder_of_charts_are_written(report: Path) -> None:
    charts = {path.name for path in (report.parent / "charts").iterdir()}
    assert charts > {f"{name}.{ending}" for name in [*FIGURES, *CLOSED] for ending in ("png", "svg")}
    assert sorted(path.name for path in report.parent.iterdir()) == ["charts", "report.html"]
    assert report.stat().st_size < 3_000_000


def test_the_page_tells_the_whole_story(report: Path) -> None:
    text = re.sub(r"<script.*?</script>", "", report.read_text(encoding="utf-8"), flags=re.S)
    for said in (
        "small: 3 hold, 1 does not hold, 1 cannot tell", "far smaller than the paper", "0123456789ab", "The paper</h3>",
        "lazyneuron reproduce --scale small", "lazyneuron report small", "mse skewed K=100", "no such record",
        "the paper reports", "bootstrap interval", "0.4987 to 0.4997", "62.13", "2.7 %", "seed 0, 1",
    ):  # fmt: skip
        assert said in text, said
    assert '<html lang="en">' in text
    assert str(report.parent.parent) not in text
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_chart_draws_its_marks(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report)
    assert page.locator("#fig1-curves svg").count() == 0
    page.evaluate("document.querySelectorAll('details.more').forEach((details) => (details.open = true))")
    page.wait_for_function("[...document.querySelectorAll('.chart')].every((box) => box.dataset.drawn)")
    for name, (num_points, num_lines) in (FIGURES | CLOSED).items():
        box = page.locator(f"#{name}")
        assert box.locator(".mark-symbol.role-mark path").count() == num_points, name
        assert box.locator(".mark-line.role-mark path").count() == num_lines, name
        assert box.get_attribute("aria-label"), name
        assert "NaN" not in box.inner_html(), name


def test_a_point_says_what_it_is(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report)
    page.locator("#fig2b-splits-t5 .mark-symbol.role-mark path").first.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for(timeout=5000)
    text = tooltip.inner_text()
    assert "density (%)" in text
    assert "encoder.block.0.mlp" in text


def test_a_click_in_the_legend_fades_the_rest_and_a_click_beside_ends_that(
    report: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(report)
    for name, entry, marks, faded in (
        ("fig1-steps-t5", "2", ".mark-line", 12),
        ("fig2b-splits-t5", "evaluation", ".mark-line", 4),
        ("latency-time", "masked", ".mark-line", 2),
        ("theorem31-cases", "closed form", ".mark-symbol", 36),
    ):
        found = page.locator(f'#{name} {marks}.role-mark path[opacity="0.08"]')
        assert found.count() == 0
        page.locator(f"#{name} .role-legend-label text", has_text=entry).click()
        found.first.wait_for(state="attached", timeout=5000)
        assert found.count() == faded
        page.locator(f"#{name} svg.marks").click(position={"x": 4, "y": 4})
        found.first.wait_for(state="detached", timeout=5000)


def redrawn(page: Any, times: int) -> None:
    """Wait until every chart has been drawn so many times."""
    boxes = "[...document.querySelectorAll('.chart')].filter((box) => !box.closest('details:not([open])'))"
    page.wait_for_function(f"{boxes}.every((box) => box.dataset.drawn === '{times}')")


def test_page_and_charts_fit_the_screen_and_follow_it(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report, width=1600)
    for times, width in enumerate([1600, 768, 360], 1):
        page.set_viewport_size({"width": width, "height": 900})
        redrawn(page, times)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = "[...document.querySelectorAll('.chart')].map((box) => box.scrollWidth - box.clientWidth)"
        assert max(page.evaluate(boxes)) <= 0, width
        columns = page.locator("#fig1-steps-t5 .role-axis-title").evaluate_all(
            "(all) => all.map((n) => n.getBoundingClientRect().y)"
        )
        assert len({round(y) for y in columns}) == (2 if width > 700 else 4)
        sides = [page.locator(f"#experiment-fig4bc .{side}").bounding_box()["x"] for side in ("paper", "here")]
        assert (sides[0] < sides[1]) == (width > 1000)


def test_closed_charts_fit_a_phone_too(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report, width=360, color_scheme="dark")
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    page.wait_for_function("[...document.querySelectorAll('.chart')].every((box) => box.dataset.drawn)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = "[...document.querySelectorAll('.chart')].filter((b) => b.scrollWidth > b.clientWidth).map((b) => b.id)"
    assert page.evaluate(wide) == []


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
    RunFolder(tmp_path / "new", {"kind": "reproduce", "scale": "small"})
    page = open_page(write_report([tmp_path / "new"], tmp_path / "report.html"))
    assert "No claim has been judged yet" in page.inner_text("#claims")
    assert page.locator(".chart").count() == 0
    assert list((tmp_path / "charts").iterdir()) == []


@pytest.mark.parametrize(("name", "count"), [("theorem31", 2), ("mixer", 2)])
def test_one_recipe_alone(tmp_path: Path, make_folder: Callable[..., Path], name: str, count: int) -> None:
    write_report([make_folder(tmp_path / "whole", names=(name,))], tmp_path / "report.html")
    assert len(list((tmp_path / "charts").glob("*.svg"))) == count


def test_a_member_is_a_result_folder_too(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folder = make_folder(tmp_path / "whole", names=("table1",))
    out = write_report([folder / "vit-seed0", folder / "robustness-seed0"], tmp_path / "report.html")
    names = {path.stem.partition("-")[0] for path in (tmp_path / "charts").iterdir()}
    assert names == {"vit", "robustness"}
    assert "The paper</h3>" not in out.read_text(encoding="utf-8")


def test_a_half_finished_folder_says_what_is_missing(
    tmp_path: Path, make_folder: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    folder = make_folder(tmp_path / "cut", names=("fig1", "fig4bc", "table1", "latency"), seeds=(0, 1))
    records = folder / "t5-seed0" / "records.jsonl"
    records.write_bytes(records.read_bytes()[:9000])
    for gone in ("t5-ff128-seed0", "t5-ff128-seed1", "vit-seed1", "robustness-seed0", "robustness-seed1"):
        shutil.rmtree(folder / gone)
    (folder / "latency-seed0" / "records.jsonl").write_text("")
    (folder / "latency-seed1" / "records.jsonl").unlink()
    (folder / "verdicts.jsonl").unlink()
    with pytest.warns(UserWarning, match="dropped the last line"):
        out = write_report([folder], tmp_path / "report.html")
    page = open_page(out)
    assert "t5 is not finished: seed 0 at step" in page.inner_text("#experiment-fig1")
    assert "Not there yet: t5-ff128." in page.inner_text("#experiment-fig4bc")
    assert "vit lacks seed 1." in page.inner_text("#experiment-table1")
    assert "latency has no records yet." in page.inner_text("#experiment-latency")
    assert page.locator("#fig1-steps-t5 .mark-symbol.role-mark path").count() > 0


def test_a_folder_that_has_not_ended_has_a_section_per_run(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folder = make_folder(tmp_path / "new", names=("fig2b", "fig3"))
    (folder / "recipes.jsonl").unlink()
    text = write_report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'id="experiment-([\w-]+)"', text) == ["firing", "t5", "vit"]


def test_monitored_runs_are_compared_as_before(
    tmp_path: Path, make_monitored: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    folders = [make_monitored(tmp_path / "first"), make_monitored(tmp_path / "second", seed=1)]
    page = open_page(write_report(folders, tmp_path / "report.html"), width=390)
    assert page.locator("#fig1-mean-t5 .mark-line.role-mark path").count() == 2 * 2
    assert page.locator("#fig1-t5-second").count() == page.locator("#fig2-t5").count() == 1
    assert page.locator("#loss-t5 .mark-line.role-mark path").count() == 2 * 4
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    write_report(folders[:1], tmp_path / "one" / "report.html")
    names = {path.stem for path in (tmp_path / "one" / "charts").iterdir()}
    assert names == {"fig1-t5", "neurons-t5", "fig2-t5", "loss-t5"}


def test_a_monitored_run_has_a_page_that_speaks_of_no_claims(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine", {"kind": "monitor", "name": "train", "model": "tiny"})
    place = {"recipe": "train", "seed": 0, "split": "train", "layer": 0, "site": "mlp", "num_tokens": 9}
    folder.append(
        Record(what="density", value=0.5 / (1 + step), unit="fraction", step=step, **place) for step in (0, 1)
    )
    text = write_report([folder.path], tmp_path / "page.html").read_text()
    assert "<h1>How many neurons of mine are active while it trains?</h1>" in text
    assert "Density of each layer while training: train" in text
    for said in ("checked", "claims of", "no verdicts", "reproduced on", "has not seen"):
        assert said not in text.partition("<script")[0], said


def test_names_that_are_code_are_shown_as_text(
    tmp_path: Path, make_folder: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    folder = make_folder(tmp_path / "<script>alert(1)<", names=("fig1", "fig2b"))
    nasty = folder / "t5-seed0"
    hostile = [
        replace(record, site=HOSTILE, stack=record.stack and HOSTILE, case=HOSTILE)
        for record in RunFolder(nasty).records()
    ]
    shutil.rmtree(nasty)
    config = {"kind": "training", "name": "t5 '<b>", "seed": 0, HOSTILE: HOSTILE, "command": HOSTILE}
    RunFolder(folder / "t5 '<b>", config).append(hostile)
    told = [recipe | {"title": HOSTILE, "expected": HOSTILE} for recipe in RunFolder(folder).recipes()]
    RunFolder(folder).write_recipes(told)
    RunFolder(folder).write_verdicts([replace(v, text=HOSTILE, reason=HOSTILE) for v in RunFolder(folder).verdicts()])
    page = open_page(write_report([folder], tmp_path / "report.html"))
    assert page.title() == "Lazy neurons: <script>alert(1)<"
    assert page.locator("script").count() == 4
    assert page.locator("img").count() == 0
    assert HOSTILE in page.inner_text("#claims")
    page.locator("#t5-b-steps-t5-b .mark-symbol.role-mark path").first.hover(force=True)
    page.locator("#vg-tooltip-element.visible").wait_for(timeout=5000)
    assert page.title() == "Lazy neurons: <script>alert(1)<"
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in (tmp_path / "charts").iterdir())


def test_two_folders_are_compared(
    tmp_path: Path, make_folder: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    first = make_folder(tmp_path / "first", names=("fig1", "fig4bc"))
    second = make_folder(tmp_path / "second", names=("fig1",), seeds=(0, 1))
    RunFolder(second).write_verdicts(RunFolder(second).verdicts()[1:])
    page = open_page(write_report([first, second], tmp_path / "report.html"), width=390)
    heads = page.locator("#claims thead th").all_inner_texts()
    assert heads[3:5] == ["first", "second"]
    assert page.locator("#fig1-first-steps-t5, #fig1-second-steps-t5").count() == 2
    assert page.locator("#experiment-fig1 .here > h3").all_inner_texts() == ["HERE: FIRST", "HERE: SECOND"]
    assert "not in this folder" in page.inner_text("#claims")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_claims_table_has_a_row_for_each_verdict(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report)
    heads = page.locator("#claims thead th").all_inner_texts()
    assert heads == ["claim", "on", "the paper reports", "verdict", "seen", "95\u00a0% interval", "expected", "why"]
    assert page.locator("#claims tbody").count() == 3
    assert page.locator("#claims tbody tr").count() == 5
    assert page.locator("#claims .badge").all_inner_texts()[3:] == ["✗ does not hold", "? cannot tell"]
    assert page.locator("#experiment-fig1 .verdicts li").count() == 5


def test_the_page_begins_with_a_few_lines_and_checks_are_apart(
    tmp_path: Path, make_folder: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    folder = make_folder(tmp_path / "small", names=("mixer",), seeds=(0, 1))
    graded, check, other, *rest = RunFolder(folder).verdicts()
    graded = replace(graded, line="Few are active.", grade="halves", density=0.05, student_low=0.3, student_high=0.7)
    other = replace(other, line="Few are active.", verdict="does not hold", reason="dense still")
    rest[0] = replace(rest[0], line="Few are active.", claim="second", text="Every layer.", reported="0.24")
    RunFolder(folder).write_verdicts([graded, replace(check, is_check=True), other, *rest])
    page = open_page(write_report([folder], tmp_path / "report.html"), width=390)
    assert page.inner_text(".tally") == "small: 1 holds, 2 do not hold, 1 cannot tell; 1 of 1 check passes"
    row, second = page.locator(".lines tbody tr").all()
    assert (second.locator("td").count(), second.locator(".reported").inner_text()) == (2, "0.24")
    assert second.locator(".note").inner_text() == "Every layer."
    why = row.locator(".why")
    assert why.bounding_box()["y"] > second.locator(".reported").bounding_box()["y"]
    assert row.locator(".verdict").all_inner_texts() == [
        "✓ holds t5: density 0.05, halves",
        "✗ does not hold mixer: 0.4992 (0.4987 to 0.4997)",
    ]
    assert why.inner_text().split("\n") == [graded.text, "dense still"]
    assert (page.locator("#claims tbody tr").count(), page.locator("#checks tbody tr").count()) == (4, 1)
    assert "bootstrap 0.4987 to 0.4997" in page.inner_text("#claims .interval >> nth=0")
    assert page.locator("#experiment-mixer .verdicts li").count() == 4
    assert "1 of 1 check passes" in page.inner_text("nav")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_folders_of_one_name_are_told_apart(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folders = [make_folder(tmp_path / name / "run", names=("fig3",)) for name in ("a", "b")]
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
    with pytest.raises(UsageError, match=r"ends in \.html or \.md"):
        write_report([folder], tmp_path / "report.txt")
    advised = RunFolder(tmp_path / "advised", {"name": "advise", "model": "tiny"})
    with pytest.raises(UsageError, match="it has no page"):
        write_report([advised.path], tmp_path / "report.html")


def test_provenance_names_each_source_once(runs: dict[str, Run]) -> None:
    made = provenance(runs["t5"])
    assert made["num_records"] == len(runs["t5"].records)
    assert [source.commit for source in made["sources"]] == ["0123456789ab"]
    assert made["config"]["task"] == '{"size": "tiny", "num_layers": null, "d_ff": 512}'
