"""Quality against neurons kept: a point per seed, dense included, and differences paired by seed."""

from collections.abc import Callable
from typing import Any

import pytest

from lazyneuron.pages.charts import Figure
from lazyneuron.paper.results import Results
from lazyneuron.paper.topk import page

Points = Callable[[Figure | None], list[list[dict[str, Any]]]]


def test_quality_has_a_point_per_seed_of_each_share_and_of_the_dense_model(
    checked: dict[str, Results], points: Points
) -> None:
    figure = page.quality_against_kept(checked["topk-accuracy"], "x")
    panels = points(figure)
    assert [len(rows) for rows in panels] == [6, 6, 4, 4]
    assert {row["percent"] for row in panels[0]} == {100.0, 4.0, 1.0}
    assert "t5-short" not in {row["run"] for rows in panels for row in rows}
    assert figure is not None
    assert [panel["title"] for panel in figure.spec["concat"]] == ["T5", "T5", "ViT", "ViT"]


def test_differences_are_to_the_dense_model_of_the_same_seed(checked: dict[str, Results], points: Points) -> None:
    t5, vit = points(page.difference_to_dense(checked["topk-accuracy"], "x"))
    assert [(row["percent"], row["seed"]) for row in t5] == [(4.0, 0), (4.0, 1), (1.0, 0), (1.0, 1)]
    assert [row["value"] for row in vit] == pytest.approx([-6.25, -6.25])


def test_only_a_sweep_of_selections_is_one(checked: dict[str, Results]) -> None:
    assert checked["topk-accuracy"].has_selections
    assert not checked["fig4bc"].has_selections
    assert not checked["table1"].has_selections
