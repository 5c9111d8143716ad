"""Figure 3: the firing rate of each neuron of a trained T5, and what the paper says of the first encoder layer."""

from collections.abc import Iterable

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.firing import FIG3, LEAST, UNDER_TENTH
from lazyneuron.paper.firing.run import Firing
from lazyneuron.paper.lines import FIRING, under
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.trainings import t5
from lazyneuron.records.record import Record

SELDOM = 0.10
SELDOM_SHARE = 0.90
_NUM_TOKENS = {"smoke": 2_000}


def fig3(scale: Scale) -> Recipe:
    """Costs a minute beside fig1."""
    run = Firing(name="firing", of=(t5(scale),), num_tokens=_NUM_TOKENS.get(scale, 400_000))
    return Recipe(
        experiment=FIG3, runs=(run,), claims=under(FIRING, no_neuron_dead(run.name), most_fire_seldom(run.name))
    )


def no_neuron_dead(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = _first_encoder_layer(records[run], "never_fired")
        return Seen(found[0].value, f"over {found[0].num_tokens or 0:,} tokens") if found else None

    return Claim(
        name="no-neuron-dead",
        text="No neuron of the first encoder layer is dead over 400,000 tokens.",
        where="Fig. 3",
        metric="neurons that never fired",
        expected="0",
        reported=f"0; the least firing {LEAST:.5f} of the time",
        runs=(run,),
        see=see,
        at_most=0,
        every_seed=True,
    )


def most_fire_seldom(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in _first_encoder_layer(records[run], "fires_below") if r.x == SELDOM]
        return Seen(found[0].value, f"over {found[0].num_tokens or 0:,} tokens") if found else None

    return Claim(
        name="most-fire-seldom",
        text="Most neurons of the first encoder layer fire less than 10 % of the time.",
        where="Fig. 3",
        metric="fraction of its neurons that do",
        expected=f"at least {SELDOM_SHARE} (ours)",
        reported=f"{UNDER_TENTH}",
        runs=(run,),
        see=see,
        at_least=SELDOM_SHARE,
    )


def _first_encoder_layer(records: Iterable[Record], what: str) -> list[Record]:
    return [r for r in records if r.what == what and r.stack in ("encoder", "") and r.layer == 0]
