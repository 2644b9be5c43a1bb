"""Other users of this machine, for tests that run as root."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def a_user(number: int = 0) -> pwd.struct_passwd:
    """One whom this machine knows, and who is neither root nor whoever runs the tests."""
    others = [entry for entry in pwd.getpwall() if entry.pw_uid not in (0, os.geteuid())]
    if len(others) <= number:
        pytest.skip("this machine has too few users")
    return sorted(others, key=lambda entry: entry.pw_uid)[number]


def open_the_way_to(path: Path) -> None:
    """pytest's directories are for nobody else."""
    for directory in (path, *path.parents):
        status = directory.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & 0o001:
            directory.chmod(0o755)
