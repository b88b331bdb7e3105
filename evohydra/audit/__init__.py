"""The audit of a winner: what its gain on test rests on, and what it survives."""
