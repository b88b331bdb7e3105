"""mergekit's results as fixtures, and a live comparison with it."""
