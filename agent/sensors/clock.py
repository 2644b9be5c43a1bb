"""The clock of all sensors: wall time in integer milliseconds since the epoch.

Promised: nothing else.  Who needs another clock (deadlines, durations) takes `time.monotonic` itself.
Known to be weak: a stamp of the kernel's monotonic clock is placed on the wall clock as it is set now; what
happened before the clock was set is moved by as much.
"""

from __future__ import annotations

import time


def now_ms() -> int:
    """The wall clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


def ms_of_monotonic_ns(ns: int) -> int:
    """The wall time (ms) of a kernel stamp of CLOCK_MONOTONIC (ns)."""
    return (time.time_ns() - (time.monotonic_ns() - ns)) // 1_000_000
