"""Studies of what trainings left: the final models of sibling folders in, records out."""

from lazyneuron.paper.studies.study import study

__all__ = ["study"]
