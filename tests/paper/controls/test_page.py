"""The page of the controls: a panel for each kind of model, and what the MLPs are worth."""

from lazyneuron.paper.controls import page
from tests.paper.records import column


def test_each_kind_of_model_has_its_measure_and_a_point_for_each_seed(checked, data):
    figure = page.quality_of_controls(checked["controls"], "x")
    vit, t5 = data(figure), data(figure, panel=1)
    assert [row["setting"] for row in vit] == [s for s in ("ViT", "ViT without MLPs", "ViT, a quarter") for _ in (0, 1)]
    assert [row["seed"] for row in t5] == [0, 1] * 3
    assert all(30 < row["value"] < 100 for row in vit)
    assert all(1 < row["value"] < 4 for row in t5)


def test_the_table_says_what_a_control_loses(checked):
    table = page.differences_to_dense(checked["controls"])
    assert column(table, "measure") == ["accuracy"] * 3 + ["loss"] * 3
    gaps = column(table, "dense less the control")
    assert (gaps[0], gaps[3]) == ("", "")
    assert float(gaps[1]) > float(gaps[2]) > 0 > float(gaps[5]) > float(gaps[4])
