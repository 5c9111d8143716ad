"""How often each neuron fires: a line per layer and seed, and what the paper states."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lazyneuron.paper.firing import page
from lazyneuron.paper.results import Results
from tests.paper.records import column

Data = Callable[..., list[dict[str, Any]]]


def test_firing_has_a_line_per_layer_and_seed_and_the_papers_points(checked: dict[str, Results], data: Data) -> None:
    _, run = (checked["fig3"], checked["fig3"].studies("firing")[0])
    figure = page.firing_by_rank(run, "x", "T5")
    lines, marks = data(figure), data(figure, layer=1)
    assert len(lines) == 4 * 2
    assert sum(row["which"] == page.FIRST for row in lines) == 2
    assert [(row["rank"], row["value"]) for row in marks] == [(0, 50), (6.5, 10), (99, 1), (100, 0.001)]
    assert figure is not None
    assert len(figure.spec["concat"][1]["layer"]) == 1
    assert "never" in figure.caption
    assert page.firing_by_rank(replace(run, records=[]), "x", "T5") is None


def test_the_first_layer_stands_beside_the_papers(checked: dict[str, Results]) -> None:
    run = checked["fig3"].studies("firing")[0]
    table = page.numbers(run, "T5")
    assert column(table, "the paper") == ["about 50 %", "93.5 %", "99 %", "0.001 %", "none"]
    assert column(table, "here (%)") == ["50", "94", "95", "0.001", "0"]
    assert page.numbers(replace(run, records=[]), "T5") is None


def test_every_layer_has_a_row(checked: dict[str, Results]) -> None:
    run = checked["fig3"].studies("firing")[0]
    table = page.by_layer(run, "T5")
    assert table is not None
    assert [row[0] for row in table.rows] == [f"{s} layer {n}" for s in ("encoder", "decoder") for n in range(4)]
    assert column(table, "neurons that never fire") == ["0", "0", "0", "1"] * 2
    assert column(table, "fire < 10 % of the time (%)") == ["94"] * 8
    assert page.by_layer(replace(run, records=[]), "T5") is None
