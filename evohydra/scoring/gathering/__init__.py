"""Passes of source models over texts: sums of the inputs of their linear layers, and of their gradients."""
