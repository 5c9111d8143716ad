"""Small but lifelike result folders, and a browser that opens their pages."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lazyneuron.pages.charts import Figure, Run
from lazyneuron.paper.results import Results, results_of, runs_of
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record
from tests.pages.reproduced import SOURCE, training_records, write_folder

CONTRASTS = """() => {
  const numbers = (color) => { const n = color.match(/[\\d.]+/g).map(Number); return n.length === 3 ? [...n, 1] : n; };
  const luminance = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = numbers(getComputedStyle(node).backgroundColor);
      if (found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const leaves = document.querySelectorAll("h1, h2, h3, p, a, th, td, figcaption, pre, .badge, .note, svg text");
  return [...leaves].filter((node) => node.textContent.trim()).map((node) => {
    const style = getComputedStyle(node);
    const ink = numbers(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(ink), luminance(behind(node))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 40)];
  });
}"""


def measured_records(stack: str, layer: int, site: str, d_ff: int, *, density: float, positions: int) -> list[Record]:
    """What `measure` records of one site: the last two of nine points of its firing rates are dead neurons."""
    at = {"recipe": "measure", "seed": 0, "stack": stack, "layer": layer, "site": site, "num_tokens": 4096}
    numbers = {"density": density, "num_active": density * d_ff, "never_fired": d_ff // 8, "num_nan": 0}
    numbers |= {"rarely_fired": d_ff // 4, "hot_90": 0.25, "hot_99": 0.5, "hot_overlap": 0.8}
    numbers |= {"energy_90": density / 4, "energy_99": density / 2, "density_relative": density * 0.9, "overlap": 0.25}
    step = d_ff // 16
    curves = {
        "num_active_quantile": {q: q * d_ff / 4 for q in (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)},
        "token_share": dict(zip((0, step, 2 * step, 3 * step, 4 * step), (0.1, 0.5, 0.4, 0, 0), strict=True)),
        "firing_rate": {n / 8: max(0.0, 0.8 * 2.0**-n if n < 7 else 0) for n in range(9)},
        "density_by_position": {n: density * (2 if n == 0 else 1) for n in range(positions)},
    }
    found = [Record(what=what, value=value, unit="1", source=SOURCE, **at) for what, value in numbers.items()]
    points = [(what, x, value) for what, curve in curves.items() for x, value in curve.items()]
    return found + [Record(what=what, value=v, unit="1", x=x, source=SOURCE, **at) for what, x, v in points]


def write_measured(
    path: Path,
    model: str = "org/tiny-relu",
    stacks: dict[str, int] | None = None,
    *,
    d_ff: int = 64,
    activation: str = "relu",
    kind: str = "text",
    positions: int = 6,
    density: float | None = None,
    keep: Callable[[Record], bool] = lambda record: True,
) -> Path:
    """Write what `lazyneuron measure` does; layer n of N has density 0.05 (n + 1) / N, or all have `density`."""
    places = [(stack, layer, n) for stack, n in (stacks or {"": 3}).items() for layer in range(n)]
    names = {(stack, layer): f"{stack or 'model'}.{layer}.mlp" for stack, layer, _ in places}
    size = {"activation": activation, "is_gated": False, "d_model": 16, "d_ff": d_ff}
    config = {"name": "measure", "model": model, "kind": kind, "data": "Eight texts of Python's prose."}
    config |= {"command": f"lazyneuron measure {model}", "device": "cpu", "dtype": "float32"}
    folder = RunFolder(path, config | {"sites": [{"name": name} | size for name in names.values()]})
    for stack, layer, n in places:
        value = 0.05 * (layer + 1) / n if density is None else density
        records = measured_records(stack, layer, names[stack, layer], d_ff, density=value, positions=positions)
        folder.append(record for record in records if keep(record))
    return path


@pytest.fixture(scope="session")
def make_measured() -> Callable[..., Path]:
    """`make_measured(path, model="org/name", stacks={"": 3})` writes a measured model's folder and returns its path."""
    return write_measured


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Run]:
    """`measured(stacks={"": 3})` is a measured model as a run named "tiny"."""

    def made(label: str = "tiny", **options: Any) -> Run:
        folder = RunFolder(write_measured(tmp_path / f"{len(list(tmp_path.iterdir()))}", **options))
        return Run(label=label, name=label, config=folder.config, records=folder.records())

    return made


@pytest.fixture(scope="session")
def data() -> Callable[..., list[dict[str, Any]]]:
    """`data(figure, panel=0, layer=0)` is the rows behind one layer of marks of one panel."""

    def found(figure: Figure | None, panel: int = 0, layer: int = 0) -> list[dict[str, Any]]:
        assert figure is not None
        whole = figure.spec["concat"][panel]
        source = next(holder["data"] for holder in (whole["layer"][layer], whole, figure.spec) if "data" in holder)
        return source["values"] if "values" in source else figure.spec["datasets"][source["name"]]

    return found


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """`make_folder(path, names=("fig1",), seeds=(0, 1))` writes what `lazyneuron reproduce` does; returns its path."""
    return write_folder


@pytest.fixture(scope="session")
def make_monitored() -> Callable[..., Path]:
    """`make_monitored(path, "t5", seed=1)` writes a folder as `lazy.Monitor` does and returns its path."""

    def made(path: Path, name: str = "t5", seed: int = 0) -> Path:
        folder = RunFolder(path, {"kind": "monitor", "name": name, "model": name, "seed": seed, "num_steps": 2048})
        records = [record for record in training_records(name, seed) if record.split != "test"]
        seen = [record for record in records if record.what == "density" and record.split == "train"]
        static = {"never_fired": 16, "rarely_fired": 32, "hot_90": 0.25, "hot_99": 0.5}
        folder.append([*records, *(replace(r, what=what, value=v) for r in seen for what, v in static.items())])
        return path

    return made


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """All experiments of one result folder with two seeds, by name."""
    top = RunFolder(write_folder(tmp_path_factory.mktemp("checked") / "small", seeds=(0, 1)))
    found = results_of(top.recipes(), runs_of("small", top), top.verdicts())
    return {results.name: results for results in found}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs of a T5, a ViT and the theorem with one seed, by name."""
    path = write_folder(tmp_path_factory.mktemp("runs") / "small", names=("fig2b", "theorem31"))
    return {run.name: run for run in runs_of("small", RunFolder(path))}


@pytest.fixture(scope="session")
def points() -> Callable[[Figure | None], list[list[dict[str, Any]]]]:
    """`points(figure)` is the data behind each panel's points, wherever in the definition altair put it."""

    def found(figure: Figure | None) -> list[list[dict[str, Any]]]:
        assert figure is not None
        holders = [(panel["layer"][-1], panel, figure.spec) for panel in figure.spec["concat"]]
        data = [next(holder["data"] for holder in three if "data" in holder) for three in holders]
        return [each["values"] if "values" in each else figure.spec["datasets"][each["name"]] for each in data]

    return found


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page and wait for its charts; a console message, an error or a request off the disk fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(path: Path, width: int = 1200, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: re.match("file:|data:|blob:", request.url) or complaints.append(f"request {request.url}"),
        )
        page.goto(path.as_uri())
        seen = "[...document.querySelectorAll('.chart')].filter((box) => !box.closest('details:not([open])'))"
        page.wait_for_function(f"{seen}.every((box) => box.dataset.drawn)", timeout=30_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def contrasts() -> Callable[[Any], list[Any]]:
    """`contrasts(page)` is the contrast and the beginning of each piece of text on a page."""
    return lambda page: page.evaluate(CONTRASTS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; without one, tests skip, and fail where the environment says CI=true."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        _no_browser(error)
        return
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        switches = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
        switches += " disable-component-update disable-sync"
        try:
            chromium = playwright.chromium.launch(executable_path=found, args=[f"--{s}" for s in switches.split()])
        except Error as error:
            _no_browser(error)
            return
        yield chromium
        chromium.close()


def _no_browser(error: Exception) -> None:
    message = f"no Chromium to open the page with: {str(error).splitlines()[0]}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
