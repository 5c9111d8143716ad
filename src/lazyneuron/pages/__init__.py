"""Records to charts to one HTML page; imports no model."""

from lazyneuron.pages.page import write_report

__all__ = ["write_report"]
