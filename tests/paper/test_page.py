"""Which charts and tables an experiment has, beside what the paper says of it."""

from dataclasses import replace

import pytest

from lazyneuron.pages.section import Section
from lazyneuron.paper import page
from lazyneuron.paper.results import Results
from lazyneuron.paper.table1 import HEAD, ROWS


def over_steps(run: str) -> list[str]:
    return [f"{what}-{run}" for what in ("steps", "idle", "inputs")]


CHARTS = {  # seen at once, after a click
    "fig1": (over_steps("t5"), ["layers-t5", "curves"]),
    "fig2a": (["layers-t5", "layers-vit"], [*over_steps("vit"), "curves"]),
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
    "long-run": (["law", *over_steps("t5-long")], ["curves"]),
    "controls": (["quality"], ["curves"]),
    "statistical-topk": (["kept", "time"], ["layers-vit", "curves"]),
    "corruptions": (["relative"], ["severity"]),
}


@pytest.fixture(scope="module")
def found(checked: dict[str, Results]) -> dict[str, Section]:
    names = {section.slug.removeprefix("experiment-"): section for section in made(checked)}
    return names


def made(checked: dict[str, Results]) -> list[Section]:
    return page.sections({"small": list(checked.values())})


def test_sections_are_in_the_order_of_the_experiments(found: dict[str, Section]) -> None:
    assert list(found) == list(CHARTS)


@pytest.mark.parametrize("name", CHARTS)
def test_charts_of_each_experiment(found: dict[str, Section], name: str) -> None:
    (part,) = found[name].parts
    said = tuple([figure.name.removeprefix(f"{name}-") for figure in figures] for figures in (part.figures, part.more))
    assert said == CHARTS[name]
    assert part.missing == []


def test_verdicts_are_counted_where_they_belong(found: dict[str, Section]) -> None:
    assert found["fig1"].counts == {"holds": 3, "does not hold": 1, "cannot tell": 1}
    assert not found["fig2a"].counts


def test_checks_are_counted_apart(checked: dict[str, Results]) -> None:
    holds, *others = checked["fig1"].verdicts
    changed = replace(checked["fig1"], verdicts=[replace(holds, is_check=True), *others])
    (section,) = page.sections({"small": [changed]})
    assert section.counts == {"holds": 2, "does not hold": 1, "cannot tell": 1}
    assert section.checks == section.parts[0].checks == "1 of 1 check passes"


def test_the_papers_side_says_where_it_has_no_numbers(found: dict[str, Section]) -> None:
    assert found["corruptions"].figure
    assert "no number" in found["fig4bc"].note
    assert found["fig1"].note == ""


def test_the_papers_numbers_are_those_of_its_text(found: dict[str, Section]) -> None:
    assert dict(found["fig1"].numbers)["after training, mean over layers"] == "2.7 %"
    assert dict(found["table1"].numbers)["labels 80 %"] == "+5.45"
    assert all(len(row) == len(HEAD) for row in ROWS.values())


def test_two_folders_stand_in_one_section(checked: dict[str, Results]) -> None:
    both = {"first": [checked["fig4bc"], checked["mixer"]], "second": [checked["mixer"]]}
    wide, mixer = page.sections(both)
    assert [part.label for part in wide.parts] == ["first"]
    assert [part.label for part in mixer.parts] == ["first", "second"]
    names = [figure.name for part in mixer.parts for figure in (*part.figures, *part.more)]
    assert len(set(names)) == len(names)
    assert names[-1].startswith("mixer-second")


def test_experiments_with_no_run_of_their_own_are_named_only(checked: dict[str, Results]) -> None:
    waiting = replace(checked["fig4bc"], is_begun=False)
    both = {"first": [checked["mixer"], waiting]}
    assert [section.title for section in page.sections(both)] == ["The Mixer too"]
    assert page.not_begun(both) == ["Figure 4b and 4c (Wider)"]
    assert page.not_begun(both | {"second": [checked["fig4bc"]]}) == []
