"""Measure a model: counts and statistics of its activation maps, and the FLOPs and bytes of its parts."""

from lazyneuron.measure.cost import Cost, PartCost, cost
from lazyneuron.measure.probe import Probe, watch

__all__ = ["Cost", "PartCost", "Probe", "cost", "watch"]
