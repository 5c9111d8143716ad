"""Theorem 3.1: at initialisation the expected gradient pushes every active pre-activation down."""

from lazyneuron.paper.experiment import Experiment

THEOREM31 = Experiment(
    name="theorem31",
    folder=__name__,
    title="The first gradient step makes active neurons less active",
    figure="Theorem 3.1",
    expected="positive for every active neuron",
    setup="A random, zero-mean output layer above a ReLU layer; cross-entropy or squared error; labels independent "
    "of that layer. Then the expected gradient on every active pre-activation is positive, so that a step of "
    "gradient descent lowers it, whatever the data.",
    kinds=("theory",),
)
