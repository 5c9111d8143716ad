"""Time per token: a panel per size, dense as a line, ranges over seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lazyneuron.pages.charts import Figure
from lazyneuron.paper.latency import page
from lazyneuron.paper.results import Results
from tests.paper.records import column

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]
Data = Callable[..., list[dict[str, Any]]]


def test_time_per_token_has_a_panel_per_size_with_dense_as_a_line(
    checked: dict[str, Results], points: Points, data: Data
) -> None:
    _, run = (checked["latency"], checked["latency"].studies("latency")[0])
    figure = page.time_per_token(run, "x")
    assert [len(rows) for rows in points(figure)] == [5, 5]
    (dense,) = data(figure)
    assert (dense["way"], dense["value"], dense["low"], dense["high"]) == ("dense", 20.5, 20.0, 21.0)
    assert figure is not None
    assert "saves nothing" in figure.caption
    (rows,) = points(page.speedups(run, "x"))
    assert len(rows) == 2 * 2


def test_no_records_give_no_figure(checked: dict[str, Results]) -> None:
    empty = replace(checked["latency"].studies("latency")[0], records=[])
    assert page.time_per_token(empty, "x") is page.speedups(empty, "x") is None


def test_tables_of_decoding_and_of_skipping(checked: dict[str, Results]) -> None:
    latency = checked["latency"]
    run = latency.studies("latency")[0]
    table = page.numbers(run)
    assert column(table, "k") == ["32", "128", "2,048"] * 2
    assert column(table, "dense (ms)") == ["20.5"] * 3 + ["60.5"] * 3
    table = page.skipping_numbers(latency, latency.studies("skipping")[0])
    assert column(table, "largest error, of the bound") == ["1.300", "1.200"]
    assert column(table, "density (%)") == ["8.00", "3.00"]
    empty = replace(run, records=[])
    assert page.numbers(empty) is page.skipping_numbers(latency, empty) is None
