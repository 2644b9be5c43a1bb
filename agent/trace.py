"""Recordings: the observations of one life of the agent, one JSON line each, and playing them again.

A trace begins with a header (the settings and what the inference knew at the start) and holds every observation
and every deadline that the inference was asked about.  `replay` gives them to a fresh inference: the same events
come out, byte for byte, in milliseconds.  A trace holds facts only, but these include source texts and command
lines of the student's own runs: it is made when asked for (`run --record`), with mode 0600, and sent nowhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from .core.codec import from_plain, observation_from, to_plain
from .core.course import Course
from .core.events import Event
from .core.inference import Inference, Settings, Snapshot
from .core.observations import CourseRead, Observation

FORMAT = "learnpack-agent trace 1"


class TraceError(Exception):
    """A file that is no trace, or a damaged one; one line that names the place."""


class TraceWriter:
    """Appends to a trace file; creates it with mode 0600."""

    def __init__(self, path: str, settings: Settings, snapshot: Snapshot) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._file: IO[str] = os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8")
        self._line({"format": FORMAT, "settings": to_plain(settings), "snapshot": to_plain(snapshot)})

    def observation(self, seen: Observation) -> None:
        self._line({"observation": to_plain(seen)})

    def deadline(self, now: int) -> None:
        self._line({"deadline": now})

    def _line(self, content: object) -> None:
        # The standard json module: it writes undecodable bytes of file names (surrogates) as escapes.
        self._file.write(json.dumps(content, ensure_ascii=True, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def replay(path: str, course: Course | None = None) -> Iterator[Event]:
    """The events that the recorded observations lead to; with `course` in the place of the recorded course.

    Raises TraceError for a file that is no trace, naming the line.  A last line without its end (the recording
    agent was killed) is left out.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            yield from _replay(path, stream, course)
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: {error}") from None


def _replay(path: str, stream: IO[str], course: Course | None) -> Iterator[Event]:
    inference: Inference | None = None
    for number, line in enumerate(stream, start=1):
        if not line.endswith("\n"):
            return
        try:
            content = json.loads(line)
            if inference is None:
                if content.get("format") != FORMAT:
                    raise TraceError(f"{path}: not a trace of this agent (no {FORMAT!r} in line 1)")
                inference = Inference.resumed(
                    from_plain(Snapshot, content["snapshot"]), from_plain(Settings, content["settings"])
                )
            elif "deadline" in content:
                yield from inference.handle_deadline(content["deadline"])
            else:
                seen = observation_from(content["observation"])
                if course is not None and isinstance(seen, CourseRead):
                    seen = replace(seen, course=course)
                yield from inference.receive(seen)
        except (ValueError, KeyError, AttributeError) as error:
            raise TraceError(f"{path}: line {number}: {error}") from None
    if inference is None:
        raise TraceError(f"{path}: empty")
