"""Section 4: the wall time of unbatched decoding under Top-k, and what skipping inactive neurons changes."""

from lazyneuron.paper.experiment import Experiment

LESS_TIME = 0.10
"""How much less time a token takes in T5-11B at k up to 128."""

LATENCY = Experiment(
    name="latency",
    folder=__name__,
    title="Unbatched decoding gains",
    figure="Section 4, wall time per token",
    expected="larger models gain more; T5-11B about 10 % less time a token for k <= 128 (TPUv4, approximate top-k)",
    setup="T5's decoder, unbatched and greedy, on one TPUv4, by approximate top-k with a recall of 0.95.",
    numbers=(("less time per token for T5-11B at k up to 128", f"about {100 * LESS_TIME:g} %"),),
    note="Skipping exact zeros changes no output; the second product of an MLP falls to the active neurons' share, "
    "at 2.7 % by 97.3 %.",
    kinds=("latency", "skipping"),
)
