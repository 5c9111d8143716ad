"""The page of measured models, in a real browser: every layer drawn, no claim made, and readable by everyone."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lazyneuron.paper.page import write_report
from lazyneuron.records.folder import RunFolder

Make = Callable[..., Path]
Open = Callable[..., Any]
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">"


def marks(page: Any, figure: str, kind: str) -> int:
    return page.locator(f"#{figure} .mark-{kind}.role-mark path").count()


def told(path: Path, **changes: Any) -> None:
    """Change the config of a result folder."""
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def story(out: Path) -> str:
    return re.sub(r"<(script|style).*?</\1>", "", out.read_text(encoding="utf-8"), flags=re.S).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, make_measured: Make) -> Path:
    """The page of one measured encoder-decoder."""
    folder = tmp_path_factory.mktemp("measured")
    made = make_measured(folder / "both", "org/tiny-t5", {"encoder": 2, "decoder": 3}, positions=40)
    return write_report([made], folder / "out" / "report.html")


def test_a_measured_model_has_its_charts_table_and_summary_and_no_claims(report: Path) -> None:
    text = story(report)
    for said in (
        "How many neurons of tiny-t5 are active?", "<title>Lazy neurons: tiny-t5</title>", "Model: org/tiny-t5",
        "Eight texts of Python", "lazyneuron measure org/tiny-t5", "lazyneuron report both", "encoder.1.mlp",
        "In the decoder, 3.33 % of the neurons are active", "5, listed above and in config.json", "0123456789ab",
    ):  # fmt: skip
        assert said in text, said
    for said in ("laims", "no verdicts", "Density while training", "checked", "trained here", "Models compared"):
        assert said not in text, said
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(re.findall(r'id="([^"]+)"', text))
    names = {f"{kind}-tiny-t5" for kind in ("density", "firing", "activity", "tokens", "position")}
    assert {path.name for path in (report.parent / "charts").iterdir()} == {
        f"{n}.{e}" for n in names for e in ("png", "svg")
    }


def test_every_chart_draws_its_marks(report: Path, open_page: Open) -> None:
    page = open_page(report)
    assert marks(page, "density-tiny-t5", "symbol") == 5 * 4
    assert marks(page, "density-tiny-t5", "line") == 2 * 4
    assert marks(page, "firing-tiny-t5", "line") == 5
    assert marks(page, "tokens-tiny-t5", "area") == 5
    assert page.locator("#tokens-tiny-t5 .mark-rect.role-mark path").count() == 5, "a median each"
    assert marks(page, "position-tiny-t5", "line") == 5
    assert marks(page, "position-tiny-t5", "symbol") == 5 * 40
    assert page.locator("#firing-tiny-t5 text", has_text="never").count() == 2
    for box in page.locator(".chart").all():
        assert box.get_attribute("aria-label")
        assert "NaN" not in box.inner_html()


def test_the_table_can_be_read_with_a_keyboard_and_by_a_screen_reader(report: Path, open_page: Open) -> None:
    page = open_page(report, width=390)
    region = page.get_by_role("region", name="Each layer of tiny-t5")
    assert region.get_attribute("tabindex") == "0"
    assert region.locator("tbody tr").count() == 5
    assert region.locator("tbody th[scope=row]").all_inner_texts() == [
        "encoder 0",
        "encoder 1",
        "decoder 0",
        "decoder 1",
        "decoder 2",
    ]
    assert region.locator("tfoot tr").count() == 2
    assert region.locator("thead th").count() == region.locator("tbody tr").first.locator("td, th").count() == 11
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = "[...document.querySelectorAll('.chart')].map((box) => box.scrollWidth - box.clientWidth)"
    assert max(page.evaluate(boxes)) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(
    report: Path, open_page: Open, contrasts: Callable[[Any], list[Any]], scheme: str
) -> None:
    found = contrasts(open_page(report, color_scheme=scheme))
    assert len(found) > 200
    assert [item for item in found if item[0] < 4.5] == []


def test_a_click_in_the_legend_singles_out_a_layer(report: Path, open_page: Open) -> None:
    page = open_page(report)
    faded = page.locator('#firing-tiny-t5 .mark-line.role-mark path[opacity="0.08"]')
    page.locator("#firing-tiny-t5 .role-legend-label text", has_text="2").click()
    faded.first.wait_for(state="attached", timeout=5000)
    assert faded.count() == 4


def test_images_are_mapped_and_the_class_token_has_a_chart(
    tmp_path: Path, make_measured: Make, open_page: Open
) -> None:
    path = make_measured(tmp_path / "vit", "org/vit", {"": 7}, kind="images", positions=17)
    folder = RunFolder(path)
    density = [record for record in folder.records() if record.what == "density"]
    kinds = ("density_class_token", "density_patches")
    folder.append([replace(record, what=what) for record in density for what in kinds])
    page = open_page(write_report([path], tmp_path / "report.html"))
    assert marks(page, "position-vit", "rect") == 7 * 16
    assert page.locator("#position-vit text", has_text="layer 6").count() == 1
    assert marks(page, "class-token-vit", "line") == 2
    box = page.locator("#position-vit svg.marks").bounding_box()
    assert 0.2 < box["height"] / box["width"] < 0.6


def test_many_layers_and_thousands_of_positions(tmp_path: Path, make_measured: Make, open_page: Open) -> None:
    path = make_measured(tmp_path / "deep", "org/deep", {"": 64}, positions=256, d_ff=4096)
    out = write_report([path], tmp_path / "report.html")
    assert out.stat().st_size < 3_000_000
    page = open_page(out, width=390)
    assert marks(page, "tokens-deep", "area") == marks(page, "firing-deep", "line") == 64
    assert 64 * 20 < marks(page, "position-deep", "rect") <= 64 * 64
    assert page.locator("#firing-deep .role-legend-label text").count() == 64
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("num_layers", [1, 2])
def test_density_and_count_are_enough(tmp_path: Path, make_measured: Make, open_page: Open, num_layers: int) -> None:
    keep = {"keep": lambda record: record.what in ("density", "num_active")}
    page = open_page(
        write_report([make_measured(tmp_path / "few", "few", {"": num_layers}, **keep)], tmp_path / "r.html")
    )
    assert page.locator(".chart").count() == 1
    assert marks(page, "density-few", "symbol") == num_layers
    assert "warning" not in page.locator("#model-few").inner_html()


def test_a_smooth_activation_has_a_note_and_no_chart_without_content(
    tmp_path: Path, make_measured: Make, open_page: Open
) -> None:
    path = make_measured(tmp_path / "llm", "org/llm", activation="silu", density=0.9995)
    page = open_page(write_report([path], tmp_path / "report.html"))
    assert page.locator(".chart").count() == 1
    said = page.inner_text("#model-llm")
    assert "hardly ever gives an exact zero" in said
    assert "They are not drawn" in said


def test_nan_entries_are_a_warning_on_the_page(tmp_path: Path, make_measured: Make, open_page: Open) -> None:
    path = make_measured(tmp_path / "bad", "bad")
    folder = RunFolder(path)
    folder.append([replace(r, value=3) for r in folder.records() if r.what == "num_nan" and r.layer == 1])
    page = open_page(write_report([path], tmp_path / "report.html"))
    assert page.locator("p.warning").all_inner_texts() == [
        "3 entries of the activation maps are NaN, in layer 1. They are counted apart, not as active. The other "
        "numbers of these layers and of those after them cannot be trusted: try another dtype."
    ]


def test_several_models_are_compared_first(tmp_path: Path, make_measured: Make, open_page: Open) -> None:
    folders = [
        make_measured(tmp_path / "a", "org/small", {"": 2}),
        make_measured(tmp_path / "b", "org/large", {"encoder": 3, "decoder": 3}, d_ff=256),
        make_measured(tmp_path / "c", "other/small", {"": 4}, activation="gelu", density=0.999),
    ]
    page = open_page(write_report(folders, tmp_path / "report.html"))
    assert page.locator("h1").inner_text() == "How many neurons of small (a), large and small (c) are active?"
    assert page.locator("h2").all_inner_texts() == [
        "Models compared", "small (a)", "large", "small (c)", "How each number was made",
    ]  # fmt: skip
    assert marks(page, "compared", "line") == 4 * 4
    assert marks(page, "compared", "symbol") == 4 * (2 + 3 + 3 + 4)
    region = page.get_by_role("region", name="The models compared")
    assert region.locator("tbody th").all_inner_texts() == ["small (a)", "large", "large", "small (c)"]
    assert page.locator("#firing-small-a").count() == page.locator("#firing-large").count() == 1
    assert page.locator("#firing-small-c").count() == 0


def test_beside_a_trained_model_the_claims_stay(
    tmp_path: Path, make_folder: Make, make_measured: Make, open_page: Open
) -> None:
    folders = [make_folder(tmp_path / "trained", names=("mixer",)), make_measured(tmp_path / "asis", "org/t5")]
    page = open_page(write_report(folders, tmp_path / "report.html"))
    assert page.locator("h2").all_inner_texts()[:3] == ["Claims", "The Mixer too Appendix B", "t5"]
    assert page.locator(".tally").all_inner_texts() == ["trained: 3 hold, 1 does not hold, 1 cannot tell"]
    assert "shows how many neurons are active in t5" in page.inner_text("header")
    assert "asis" not in page.inner_text("#claims")
    assert page.locator("#mixer-layers-mlp-mixer").count() == page.locator("#density-t5").count() == 1
    assert page.locator("#fig1-t5, #fig1-measure").count() == 0
    links = page.locator("nav a").all_inner_texts()
    heads = page.locator("h2").all_inner_texts()
    assert all(head.startswith(link) for head, link in zip(heads, links, strict=True))


def test_a_measurement_without_records_says_so(tmp_path: Path, make_measured: Make, open_page: Open) -> None:
    path = make_measured(tmp_path / "new", "org/new", keep=lambda record: False)
    page = open_page(write_report([path], tmp_path / "report.html"))
    assert page.locator(".chart").count() == 0
    assert "holds no records yet" in page.inner_text("#model-new .warning")


LONG = "tests.test_real_models:" + "antibodies_without_a_space" * 2


@pytest.mark.parametrize("title", [None, "minilm/model", LONG])
def test_the_title_names_the_model_and_the_folder_is_named_where_it_differs(
    tmp_path: Path, make_measured: Make, open_page: Open, title: str | None
) -> None:
    path = make_measured(tmp_path / "minilm", "/somewhere/else/model", positions=20)
    told(path, title=title)
    page = open_page(write_report([path], tmp_path / "report.html"), width=390)
    name = title or "model"
    assert page.locator("h1").inner_text() == f"How many neurons of {name} are active?"
    assert page.title() == f"Lazy neurons: {name}"
    assert page.locator("header .note", has_text="result folder minilm").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", ["t5-small", "measure-t5-small"])
def test_a_folder_that_has_the_models_name_is_not_named_again(tmp_path: Path, make_measured: Make, name: str) -> None:
    path = make_measured(tmp_path / name, "google/t5-small")
    assert "esult folder t5" not in story(write_report([path], tmp_path / "report.html"))


def test_several_folders_are_named_beside_their_models(tmp_path: Path, make_measured: Make, open_page: Open) -> None:
    paths = [make_measured(tmp_path / name, f"org/{name.upper()}x") for name in "ab"]
    page = open_page(write_report(paths, tmp_path / "report.html"))
    assert page.locator("header .note").inner_text() == "Result folders: a (Ax), b (Bx)"
    assert page.locator("main section > .note", has_text="result folder b").count() == 1


def test_tables_of_stacks_and_of_several_models_fit_the_page(
    tmp_path: Path, make_measured: Make, open_page: Open
) -> None:
    paths = [make_measured(tmp_path / "both", "org/both", {"encoder": 2, "decoder": 2})]
    paths += [make_measured(tmp_path / n, LONG + n, {"": 30}, activation="silu", density=0.9999) for n in ("x", "y")]
    for path in paths:
        sites = json.loads((path / "config.json").read_text())["sites"]
        told(path, sites=[site | {"is_gated": True, "d_ff": 11_008} for site in sites])
    folder = RunFolder(paths[0])
    lengthened = {r.site: f"{r.site.removesuffix('.mlp')}.positionwise_feedforward" for r in folder.records()}
    told(paths[0], sites=[{"name": name, "activation": "relu", "d_ff": 512} for name in lengthened.values()])
    text = (paths[0] / "records.jsonl").read_text()
    for short, long in lengthened.items():
        text = text.replace(short, long)
    (paths[0] / "records.jsonl").write_text(text)
    page = open_page(write_report(paths, tmp_path / "report.html"))
    over = "[...document.querySelectorAll('.table')].map((box) => box.scrollWidth - box.clientWidth)"
    assert max(page.evaluate(over)) <= 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200
    code = page.locator("#model-both tbody code").first
    assert code.inner_text() == "encoder.0.positio…dforward"
    assert code.get_attribute("title") == "encoder.0.positionwise_feedforward"
    assert page.locator("#model-both thead th").last.inner_text() == "site"


def test_a_long_command_is_wrapped(tmp_path: Path, make_measured: Make, open_page: Open) -> None:
    path = make_measured(tmp_path / "long", "/lib/site-packages/" * 20 + "model")
    page = open_page(write_report([path], tmp_path / "report.html"))
    over = "[...document.querySelectorAll('pre')].map((box) => box.scrollWidth - box.clientWidth)"
    assert max(page.evaluate(over)) <= 0


def test_one_word_for_neurons_that_were_not_active(report: Path) -> None:
    assert "were never active" in story(report)
    assert not re.search(r"fired|for no token", story(report))


def test_names_that_are_code_are_shown_as_text(tmp_path: Path, make_measured: Make, open_page: Open) -> None:
    path = make_measured(tmp_path / "nasty", f"org/{HOSTILE.replace('/', '')}", {HOSTILE: 2}, activation=HOSTILE)
    page = open_page(write_report([path], tmp_path / "report.html"))
    assert page.title().startswith("Lazy neurons: <script>")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 4
    assert HOSTILE in page.inner_text("main")
    page.locator(".chart .mark-symbol.role-mark path").first.hover(force=True)
    page.locator("#vg-tooltip-element.visible").wait_for(timeout=5000)
    assert page.title().startswith("Lazy neurons: <script>")
    assert all(re.fullmatch(r"[\w.-]+", file.name) for file in (tmp_path / "charts").iterdir())


def test_figures_hold_no_more_than_five_digits(report: Path) -> None:
    found = re.search(r'id="figures">(.*?)</script>', report.read_text(encoding="utf-8"))
    assert found
    numbers = re.findall(r"[:,\[](-?\d+\.\d+(?:e-?\d+)?)", found[1])
    assert len(numbers) > 200
    assert [number for number in numbers if len(re.sub(r"e.*|\D", "", number).strip("0")) > 5] == []
