"""Evolutionary search over recipes that merge existing models."""

from importlib.metadata import version

__version__ = version("evohydra")
