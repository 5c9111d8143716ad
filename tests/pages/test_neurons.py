"""The neuron browser, opened in Chromium: sites, orders, search, keys, and texts that try to break the page."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lazyneuron.pages import neurons
from lazyneuron.pages.neurons import write_neurons
from lazyneuron.pages.page import write_report
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record

TEXTS = {"5": " the", "7": "</script><script>alert(1)</script>", "9": " line\nbreak", "11": '"quoted" \u202e rtl'}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Two sites of four neurons: the first is woken by one text each, of the second only neuron 2 fires."""
    names = ["layers.0.mlp", "layers.1.mlp"]
    sites = [{"name": n, "activation": "relu", "is_gated": False, "d_model": 2, "d_ff": 4} for n in names]
    found = RunFolder(tmp_path / "measured", {"name": "measure", "model": "tiny", "title": "tiny", "sites": sites})
    ids = np.array([5, 7, 9, 11], np.int32)
    windows = np.full((4, 2, 3), -1, np.int32)
    windows[:, 0, 1], windows[:, 0, 0] = ids, np.roll(ids, 1)
    values = np.array([[1, 0], [2, 0], [4, 0], [3, 0]], np.float32)
    only = values * (np.arange(4) == 2)[:, None]
    histogram = np.zeros((4, 16), np.int64)
    histogram[:, 9] = [40, 30, 20, 10]
    tensors: dict[str, np.ndarray] = {}
    for name, kept in zip(names, (values, only), strict=True):
        at = np.where(kept > 0, 3, -1).astype(np.int32)
        tensors |= {f"{name}/values": kept, f"{name}/sequences": at, f"{name}/positions": at.copy()}
        tensors |= {f"{name}/windows": windows, f"{name}/histogram": histogram}
    save_file(tensors, found.path / "examples.safetensors")
    fires = {names[0]: np.array([40, 30, 20, 10, 100, 0]), names[1]: np.array([0, 0, 20, 0, 100, 0])}
    save_file(fires, found.path / "counts.safetensors")
    (found.path / "vocabulary.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    here = [{"stack": "layers", "layer": i, "site": name, "recipe": "measure"} for i, name in enumerate(names)]
    found.append(
        Record(what=what, value=0.1, unit="fraction", seed=0, **where)
        for where in here
        for what in ("density", "num_active", "never_fired")
    )
    return found


def listed(page) -> list[str]:
    return page.locator("#list li span:first-child").all_inner_texts()


def test_one_can_browse_sort_and_search(folder: RunFolder, open_page) -> None:
    page = open_page(write_neurons(folder, "tiny", folder.path / "neurons.html"))
    page.wait_for_selector("body[data-ready]")
    assert listed(page) == ["#0", "#1", "#2", "#3"]
    page.select_option("#order", "seldom")
    assert listed(page) == ["#3", "#2", "#1", "#0"]
    page.select_option("#order", "max")
    assert listed(page) == ["#2", "#3", "#1", "#0"]
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#detail h2") == "Neuron #3"
    page.keyboard.press("End")
    assert page.inner_text("#detail h2") == "Neuron #0"
    assert page.inner_text("#detail mark").strip() == "the"
    assert "40 tokens from 2 to 4" == page.locator(".bars div").nth(8).get_attribute("title")
    page.fill("#search", "THE")
    assert listed(page) == ["#0"]
    page.fill("#search", "#2")
    assert listed(page) == ["#2"]
    page.fill("#search", "nowhere to be found")
    assert page.inner_text("#detail") == "No neuron here."
    page.fill("#search", "")
    page.select_option("#site", label="layers.1.mlp")
    page.select_option("#order", "never")
    assert listed(page) == ["#0", "#1", "#3"]
    assert "No token gave it a positive value" in page.inner_text("#detail")


def test_hostile_texts_are_shown_and_do_nothing(folder: RunFolder, open_page) -> None:
    page = open_page(write_neurons(folder, "<b>tiny</b>", folder.path / "neurons.html"))
    page.wait_for_selector("body[data-ready]")
    page.fill("#search", "#1")
    assert page.inner_text("#detail mark") == TEXTS["7"]
    page.fill("#search", "#2")
    assert page.inner_text("#detail mark").strip() == "line\u23cebreak"
    assert page.locator("h1 b").count() == 0
    page.fill("#search", "#0")  # a token that turns the text around stands before " the", and turns only itself
    turned, middle = page.locator(".context > span").first.bounding_box(), page.locator(".context mark").bounding_box()
    assert middle["x"] >= turned["x"] + turned["width"] - 1


def test_a_large_model_shows_an_even_choice_of_its_neurons(folder: RunFolder, open_page, monkeypatch) -> None:
    monkeypatch.setattr(neurons, "MAX_TOKENS", 2 * 2 * 3 * 2)
    page = open_page(write_neurons(folder, "tiny", folder.path / "neurons.html"))
    page.wait_for_selector("body[data-ready]")
    assert listed(page) == ["#0", "#3"]
    assert "2 of its 4 neurons" in page.inner_text("#about")


def test_the_report_links_to_it(folder: RunFolder, open_page) -> None:
    page = open_page(write_report([folder.path], folder.path / "report.html"))
    page.click("text=Browse its neurons")
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("h1") == "Which tokens wake which neuron of tiny?"


def test_patches_are_shown_in_their_images(folder: RunFolder, open_page) -> None:
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    images = {"side": 2, "num_before": 1, "images": {"3": dot}}
    (folder.path / "images.json").write_text(json.dumps(images), encoding="utf-8")
    page = open_page(write_neurons(folder, "tiny", folder.path / "neurons.html"))
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#detail .where") == "image 3, row 1, column 0"  # position 3, the third patch
    box = page.locator(".picture i").evaluate("(box) => [box.style.left, box.style.top, box.style.width]")
    assert box == ["0%", "50%", "50%"]
