"""Figures 2c to 2f and 4: density by layer for each setting, and over a setting that is a number."""

from lazyneuron.pages.section import Part
from lazyneuron.paper.results import Results
from lazyneuron.paper.sweep_charts import density_by_setting, density_over_setting


def add(part: Part, results: Results, name: str) -> None:
    """Add density by layer; for Figure 4b and c first over the width."""
    layers = density_by_setting(results, name)
    sweep = [figure for figure in [density_over_setting(results, name)] if figure]
    first, later = (sweep, layers) if results.name == "fig4bc" else (layers, sweep)
    part.figures += first
    part.more += later
