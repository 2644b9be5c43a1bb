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
from ..core.events import TestResult
from ..core.json_as_node import read_as_node
from ..core.observations import ConfigRead, Observation, QueueEntry, QueueRead, ReportRead
from ..core.printed import shortened
from .picture import LEARNPACK_LIMIT, parent_of, read_regular


def session_of(course: Course) -> dict[str, str]:
    """The texts of the student's LearnPack session (`token`, `email`, ...); {} where nobody is logged in."""
    return {key: value for key, value in _session(course).items() if isinstance(value, str)}


def user_id_of(course: Course) -> int | str | None:
    """The 4Geeks user id of the student who is logged in to LearnPack; None where nobody is."""
    found = _session(course).get("user_id")
    return found if isinstance(found, (int, str)) and not isinstance(found, bool) else None


def is_logged_in(course: Course) -> bool:
    """Whether a student is logged in to LearnPack in this course.  Nothing of the session is kept."""
    return bool(_session(course))


def config_trouble(course: Course) -> str | None:
    """Why LearnPack can't start on its own config.json, in words; None where it can.

    LearnPack 2.1.34 that is killed in the middle of writing it leaves it empty, and then never starts again.
    """
    path = f"{course.base}/config.json"
    try:
        _, content = read_regular(os.path.join(course.root, path), LEARNPACK_LIMIT)
        if content is not None:
            read_as_node(content, orjson.loads)
    except OSError:
        return None
    except orjson.JSONDecodeError:
        return f"{path} is no JSON, and LearnPack can't start: delete it, LearnPack makes it anew"
    return None


def _session(course: Course) -> dict[str, Any]:
    """node-persist keeps the session in `.session`, a file per key, `{"key": "bc-payload", "value": {"token": …}}` (CLI
    2.1.34); it is what the 4Geeks API answered to the login."""
    directory = os.path.join(course.root, course.base, ".session")
    try:
        names = os.listdir(directory)
    except OSError:
        return {}
    return next(filter(None, (_session_in(os.path.join(directory, name)) for name in names[:_SESSION_FILES])), {})


def _session_in(path: str) -> dict[str, Any]:
    try:
        _, content = read_regular(path, LEARNPACK_LIMIT)
        item = read_as_node(content or b"null", orjson.loads)
    except (OSError, orjson.JSONDecodeError):
        return {}
    payload = item.get("value") if isinstance(item, dict) and item.get("key") == "bc-payload" else None
    return payload if isinstance(payload, dict) and payload.get("token") else {}


def parse_learnpack_file(course: Course, relative_path: str, content: bytes, at: int) -> Observation | None:
    """The observation that this content of a file of the course's LearnPack directory is, or None if it says nothing
    (yet): it is no JSON, or of no interest."""
    reader = _reader_of(course, relative_path)
    if reader is None:
        return None
    try:
        data = read_as_node(content, orjson.loads)
    except orjson.JSONDecodeError:
        return None
    name = relative_path.rpartition("/")[2]
    return reader(data, printable(name.removesuffix(".json")), at)


#: A session is one file; a directory full of others is not searched.
_SESSION_FILES = 32

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
    suites = data.get("testResults")
    messages = [item.get("message") for item in suites if isinstance(item, dict)] if isinstance(suites, list) else []
    message = "\n".join(text for text in messages if isinstance(text, str) and text)
    return ReportRead(at, slug, passed, failed, failed_suites, shortened(message), _results(data.get("failed")))


#: jest's words for the status of a test (`Status` of @jest/test-result 29), and ours.
_STATUS = {
    "passed": "passed",
    "failed": "failed",
    "skipped": "skipped",
    "pending": "skipped",
    "todo": "skipped",
    "disabled": "skipped",
}

#: A test file has some ten tests with titles of a line.
_MOST_RESULTS, _LONGEST_TITLE = 1_000, 1_000


def _results(failed: Any) -> tuple[TestResult, ...]:
    """LearnPack's reporter lists all tests as `failed`, also those that passed; the first 1,000 are taken."""
    results = []
    for item in failed[:_MOST_RESULTS] if isinstance(failed, list) else ():
        if isinstance(item, dict):
            title, status = item.get("title"), item.get("status")
            if isinstance(title, str) and isinstance(status, str) and status in _STATUS:
                results.append(TestResult(title[:_LONGEST_TITLE], _STATUS[status]))
    return tuple(results)


_READERS: Mapping[str, _Reader] = {"vscode_queue.json": _queue, "config.json": _config}
