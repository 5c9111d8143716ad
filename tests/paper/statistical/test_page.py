"""Statistical top-k: neurons kept by layer and time over width, over seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lazyneuron.pages.charts import Figure
from lazyneuron.paper.results import Results
from lazyneuron.paper.statistical import page
from tests.paper.records import column

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]


def test_statistical_charts_have_layers_and_widths(checked: dict[str, Results], points: Points) -> None:
    experiment, run = (checked["statistical-topk"], checked["statistical-topk"].studies("statistical")[0])
    (kept,) = points(page.kept_by_layer(experiment, run, "x"))
    assert len(kept) == 6 * 2
    assert {row["value"] for row in kept} == {1.105}
    (time,) = points(page.time_over_width(run, "x"))
    assert [(row["call"], row["width"]) for row in time] == [
        (call, width) for call in ("exact top-k", "statistical top-k") for width in (1024.0, 4096.0)
    ]


def test_no_records_give_no_figure(checked: dict[str, Results]) -> None:
    experiment = checked["statistical-topk"]
    empty = replace(experiment.studies("statistical")[0], records=[])
    assert page.kept_by_layer(experiment, empty, "x") is None
    assert page.time_over_width(empty, "x") is None


def test_what_is_kept_in_numbers(checked: dict[str, Results]) -> None:
    statistical = checked["statistical-topk"]
    run = statistical.studies("statistical")[0]
    table = page.numbers(statistical, run)
    assert column(table, "input") == ["Gaussian input", "ViT"] * 2
    assert column(table, "overlap with exact top-k") == ["0.705"] * 4
    assert page.numbers(statistical, replace(run, records=[])) is None
