"""Waiting for events: no test says how fast a machine has to be, only that nothing hangs."""

import time
from collections.abc import Callable

HANGS = 600.0  # seconds after which a test has hung, on any machine


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so; AssertionError where it has not come after `HANGS` seconds."""
    until = time.monotonic() + HANGS
    while not what():
        assert time.monotonic() < until, f"it has not come within {HANGS:.0f} s"
        time.sleep(0.1)
