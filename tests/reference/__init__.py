"""The formulas against the papers, against other implementations, and against values worked out by hand."""
