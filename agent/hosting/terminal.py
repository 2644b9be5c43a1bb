"""Whether this process belongs to a terminal."""

from __future__ import annotations

import os


def has_terminal() -> bool:
    """Whether it has a controlling terminal, which tells its end with SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
