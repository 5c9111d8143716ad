"""The sentences of the page's first table: what the paper claims, in its order. Recipes put principal claims there."""

from dataclasses import replace

from lazyneuron.paper.claim import Claim

SPARSE = "After training few neurons are active, in T5 as in ViT."
LAYERS = "Every layer is sparse: in encoder, decoder and vision."
ENDS = "The first and the last layers are denser than the middle ones."
SPLITS = "Training and evaluation data give the same densities."
DATA = "More data or more classes change little."
SIZE = "Every size is sparse; larger and deeper models are sparser."
WIDTH = "In wider MLPs a lower fraction of the neurons is active, and more of them."
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
