"""Figure 5, Appendix B and section 2: density by layer for each setting."""

from lazyneuron.pages.section import Part
from lazyneuron.paper.results import Results
from lazyneuron.paper.sweep_charts import density_by_setting


def add(part: Part, results: Results, name: str) -> None:
    """Add density by layer; for activation functions, which are compared by quality, it is collapsed."""
    shown = part.more if results.name == "activation" else part.figures
    shown += density_by_setting(results, name)
