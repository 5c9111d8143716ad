"""Which charts and tables an experiment has, beside what the paper says of it."""

import re
from dataclasses import replace

import pytest

from lazyneuron.paper.pages import sections
from lazyneuron.paper.pages.experiment import Experiment
from lazyneuron.paper.pages.paper_side import PAPER, TABLE1, TABLE1_HEAD

CHARTS = {  # seen at once, after a click
    "fig1": (["steps-t5", "steps-t5-long"], ["layers-t5", "curves"]),
    "fig2a": (["layers-t5", "layers-vit"], ["steps-vit", "steps-vit-long", "curves"]),
    "fig2b": (["splits-t5", "splits-vit"], ["curves"]),
    "fig3": (["firing"], []),
    "theorem31": (["cases", "step0"], []),
    "fig4a": (["layers-t5"], ["setting", "curves"]),
    "fig4bc": (["setting"], ["layers-t5", "curves"]),
    "topk-accuracy": (["quality", "difference"], ["layers-t5", "layers-vit", "curves"]),
    "latency": (["time", "speedup"], []),
    "table1": (["reliability", "severity"], ["layers-vit", "curves"]),
    "mixer": (["layers-mlp-mixer"], ["curves"]),
    "activation": ([], ["layers-t5", "curves"]),
    "statistical-topk": (["kept", "time"], ["layers-vit", "curves"]),
    "corruptions": (["relative"], ["severity"]),
}


def slugs(texts: list[str]) -> dict[str, str]:
    return {text: re.sub(r"\W+", "-", text) for text in texts}


@pytest.fixture(scope="module")
def found(checked: dict[str, Experiment]) -> dict[str, sections.Section]:
    names = {section.slug.removeprefix("experiment-"): section for section in made(checked)}
    return names


def made(checked: dict[str, Experiment]) -> list[sections.Section]:
    return sections.sections({"small": list(checked.values())}, slugs)  # type: ignore[arg-type]


def test_sections_are_in_the_order_of_the_experiments(found: dict[str, sections.Section]) -> None:
    assert list(found) == list(CHARTS)


@pytest.mark.parametrize("name", CHARTS)
def test_charts_of_each_experiment(found: dict[str, sections.Section], name: str) -> None:
    (part,) = found[name].parts
    said = tuple([figure.name.removeprefix(f"{name}-") for figure in figures] for figures in (part.figures, part.more))
    assert said == CHARTS[name]
    assert part.missing == []


def test_verdicts_are_counted_where_they_belong(found: dict[str, sections.Section]) -> None:
    assert found["fig1"].counts == {"holds": 3, "does not hold": 1, "cannot tell": 1}
    assert not found["fig2a"].counts


def test_the_papers_side_says_where_it_has_no_numbers(found: dict[str, sections.Section]) -> None:
    assert found["corruptions"].paper is not None
    assert "no number" in sections.says_no_numbers(found["fig4bc"])
    assert sections.says_no_numbers(found["fig1"]) == ""


def test_the_papers_numbers_are_those_of_its_text() -> None:
    assert dict(PAPER["fig1"].numbers)["after training, mean over layers"] == "2.7 %"
    assert dict(PAPER["table1"].numbers)["labels 80 %"] == "+5.45"
    assert all(len(row) == len(TABLE1_HEAD) for row in TABLE1.values())


def test_two_folders_stand_in_one_section(checked: dict[str, Experiment]) -> None:
    both = {"first": [checked["fig4bc"], checked["mixer"]], "second": [checked["mixer"]]}
    wide, mixer = sections.sections(both, slugs)  # type: ignore[arg-type]
    assert [part.label for part in wide.parts] == ["first"]
    assert [part.label for part in mixer.parts] == ["first", "second"]
    names = [figure.name for part in mixer.parts for figure in part.all_figures]
    assert len(set(names)) == len(names)
    assert names[-1].startswith("mixer-second")


def test_experiments_with_no_run_of_their_own_are_named_only(checked: dict[str, Experiment]) -> None:
    waiting = replace(checked["fig4bc"], is_begun=False)
    both = {"first": [checked["mixer"], waiting]}
    assert [section.title for section in sections.sections(both, slugs)] == ["The Mixer too"]  # type: ignore[arg-type]
    assert sections.not_begun(both) == ["Figure 4b and 4c (Wider)"]
    assert sections.not_begun(both | {"second": [checked["fig4bc"]]}) == []
