"""Tables of experiments: means and ranges over seeds, the paper's numbers as they are, nothing made up."""

from dataclasses import replace

import pytest

from lazyneuron.paper import tables
from lazyneuron.paper.results import Results, Spread
from tests.paper.records import column


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
    assert tables.cell(found, sign=sign) == expected


def test_every_setting_is_a_row(checked: dict[str, Results]) -> None:
    table = tables.by_setting(checked["topk-accuracy"])
    assert column(table, "neurons kept (% of d_ff)") == ["100", "4", "1", "100", "4", "short"]
    assert column(table, "model") == ["T5"] * 3 + ["ViT"] * 2 + ["T5"]
    assert column(table, "accuracy less dense (points)") == ["", "-6.25", "-25.00", "", "-6.25", ""]
    assert column(table, "natural, end (%)")[:3] == ["", "20.00", "20.00"]
    assert table is not None
    assert "2 seeds each" in table.notes[0]
    assert tables.by_setting(checked["fig3"]) is None
    assert tables.by_setting(replace(checked["latency"], members=[])) is None
