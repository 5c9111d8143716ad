"""Small reference models and builders of the paper's: T5, ViT, MLP-Mixer, ResNet and the 2-layer MLP, all with ReLU."""

from lazyneuron.paper.models.mixer import MIXER_SIZES, MLPMixer, mixer
from lazyneuron.paper.models.mlp import MLP
from lazyneuron.paper.models.resnet import RESNET_SIZES, ResNet, resnet
from lazyneuron.paper.models.t5 import T5_SIZES, t5
from lazyneuron.paper.models.vit import VIT_SIZES, vit

__all__ = [
    "MIXER_SIZES",
    "MLP",
    "RESNET_SIZES",
    "T5_SIZES",
    "VIT_SIZES",
    "MLPMixer",
    "ResNet",
    "mixer",
    "resnet",
    "t5",
    "vit",
]
