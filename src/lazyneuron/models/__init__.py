"""Small reference models and builders of the paper's: T5, ViT, MLP-Mixer and the 2-layer MLP, all with ReLU."""

from lazyneuron.models.mixer import MIXER_SIZES, MLPMixer, mixer
from lazyneuron.models.mlp import MLP
from lazyneuron.models.t5 import T5_SIZES, t5
from lazyneuron.models.vit import VIT_SIZES, vit

__all__ = ["MIXER_SIZES", "MLP", "T5_SIZES", "VIT_SIZES", "MLPMixer", "mixer", "t5", "vit"]
