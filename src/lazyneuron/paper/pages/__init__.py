"""The paper's experiments as charts, tables and sections of a page."""
