"""Waiting for something to come to be, without a guess at how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(is_so: Callable[[], object], timeout: float = 60.0, every: float = 0.002) -> None:
    """Returns when it is so; looks every so many seconds.  Raises AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError("it did not come to be")
        time.sleep(every)
