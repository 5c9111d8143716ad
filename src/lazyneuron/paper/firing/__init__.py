"""Figure 3: how often each neuron of the first encoder layer of a trained T5 fires."""

from lazyneuron.paper.experiment import Experiment

BUSIEST, UNDER_TENTH, OVER_HUNDREDTH, LEAST = 0.5, 0.935, 0.99, 0.00001
"""What the paper states: the rate of the busiest neurons, the fractions that fire less than 10 % and more than 1 % of
the time, and the lowest rate."""

FIG3 = Experiment(
    name="fig3",
    folder=__name__,
    title="No neuron is dead, and most fire seldom",
    figure="Figure 3",
    expected="a few neurons fire about 50 % of the time, 93.5 % less than 10 % of it, 99 % more than 1 %; the "
    "least 0.001 %, none never (pretrained T5-Base, first encoder layer, 409,600 tokens)",
    setup="First encoder layer of a pretrained T5-Base, 800 x 512 tokens.",
    numbers=(
        ("a few neurons fire", f"about {100 * BUSIEST:g} %"),
        ("fire less than 10 % of the time", f"{100 * UNDER_TENTH:g} %"),
        ("fire more than 1 % of the time", f"{100 * OVER_HUNDREDTH:g} %"),
        ("the least active fires", f"{100 * LEAST:.3f} %"),
        ("never fire", "none"),
    ),
    kinds=("firing",),
)
