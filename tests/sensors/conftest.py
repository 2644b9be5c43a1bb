"""Fixtures of the tests of the file sensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sensors.watching import Watcher, make_course


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course")


@pytest.fixture
def watcher(root: Path) -> Iterator[Watcher]:
    """At work on the course, with nothing seen yet."""
    with Watcher(root) as watcher:
        watcher.forget()  # what LearnPack's files said at the start
        yield watcher
