"""Check the paper: recipes, their data and training, the theorem, and claims with verdicts."""
