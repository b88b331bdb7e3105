"""Merging: recipes over checkpoints become tensors."""
