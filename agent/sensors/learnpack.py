"""Turns what LearnPack wrote into observations: its queue, its configuration, its reports.

Promised: no content makes this fail.  LearnPack writes in place and not atomically, so a reader may see a file
empty or half: what does not parse yields None, and is read again when the file changes again.  LearnPack's own
telemetry.json is not read here.

What the files mean is in `agent.core.observations`; when they are read is decided in `files/sensor.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..core.course import Course, printable
from ..core.observations import ConfigRead, Observation, QueueEntry, QueueRead, ReportRead
from .picture import LEARNPACK_LIMIT, parent_of, read_regular


def read_learnpack_file(course: Course, relative_path: str, at: int) -> Observation | None:
    """The observation that this file of the course's LearnPack directory is, or None if it says nothing (yet).

    None for a file that is absent, unreadable, larger than 8 MiB, not valid JSON, or of no interest.
    """
    if _reader_of(course, relative_path) is None:
        return None
    try:
        _, content = read_regular(os.path.join(course.root, relative_path), LEARNPACK_LIMIT)
    except OSError:
        return None  # it was there a moment ago; its next change is another event
    return None if content is None else parse_learnpack_file(course, relative_path, content, at)


def parse_learnpack_file(course: Course, relative_path: str, content: bytes, at: int) -> Observation | None:
    """The same from content that was read already."""
    reader = _reader_of(course, relative_path)
    if reader is None:
        return None
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    name = relative_path.rpartition("/")[2]
    return reader(data, printable(name.removesuffix(".json")), at)


_Reader = Callable[[Any, str, int], Observation | None]


def _reader_of(course: Course, relative_path: str) -> _Reader | None:
    directory, name = parent_of(relative_path), relative_path.rpartition("/")[2]
    if directory == course.base:
        return _READERS.get(name)
    if directory == f"{course.base}/reports" and name.endswith(".json"):
        return _report
    return None


def _queue(data: Any, _: str, at: int) -> QueueRead | None:
    if not isinstance(data, list):
        return None
    entries = []
    for item in data:
        if isinstance(item, dict) and isinstance(name := item.get("name"), str):
            slug = item.get("data")
            entries.append(QueueEntry(name, slug if isinstance(slug, str) else None, str(item.get("time", ""))))
    return QueueRead(at, tuple(entries))


def _config(data: Any, _: str, at: int) -> ConfigRead | None:
    if not isinstance(data, dict):
        return None
    current = data.get("currentExercise")
    return ConfigRead(at, current if isinstance(current, str) and current else None)


#: jest's counts, in the order of ReportRead's fields.
_COUNTS = ("numPassedTests", "numFailedTests", "numFailedTestSuites")


def _report(data: Any, slug: str, at: int) -> ReportRead | None:
    if not isinstance(data, dict):
        return None
    # `type`: to isinstance, True is an int.
    counts = [count for key in _COUNTS if type(count := data.get(key)) is int and count >= 0]
    if len(counts) < len(_COUNTS):
        return None
    passed, failed, failed_suites = counts
    return ReportRead(at, slug, passed, failed, failed_suites)


_READERS: Mapping[str, _Reader] = {"vscode_queue.json": _queue, "config.json": _config}
