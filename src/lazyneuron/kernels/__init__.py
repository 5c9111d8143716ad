"""Operators on activation maps and weights: what each means in plain PyTorch, and its CPU kernel on torch's threads."""
