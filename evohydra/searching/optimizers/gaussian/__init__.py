"""Gaussian processes over genomes, and where they say that a search should look next."""
