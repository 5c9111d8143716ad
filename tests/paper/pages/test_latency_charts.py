"""Time per token: a panel per size, dense as a line, ranges over seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lazyneuron.pages.charts import Figure
from lazyneuron.paper.pages import latency_charts
from lazyneuron.paper.pages.experiment import Experiment

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]
Data = Callable[..., list[dict[str, Any]]]


def test_time_per_token_has_a_panel_per_size_with_dense_as_a_line(
    checked: dict[str, Experiment], points: Points, data: Data
) -> None:
    _, run = (checked["latency"], checked["latency"].studies("latency")[0])
    figure = latency_charts.time_per_token(run, "x")
    assert [len(rows) for rows in points(figure)] == [5, 5]
    (dense,) = data(figure)
    assert (dense["way"], dense["value"], dense["low"], dense["high"]) == ("dense", 20.5, 20.0, 21.0)
    assert figure is not None
    assert "saves nothing" in figure.caption
    (rows,) = points(latency_charts.speedups(run, "x"))
    assert len(rows) == 2 * 2


def test_no_records_give_no_figure(checked: dict[str, Experiment]) -> None:
    empty = replace(checked["latency"].studies("latency")[0], records=[])
    assert latency_charts.time_per_token(empty, "x") is latency_charts.speedups(empty, "x") is None
