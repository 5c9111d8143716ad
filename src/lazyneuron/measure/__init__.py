"""What does a trained model do? Counts and statistics of its activation maps."""

from lazyneuron.measure.watch import Probe, watch

__all__ = ["Probe", "watch"]
