"""Claims on the firing rates of the first encoder layer."""

import pytest

from lazyneuron.paper.firing import recipe
from tests.paper.records import case, verdict

FIRST = {"stack": "encoder", "layer": 0, "num_tokens": 400_000}
SECOND = {"stack": "encoder", "layer": 1, "num_tokens": 400_000}


def first(what, value, **more):
    return [case(what, value, "", **FIRST, **more)]


BOTH = [*first("never_fired", 0), case("never_fired", 5, "", **SECOND)]
SELDOM = [*first("fires_below", 0.95, x=0.1), case("fires_below", 0.7, "", x=0.1, **SECOND)]
ANY, EVERY = recipe.no_neuron_dead_anywhere, recipe.seldom_everywhere
JUDGED = [
    (ANY("s"), BOTH, "does not hold", 5),
    (ANY("s"), [*BOTH[:1], case("never_fired", 0, "", **SECOND)], "holds", 0),
    (EVERY("s"), SELDOM, "does not hold", 0.7),
    (EVERY("s"), [*SELDOM[:1], case("fires_below", 0.92, "", x=0.1, **SECOND)], "holds", 0.92),
    (EVERY("s"), first("fires_below", 0.95, x=0.01), "cannot tell", None),
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


def test_the_worst_layer_is_named():
    assert verdict(ANY("s"), {"s": BOTH}).reason == "worst of 2 layers: encoder layer 1, over 400,000 tokens"
    assert "encoder layer 1" in verdict(EVERY("s"), {"s": SELDOM}).reason


def test_the_papers_layer_is_principal_and_all_layers_of_both_models_are_judged():
    claims = [(claim.name, claim.runs, bool(claim.line)) for claim in recipe.fig3("quick").claims]
    assert claims == [
        ("no-neuron-dead", ("firing",), True),
        ("most-fire-seldom", ("firing",), True),
        *((claim("s").name, (run,), False) for run in ("firing", "firing-vit") for claim in (ANY, EVERY)),
    ]
    assert [run.of[0].name for run in recipe.fig3("quick").runs] == ["t5", "vit"]
