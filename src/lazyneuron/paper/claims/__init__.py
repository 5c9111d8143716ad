"""The paper's claims (arXiv 2210.06313), each a function that says it of some runs; none forces a verdict."""
