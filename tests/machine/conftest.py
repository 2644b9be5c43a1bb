"""A machine for each file of tests, with students and courses of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.lab import Lab, new_lab
from tests.machine.machine import why_there_is_none
from tests.packaging.package import missing


@pytest.fixture(scope="module")
def lab(package: Path) -> Iterator[Lab]:
    if why := why_there_is_none():
        missing(f"no machine with systemd: {why}")
    with new_lab(package) as lab:
        yield lab
