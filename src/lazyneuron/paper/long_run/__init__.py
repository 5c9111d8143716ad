"""Beyond the paper: Figure 1's training at length, and whether its density follows a power law (arXiv 2411.02335)."""

from lazyneuron.paper.experiment import Experiment

LONG_RUN = Experiment(
    name="long-run",
    folder=__name__,
    title="Does the density follow a power law of the tokens?",
    figure="Beyond the paper",
    expected="Figure 1 at length; in ReLU language models the density falls towards a limit, as a logspace power law "
    "of the tokens (Sparsing Law, arXiv 2411.02335)",
)
