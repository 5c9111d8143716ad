"""Controls: does the task need its MLPs? Without that, quality under sparsity says nothing."""

from lazyneuron.paper.experiment import Experiment

CONTROLS = Experiment(
    name="controls",
    folder=__name__,
    title="Are the MLPs used?",
    figure="Beyond the paper",
    expected="the dense model beats one whose MLPs all give 0, and one whose MLPs have a quarter of the neurons",
)
