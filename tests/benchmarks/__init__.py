"""Measurements of speed and memory, run by hand: each prints ratios against a peer or memcpy in the same run."""
