"""Tables of experiments: means and ranges over seeds, the paper's numbers as they are, nothing made up."""

from dataclasses import replace

import pytest

from lazyneuron.paper.pages import numbers
from lazyneuron.paper.pages.experiment import Experiment, Spread
from lazyneuron.paper.pages.numbers import Numbers


def texts(table: Numbers | None, title: str) -> list[str]:
    assert table is not None
    column = [head.replace("\n", " ") for head, _ in table.head].index(title)
    return [row[column][0] for row in table.rows]


@pytest.mark.parametrize(
    ("found", "sign", "expected"),
    [
        (None, False, ("", "")),
        (Spread(mean=0.5, low=0.5, high=0.5, count=3), False, ("50.00", "")),
        (Spread(mean=0.5, low=0.4, high=0.6, count=3), False, ("50.00", "40.00\u201360.00")),
        (Spread(mean=0.01, low=-0.01, high=0.03, count=2), True, ("+1.00", "-1.00 to +3.00")),
    ],
)
def test_cells(found: Spread | None, sign: bool, expected: tuple[str, str]) -> None:
    assert numbers.cell(found, sign=sign) == expected


def test_every_setting_is_a_row(checked: dict[str, Experiment]) -> None:
    table = numbers.by_setting(checked["topk-accuracy"])
    assert texts(table, "neurons kept (% of d_ff)") == ["100", "4", "1", "100", "4", "short"]
    assert texts(table, "model") == ["T5"] * 3 + ["ViT"] * 2 + ["T5"]
    assert texts(table, "accuracy less dense (points)") == ["", "-6.25", "-25.00", "", "-6.25", ""]
    assert texts(table, "natural, end (%)")[:3] == ["", "20.00", "20.00"]
    assert table is not None
    assert "2 seeds each" in table.note
    assert numbers.by_setting(checked["fig3"]) is None


def test_table_1_stands_below_the_papers_in_its_layout(checked: dict[str, Experiment]) -> None:
    table = numbers.table1(checked["table1"])
    assert table is not None
    paper = [(name, "the paper") for name in ("ViT", "Top-128 ViT", "difference")]
    here = [(name, "here") for name in ("ViT", "Top-k ViT", "difference")]
    assert [row[0] for row in table.rows] == [*paper, *here]
    assert texts(table, "natural")[:3] == ["74.85", "74.83", "-0.02"]
    assert texts(table, "ECE")[:3] == ["8.42", "7.48", "-0.94"]
    assert texts(table, "Gaussian")[3:] == ["56.10", "58.10", "+2.00"]
    assert texts(table, "labels 80 %")[3:] == ["25.70", "22.65", "-3.05"]
    half = replace(checked["table1"], members=[m for m in checked["table1"].members if "top" not in m.run.name])
    assert texts(numbers.table1(half), "natural")[4:] == ["", ""]
    assert numbers.table1(replace(checked["table1"], members=[])) is None


def test_firing_stands_beside_the_papers(checked: dict[str, Experiment]) -> None:
    table = numbers.firing_table(checked["fig3"].studies("firing")[0])
    assert texts(table, "the paper (%)") == ["about 50", "93.5", "99", "0.001", "none"]
    assert texts(table, "here (%)") == ["50", "94", "95", "0.001", "0"]


def test_studies_have_their_tables(checked: dict[str, Experiment]) -> None:
    corruptions, latency = checked["corruptions"], checked["latency"]
    table = numbers.mce_table(corruptions, corruptions.studies("robustness")[0])
    assert texts(table, "mCE (% of the first's)") == ["100.00", "96.00"]
    table = numbers.latency_table(latency.studies("latency")[0])
    assert texts(table, "k") == ["32", "128", "2,048"] * 2
    assert texts(table, "dense (ms)") == ["20.5"] * 3 + ["60.5"] * 3
    table = numbers.skipping_table(latency, latency.studies("skipping")[0])
    assert texts(table, "largest error, of the bound") == ["1.300", "1.200"]
    assert texts(table, "density (%)") == ["8.00", "3.00"]
    statistical = checked["statistical-topk"]
    table = numbers.statistical_table(statistical, statistical.studies("statistical")[0])
    assert texts(table, "input") == ["Gaussian input", "ViT"] * 2
    assert texts(table, "overlap with exact top-k") == ["0.705"] * 4


def test_no_records_give_no_table(checked: dict[str, Experiment]) -> None:
    experiment = replace(checked["latency"], members=[])
    empty = replace(checked["latency"].studies("latency")[0], records=[])
    assert numbers.by_setting(experiment) is numbers.firing_table(empty) is numbers.latency_table(empty) is None
    assert numbers.mce_table(experiment, empty) is numbers.skipping_table(experiment, empty) is None
    assert numbers.statistical_table(experiment, empty) is None
