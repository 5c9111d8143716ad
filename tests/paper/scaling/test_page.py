"""The page has the final loss of every training beside its density."""

import pytest

from lazyneuron.paper import tables
from lazyneuron.paper.results import Results
from tests.paper.records import column


@pytest.mark.parametrize("name", ["fig4a", "fig4bc"])
def test_each_training_has_its_loss_beside_its_density(checked: dict[str, Results], name: str) -> None:
    table = tables.by_setting(checked[name])
    losses, densities = column(table, "loss (nats)"), column(table, "density, end (%)")
    assert len(losses) == len(densities) == len(checked[name].members) > 1
    assert all(map(float, losses))
    assert all(map(float, densities))
