"""Scoring: recipes become scores, example by example."""
