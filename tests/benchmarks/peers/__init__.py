"""evohydra beside mergekit-evolve and mergenetic: their packages search and merge, one and the same process scores."""
