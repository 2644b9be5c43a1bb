"""A throw-away root for the tests of the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.package import missing
from tests.packaging.root import Root, why_there_is_none


@pytest.fixture
def root(package: Path, tmp_path: Path) -> Iterator[Root]:
    if why := why_there_is_none():
        missing(f"no throw-away root: {why}")
    with Root(tmp_path) as root:
        yield root
