"""An experiment of the paper: what the paper reports, and the folder that repeats it. Imports no model."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyneuron.paper.options import Scale
    from lazyneuron.paper.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What the paper (arXiv 2210.06313) reports of one figure or table, and where the code is that repeats it.

    `folder` is a package. Its module `recipe` has a function of the scale that bears the experiment's name, its module
    `page` draws the records; a module `run` measures what is not recorded in training. They are imported when they are
    asked for. `numbers` pairs what the paper's text says in numbers with those numbers, `kinds` are the kinds of run
    that the recipe has beside trainings.
    """

    name: str
    folder: str
    title: str
    figure: str
    expected: str
    setup: str = ""
    numbers: tuple[tuple[str, str], ...] = ()
    note: str = ""
    kinds: tuple[str, ...] = ()

    def recipe(self, scale: "Scale") -> "Recipe":
        """Its runs and claims at a scale."""
        function = self.name.replace("-", "_")
        return getattr(import_module(f"{self.folder}.recipe"), function)(scale)

    @property
    def page(self) -> Any:
        """The module whose `add(part, results, name)` adds its charts and tables to a section of the page."""
        return import_module(f"{self.folder}.page")
