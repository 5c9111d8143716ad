"""Figure 3: the firing rate of each neuron, and what the paper says of the first encoder layer of a pretrained T5.

The paper's figure is of that layer alone. Here all layers are judged too, of T5 and of ViT: where one layer is alive,
others may be dead.

| | the paper | here |
| --- | --- | --- |
| model | T5-Base, pretrained on C4 (12 + 12 layers, d_ff 3,072) | the T5 and the ViT that the scale trains |
| layers | the first of the encoder | that one, and all |
| data | 800 x 512 tokens; of which part of C4 is not known | 400,000 tokens drawn anew from the training data |
| tokens of the decoder | not shown | fewer, as targets are shorter than inputs |
"""

from collections.abc import Iterable

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.density_claims import layer_name
from lazyneuron.paper.firing import FIG3, LEAST, UNDER_TENTH
from lazyneuron.paper.firing.run import Firing
from lazyneuron.paper.lines import FIRING, under
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.trainings import t5, vit
from lazyneuron.records.record import Record

SELDOM = 0.10
SELDOM_SHARE = 0.90
_NUM_TOKENS = {"smoke": 2_000}


def fig3(scale: Scale) -> Recipe:
    """Costs two minutes beside fig2a."""
    count = _NUM_TOKENS.get(scale, 400_000)
    text = Firing(name="firing", of=(t5(scale),), num_tokens=count)
    images = Firing(name="firing-vit", of=(vit(scale),), num_tokens=count)
    return Recipe(
        experiment=FIG3,
        runs=(text, images),
        claims=(
            *under(FIRING, no_neuron_dead(text.name), most_fire_seldom(text.name)),
            *(claim(run.name) for run in (text, images) for claim in (no_neuron_dead_anywhere, seldom_everywhere)),
        ),
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


def no_neuron_dead_anywhere(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in records[run] if r.what == "never_fired"]
        return _worst(max(found, key=lambda r: r.value), len(found)) if found else None

    return Claim(
        name="no-neuron-dead-anywhere",
        text="No neuron of any layer is dead over 400,000 tokens.",
        where="Fig. 3",
        metric="neurons that never fired, in the layer with the most",
        expected="0",
        reported="not reported beyond the first encoder layer",
        runs=(run,),
        see=see,
        at_most=0,
        every_seed=True,
    )


def seldom_everywhere(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in records[run] if r.what == "fires_below" and r.x == SELDOM]
        return _worst(min(found, key=lambda r: r.value), len(found)) if found else None

    return Claim(
        name="most-fire-seldom-everywhere",
        text="Most neurons of every layer fire less than 10 % of the time.",
        where="Fig. 3",
        metric="fraction of its neurons that do, in the layer with the least",
        expected=f"at least {SELDOM_SHARE} (ours)",
        reported="not reported beyond the first encoder layer",
        runs=(run,),
        see=see,
        at_least=SELDOM_SHARE,
    )


def _worst(record: Record, num_layers: int) -> Seen:
    name = layer_name((record.stack, record.layer))
    return Seen(record.value, f"worst of {num_layers} layers: {name}, over {record.num_tokens or 0:,} tokens")


def _first_encoder_layer(records: Iterable[Record], what: str) -> list[Record]:
    return [r for r in records if r.what == what and r.stack in ("encoder", "") and r.layer == 0]
