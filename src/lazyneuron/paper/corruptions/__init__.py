"""ImageNet-C's corruptions (arXiv 1903.12261)."""
