"""What does a trained model do? Counts and statistics of its activation maps, and what its parts cost."""

from lazyneuron.measure.cost import Cost, PartCost, cost
from lazyneuron.measure.probe import Probe, watch

__all__ = ["Cost", "PartCost", "Probe", "cost", "watch"]
