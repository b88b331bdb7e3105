"""The suites that every implementation passes, also ones of your own; discovery.py says how to run them on those."""
