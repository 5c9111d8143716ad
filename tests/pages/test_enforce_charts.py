"""Converted checkpoints on the page: every case drawn and told, beside measured models, several compared."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lazyneuron.pages.charts import Run
from lazyneuron.pages.enforce_charts import (
    compared_table,
    enforced_rows,
    enforced_summary,
    enforced_table,
    is_enforced,
    quality_against_density,
)
from lazyneuron.paper.page import write_report
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record
from tests.pages.conftest import SOURCE

CASES = {("before", 1.0): 16.0, ("converted", 0.1): 84.0, ("sweep", 1.0): 16.0, ("sweep", 0.1): 84.0}
CASES |= {("sweep", 0.04): 3200.0, ("finetuned", 0.1): 28.0, ("finetuned", 1.0): 12.0, ("finetuned", 0.04): 300.0}
CASES |= {("control", 1.0): 11.0}


def records_of(cases: dict[tuple[str, float], float], main: str = "perplexity") -> list[Record]:
    found = []
    for (case, x), value in cases.items():
        at: dict[str, Any] = {"recipe": "enforce", "seed": 0, "split": "eval", "case": case, "x": x, "source": SOURCE}
        numbers = {main: value} if main == "cosine" else {main: value, "agreement": x, "kl": 1 - x}
        found += [Record(what=what, value=v, unit="", num_tokens=2032, **at) for what, v in numbers.items()]
        for layer in (0, 1):
            place = {"layer": layer, "site": f"layers.{layer}.mlp"}
            found.append(Record(what="density", value=x * (1 + 0.1 * layer), unit="fraction", **place, **at))
    trained = {"recipe": "enforce", "seed": 0, "split": "train", "case": "finetuning", "step": 10}
    return [*found, Record(what="loss", value=3.0, unit="nats", **trained)]


def write(path: Path, title: str = "tiny", cases: Any = None, main: str = "perplexity", **config: Any) -> Path:
    settings = {"name": "enforce", "model": f"org/{title}", "title": title, "data": "Eight texts.", "density": 0.1}
    settings |= {"finetune": {"num_steps": 30, "learning_rate": 1e-4, "distill": 1.0}, "command": "lazyneuron enforce"}
    RunFolder(path, settings | config).append(records_of(CASES if cases is None else cases, main))
    return path


@pytest.fixture
def enforced(tmp_path: Path) -> Callable[..., Run]:
    """`enforced(cases=..., main="cosine", budgets=...)` is a converted model as a run."""

    def made(title: str = "tiny", **options: Any) -> Run:
        folder = RunFolder(write(tmp_path / f"{len(list(tmp_path.iterdir()))}", title, **options))
        return Run(label=title, name=title, config=folder.config, records=folder.records())

    return made


def story(out: Path) -> str:
    return re.sub(r"<(script|style).*?</\1>", "", out.read_text(encoding="utf-8"), flags=re.S).replace("\u00a0", " ")


def test_rows_have_every_case_once_the_densest_first(enforced: Callable[..., Run]) -> None:
    run = enforced()
    assert is_enforced(run)
    assert [(row["case"], row["percent"], row["perplexity"], row["is_asked"]) for row in enforced_rows(run)] == [
        ("before", 100, 16, False),
        ("converted", 100, 16, False),
        ("converted", 10, 84, True),
        ("converted", 4, 3200, False),
        ("fine-tuned", 100, 12, False),
        ("fine-tuned", 10, 28, True),
        ("fine-tuned", 4, 300, False),
        ("control, dense", 100, 11, False),
    ]
    assert enforced_rows(run)[2]["kept"] == pytest.approx(10.5)
    table = enforced_table(run)
    assert [column.title for column in table.columns][:3] == ["case", "density\nasked (%)", "kept (%)"]
    assert table.texts()[3] == ["converted", "4", "4.20", "3,200.00", "4.00", "0.9600"]


def test_budgets_keep_the_uniform_density_beside_what_was_asked(enforced: Callable[..., Run]) -> None:
    rows = enforced_rows(enforced(budgets={"a": 0.1}))
    at_ten = [
        (row["is_asked"], row["is_uniform"]) for row in rows if (row["case"], row["percent"]) == ("converted", 10)
    ]
    assert at_ten == [(True, False), (False, True)]
    figure = quality_against_density(enforced(budgets={"a": 0.1}), "q")
    assert figure is not None
    assert "density of its own at each site" in figure.caption


def test_the_chart_is_logarithmic_beyond_a_decade_and_has_the_levels(
    enforced: Callable[..., Run], data: Callable[..., list[dict[str, Any]]]
) -> None:
    figure = quality_against_density(enforced(), "q")
    assert figure is not None
    first, second = figure.spec["concat"]
    assert first["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"
    assert "type" not in second["layer"][0]["encoding"]["y"]["scale"]
    assert {row["case"]: row["perplexity"] for row in data(figure, 0, 1)} == {"before": 16, "control, dense": 11}
    assert {row["case"] for row in data(figure, 1, 1)} == {"control, dense"}
    assert sorted(row["percent"] for row in data(figure, 0, 2)) == [4, 4, 10, 10, 100, 100]
    titles = [line["title"] for line in first["layer"][2]["encoding"]["tooltip"] if "title" in line]
    assert titles == ["case", "perplexity", "neurons kept (%)", "measured (%)"]
    narrow = quality_against_density(enforced(cases={key: min(v, 90.0) for key, v in CASES.items()}), "q")
    assert narrow is not None
    assert "type" not in narrow.spec["concat"][0]["layer"][0]["encoding"]["y"]["scale"]
    endless = quality_against_density(enforced(cases=CASES | {("sweep", 0.04): float("inf")}), "q")
    assert [row["percent"] for row in data(endless, 0, 0)].count(4) == 1


@pytest.mark.parametrize(
    ("main", "said"),
    [
        ("perplexity", "The perplexity is 16 before, and 84 with 10 % of the neurons; after fine-tuning"),
        ("accuracy", "The accuracy is 90 % before, and 50 % with 10 % of the neurons"),
        ("cosine", "The cosine with the original is 0.5 with 10 % of the neurons"),
    ],
)
def test_each_kind_of_model_is_told_by_its_own_quality(enforced: Callable[..., Run], main: str, said: str) -> None:
    parts = {("before", 1.0): 0.9, ("converted", 0.1): 0.5, ("sweep", 1.0): 0.9}
    run = enforced(cases=CASES if main == "perplexity" else parts, main=main)
    summary = " ".join(enforced_summary(run)).replace("\u00a0", " ")
    assert summary.startswith(said)
    assert ("without any selection gives 11" in summary) == (main == "perplexity")
    assert quality_against_density(run, "q") is not None


def test_models_are_compared_in_a_table(enforced: Callable[..., Run]) -> None:
    plain = {("before", 1.0): 1.0, ("converted", 0.05): 0.6}
    table = compared_table([enforced("a"), enforced("b", cases=plain, main="cosine")])
    assert [column.title for column in table.columns][3:] == ["before", "converted", "fine-tuned", "control, dense"]
    assert table.texts() == [
        ["a", "perplexity", "10", "16.00", "84.00", "28.00", "11.00"],
        ["b", "cosine with the original", "5", "1.0000", "0.6000", "", ""],
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_one_converted_model(
    tmp_path: Path, open_page: Callable[..., Any], contrasts: Callable[[Any], list[Any]], scheme: str
) -> None:
    out = write_report([write(tmp_path / "enforce-tiny")], tmp_path / "report.html")
    text = story(out)
    for said in (
        "How good is tiny with fewer active neurons?", "<title>Lazy neurons: tiny</title>", "Quality against density",
        "Model: org/tiny; fine-tuned for 30 steps", "judged on 2,032 predictions. Data: Eight texts.", "0123456789ab",
        "Each density of tiny, in numbers", "control, dense", "lazyneuron report enforce-tiny",
    ):  # fmt: skip
        assert said in text, said
    for said in ("Claims", "Density while training", "checked", "result folder enforce-tiny", "compared"):
        assert said not in text, said
    assert {path.name for path in (tmp_path / "charts").iterdir()} == {"enforced-tiny.png", "enforced-tiny.svg"}
    page = open_page(out, width=390, color_scheme=scheme)
    assert page.locator("#enforced-tiny .mark-symbol.role-mark path").count() == 6 * 2
    assert page.locator("#enforced-tiny .mark-line.role-mark path").count() == 2 * 2
    assert page.locator("#enforced-tiny .mark-rule.role-mark line").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert [item for item in contrasts(page) if item[0] < 4.5] == []
    assert page.locator("tbody th[scope=row]", has_text="fine-tuned").count() == 3


def test_converted_models_are_compared_beside_measured_and_trained_ones(
    tmp_path: Path, make_measured: Callable[..., Path], make_folder: Callable[..., Path], open_page: Callable[..., Any]
) -> None:
    small = {("before", 1.0): 1.0, ("converted", 0.05): 0.6, ("sweep", 0.5): 0.9}
    folders = [write(tmp_path / "a"), write(tmp_path / "b", "other", cases=small, main="cosine")]
    folders.append(make_measured(tmp_path / "measure-tiny", "org/tiny"))
    out = write_report(folders, tmp_path / "report.html")
    text = story(out)
    assert "<h1>How many neurons of tiny are active?</h1>" in text
    assert "what\ntiny and other would lose if converted to Top-k" in text
    assert "<title>Lazy neurons: tiny, other</title>" in text
    assert "Quality against density: other" in text
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    page = open_page(out)
    assert page.locator("#compared-quality .mark-line.role-mark path").count() == 2 + 1 + 2
    assert page.locator("#density-tiny").count() == 1
    text = story(write_report([*folders, make_folder(tmp_path / "small", names=("fig1",))], tmp_path / "all.html"))
    assert "The lazy neuron phenomenon, checked" in text
    assert "tiny and other would lose if converted to Top-k" in text


def test_a_run_that_was_stopped_before_any_quality_has_a_page(tmp_path: Path) -> None:
    RunFolder(tmp_path / "stopped", {"name": "enforce", "model": "org/tiny", "finetune": None})
    text = story(write_report([tmp_path / "stopped"], tmp_path / "report.html"))
    assert "Nothing has been judged yet" in text
    assert json.loads((tmp_path / "stopped" / "config.json").read_text())
