"""The ten sentences of the page's first table, in the order of the paper. Recipes put principal claims under them."""

from dataclasses import replace

from lazyneuron.paper.claim import Claim

SPARSE = "After training few neurons are active in every layer of T5 and ViT, fewest in the middle ones."
DATA = "Training and evaluation data give the same densities; more data or classes change them little."
SIZE = "Larger, deeper and wider models are sparser, though in wider ones more neurons are active."
FIRING = "No neuron of the first layer is dead, and most fire seldom."
THEOREM = "At initialisation a gradient step lowers active pre-activations in expectation."
NOISE = "Sparsity needs neither true labels nor true images nor data that can be fitted."
TOPK = "Few neurons per token are enough."
TIME = "Unbatched decoding gains, larger models and smaller k more."
ROBUST = "Top-k is more robust to noise in labels and images, and better calibrated."
OTHERS = "Sparsity emerges in the MLP-Mixer and the 2-layer MLP, and with other optimizers."


def under(line: str, *claims: Claim) -> tuple[Claim, ...]:
    """The claims with their verdicts under a sentence of the first table: those on an experiment's principal runs."""
    return tuple(replace(claim, line=line) for claim in claims)
