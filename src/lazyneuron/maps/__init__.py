"""Activation maps of a model as it runs: which module owns a weight, which tokens are real, and `lazy.capture`."""

from lazyneuron.maps.capture import CapturedMaps, capture

__all__ = ["CapturedMaps", "capture"]
