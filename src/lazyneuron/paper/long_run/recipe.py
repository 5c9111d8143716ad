"""Figure 1 at length: the shared T5 trained on many more tokens, and the power law of its density."""

import math

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.controls.recipe import dense_beats
from lazyneuron.paper.density_claims import few_active, with_collapse
from lazyneuron.paper.emergence.recipe import every_layer_sparser
from lazyneuron.paper.long_run import LONG_RUN
from lazyneuron.paper.long_run.power_law import LAYERS, extrapolate, mean_densities
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.runs import T5Task, Training
from lazyneuron.paper.trainings import t5, varied, without_mlps

LAW_ERROR = 0.10
_NUM_TOKENS = 100_000_000
_TIMES_THE_STEPS = {"smoke": 2, "quick": 5, "paper": 3}


def long_run(scale: Scale) -> Recipe:
    """Costs one long training of T5 and one without its MLPs: at scale laptop 97,657 steps of 16 x 64 tokens, one seed.

    That is 100 million tokens, counted at the encoder's input: targets are not counted, tokens seen again are. The rate
    is T5X's, 1 / sqrt(max(step, 10,000)), which does not depend on how many steps follow: the run is `t5` continued.

    | | Sparsing Law (arXiv 2411.02335) | here, scale laptop |
    | --- | --- | --- |
    | model | decoder-only, 0.1 to 1.2 billion parameters | T5, 3 + 3 layers, d_model 64, d_ff 512 |
    | density | the neurons that must stay lest perplexity rise by more than 1 % | the nonzero neurons |
    | data | a corpus for pretraining | 2.5 million tokens of the State of the Union addresses, seen 40 times |
    | law | logspace power law with a limit | power law with a floor |
    | judged by | curves fitted to the densities | the last third of the steps, predicted from those before |
    """
    run, control = (_at_length(of, scale) for of in (t5(scale), without_mlps(t5(scale))))
    return Recipe(
        experiment=LONG_RUN,
        num_seeds=1,
        runs=(run, control),
        claims=(
            *dense_beats(run, control),
            few_active(run.name),
            every_layer_sparser(run.name),
            *(follows_a_power_law(run.name, layers) for layers in LAYERS),
        ),
        setting="model",
        settings=("T5, long", "T5, long, without MLPs"),
    )


def _at_length(run: Training, scale: Scale) -> Training:
    """The T5 at length, with many probes; at scale paper on so much more text that little of it is seen twice."""
    assert isinstance(run.task, T5Task)
    if scale == "laptop":
        num_steps = math.ceil(_NUM_TOKENS / (run.batch_size * run.task.input_length))
    else:
        num_steps = _TIMES_THE_STEPS[scale] * run.num_steps
    more_text = {"max_text_bytes": 3 * run.task.max_text_bytes} if scale == "paper" else {}
    return varied(run, "long", num_steps=num_steps, num_probes=24 if scale == "smoke" else 120, **more_text)


def follows_a_power_law(run: str, layers: str) -> Claim:
    """That the law of the first two thirds of the steps predicts the mean density over `layers` in the last third.

    Where a density that no longer changed would be predicted as well, there is no power law to be seen.
    """

    def see(records: Records) -> Seen | None:
        if (found := extrapolate(mean_densities(records[run], layers))) is None:
            return None
        law = found.law
        reason = (
            f"alpha {law.alpha:.3g}, floor {law.floor:.3f}, fitted to {len(found.fitted)} probes and checked on "
            f"{len(found.checked)}; a density that no longer changed would be off by {found.error_unchanged:.3g}"
        )
        is_flat = found.error_unchanged <= found.error <= LAW_ERROR
        return Seen(found.error, with_collapse(reason, records[run]), "cannot tell" if is_flat else None)

    return Claim(
        name="density-follows-a-power-law",
        text="Density falls as a power law of the tokens.",
        where="arXiv 2411.02335",
        metric="largest relative error, over the last third of the steps, of the law fitted before",
        expected=f"at most {LAW_ERROR:.2f}, and below that of a density that no longer changes (ours)",
        runs=(run,),
        on=f"{run}, {layers}",
        see=see,
        at_most=LAW_ERROR,
    )
