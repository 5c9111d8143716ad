"""Time per token: a panel per size, dense as a line, ranges over seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lazyneuron.pages.charts import Figure
from lazyneuron.paper.latency import page
from lazyneuron.paper.results import Results
from tests.paper.records import column

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]
Data = Callable[..., list[dict[str, Any]]]


def test_time_per_token_has_a_panel_per_size_with_dense_as_lines(
    checked: dict[str, Results], points: Points, data: Data
) -> None:
    """Seed 0 takes 20, 22 and 24 ms in its rounds, seed 1 a millisecond more and as much slower."""
    run = checked["latency"].studies("latency")[0]
    figure = page.time_per_token(run, "x")
    assert [len(rows) for rows in points(figure)] == [6, 6]
    dense, threads = data(figure)
    found = (dense["way"], dense["value"], dense["low"], dense["high"])
    assert found == ("dense", pytest.approx(22.55), pytest.approx(22.0), pytest.approx(23.1))
    assert (threads["way"], threads["value"]) == ("dense, our threads", pytest.approx(18.5))
    assert figure is not None
    assert "saves nothing" in figure.caption
    (rows,) = points(page.speedups(run, "x"))
    assert len(rows) == 2 * 3
    assert rows[0]["value"] == pytest.approx(1 / 0.7032 + 0.01, abs=1e-3)


def test_no_records_give_no_figure(checked: dict[str, Results]) -> None:
    empty = replace(checked["latency"].studies("latency")[0], records=[])
    assert page.time_per_token(empty, "x") is page.speedups(empty, "x") is None


def test_tables_of_decoding_and_of_skipping(checked: dict[str, Results]) -> None:
    latency = checked["latency"]
    run = latency.studies("latency")[0]
    table = page.numbers(run)
    assert column(table, "k") == ["32", "128", "2,048", "dense, our threads"] * 2
    assert column(table, "dense (ms)") == ["22.55"] * 4 + ["66.55"] * 4
    assert column(table, "speed-up over dense") == ["1.43", "1.41", "1.12", "1.11"] * 2
    assert column(table, "over dense on our threads") == ["1.28", "1.26", "0.99", "1.00"] * 2
    assert table is not None
    assert table.rows[0][2] == ("22.55", "least 20")
    assert table.rows[0][5] == ("1.43", "1.42\u20131.44")
    assert table.rows[3][4] == ("18.5", "least 18")
    table = page.skipping_numbers(latency, latency.studies("skipping")[0])
    assert column(table, "largest error, of the bound") == ["1.300", "1.200"]
    assert column(table, "density (%)") == ["8.00", "3.00"]
    empty = replace(run, records=[])
    assert page.numbers(empty) is page.skipping_numbers(latency, empty) is None
