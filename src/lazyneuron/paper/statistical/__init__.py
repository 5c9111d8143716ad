"""Beyond the paper: statistical top-k (arXiv 2506.06644), what it keeps and in what time."""

from lazyneuron.paper.experiment import Experiment

STATISTICAL_TOPK = Experiment(
    name="statistical-topk",
    folder=__name__,
    title="Statistical top-k keeps about k",
    figure="Beyond the paper",
    expected="about k of Gaussian input, in O(d) (Spark Transformer, 8 % of the neurons)",
    kinds=("statistical",),
)
