"""Recordings: the observations of one life of the agent, one JSON line each, and playing them again.

A trace begins with a header (the settings and what the inference knew at the start) and holds every observation
and every deadline that the inference was asked about.  `replay` gives them to a fresh inference: the same events
come out, byte for byte, in milliseconds.  A trace holds facts only, but these include source texts and command
lines of the student's own runs: it is made when asked for (`run --record`), with mode 0600, and sent nowhere.

Known to be weak: a FIFO that nobody empties holds up the agent that records into it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from .core.codec import from_plain, observation_from, to_plain
from .core.course import Course
from .core.events import Event
from .core.inference import Inference, Settings, Snapshot
from .core.observations import CourseRead, Observation

log = logging.getLogger("learnpack-agent")

FORMAT = "learnpack-agent trace 1"


class TraceError(Exception):
    """A file that is no trace, or a damaged one; one line that names the place."""


class TraceWriter:
    """Writes a trace file of mode 0600.

    A file that can't be opened is an OSError.  When it takes no more later (a full disk, a FIFO whose reader went
    away) the recording ends, which is logged once: the agent's work is not the recording.
    """

    def __init__(self, path: str, settings: Settings, snapshot: Snapshot) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._path = path
        self._file: IO[str] | None = os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8")
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            os.fchmod(self._file.fileno(), 0o600)  # it may have been there before
        self._line({"format": FORMAT, "settings": to_plain(settings), "snapshot": to_plain(snapshot)})

    def observation(self, seen: Observation) -> None:
        self._line({"observation": to_plain(seen)})

    def deadline(self, now: int) -> None:
        self._line({"deadline": now})

    def _line(self, content: object) -> None:
        if self._file is None:
            return
        # The standard json module: it writes undecodable bytes of file names (surrogates) as escapes.
        line = json.dumps(content, ensure_ascii=True, separators=(",", ":")) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            log.error("the recording in %s ends here: %s", self._path, error)
            self.close()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what was not written was said above
                self._file.close()
            self._file = None


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
            if not isinstance(content, dict):
                raise ValueError("not an object")
            if inference is None:
                if content.get("format") != FORMAT:
                    raise TraceError(f"{path}: not a trace of this agent (no {FORMAT!r} in line 1)")
                inference = Inference.resumed(
                    from_plain(Snapshot, content["snapshot"]), from_plain(Settings, content["settings"])
                )
            elif "deadline" in content:
                yield from inference.handle_deadline(from_plain(int, content["deadline"]))
            else:
                seen = observation_from(content["observation"])
                if course is not None and isinstance(seen, CourseRead):
                    seen = replace(seen, course=course)
                yield from inference.receive(seen)
        except KeyError as error:
            raise TraceError(f"{path}: line {number}: no {error}") from None
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{path}: line {number}: {error}") from None
    if inference is None:
        raise TraceError(f"{path}: empty")
