"""Claims on the firing rates of the first encoder layer."""

import pytest

from lazyneuron.paper.firing import recipe
from tests.paper.records import case, verdict

FIRST = {"stack": "encoder", "layer": 0, "num_tokens": 400_000}
SECOND = {"stack": "encoder", "layer": 1, "num_tokens": 400_000}


def first(what, value, **more):
    return [case(what, value, "", **FIRST, **more)]


JUDGED = [
    (recipe.no_neuron_dead("s"), [*first("never_fired", 0), case("never_fired", 5, "", **SECOND)], "holds", 0),
    (recipe.no_neuron_dead("s"), first("never_fired", 1), "does not hold", 1),
    (recipe.most_fire_seldom("s"), first("fires_below", 0.95, x=0.1), "holds", 0.95),
    (recipe.most_fire_seldom("s"), first("fires_below", 0.5, x=0.1), "does not hold", 0.5),
    (recipe.most_fire_seldom("s"), first("fires_below", 0.5, x=0.01), "cannot tell", None),
]


@pytest.mark.parametrize(("claim", "records", "expected", "value"), JUDGED)
def test_a_claim_is_judged_by_the_records(claim, records, expected, value):
    found = verdict(claim, {"s": records})
    assert (found.verdict, found.value) == (expected, None if value is None else pytest.approx(value))
    assert verdict(claim, {"s": []}).verdict == "cannot tell"
