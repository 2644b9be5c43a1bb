"""How the agent of one course fares, in a few numbers: what `status --all` and `metrics` show of many.

Read by the user who may read it (root becomes that user first), from the state directory alone; the course itself is
only read for the URLs that its learn.json names.  Nothing is written, no record is read: 50 courses are looked at in
the time of one `status`.

A journal says itself which course it is of (`status`, since the agent's first start), and that is the word of the user
whose it is: nothing may be done with such a path but with that user's rights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from .config import Config, course_key
from .core.course import Course, one_line
from .sending import sinks_of
from .sensors.clock import now_ms
from .sensors.course import CourseError, read_course
from .store.control import NAME as CONTROL
from .store.control import read_control
from .store.journal import NAME as JOURNAL
from .store.journal import Journal, JournalError
from .store.lock import NAME as LOCK
from .store.lock import holder
from .store.outbox import OutboxError


@dataclass(frozen=True, slots=True)
class Sight:
    """How a sensor sees: "connector", "pidfd", "polling", "inotify", … and what it can't, "" for nothing."""

    level: str
    blind_to: str = ""


@dataclass(frozen=True, slots=True)
class CourseState:
    """The agent of one course at one moment.

    `key` is the name of the course's directory in the state directory, `course` its path, None where the journal does
    not say it.  `uid` owns what was recorded.  `pid` is 0 where it could not be read, None while none runs; then
    `processes` and `files` are None, too.  `last_event_at` in ms.  `waiting` counts records for all sinks that are
    used, `parked` those that servers rejected, `failing` the sinks that failed last.  `lost`: how often a sensor of the
    running agent lost something.  `silent` says why nothing is recorded, `trouble` what is wrong, each in one line.
    `version` is that of the agent that ran last.
    """

    key: str
    uid: int
    course: str | None = None
    pid: int | None = None
    processes: Sight | None = None
    files: Sight | None = None
    started_at: int | None = None
    last_event_at: int | None = None
    events: int = 0
    gaps: int = 0
    lost: int = 0
    waiting: int = 0
    parked: int = 0
    failing: int = 0
    journal_bytes: int = 0
    silent: str | None = None
    trouble: str | None = None
    version: str | None = None

    @property
    def is_running(self) -> bool:
        return self.pid is not None


def read_state(course_root: str, state_dir: str, config: Config) -> CourseState:
    """The state of the course at this real, absolute path, whose records lie in this state directory.  Never raises:
    what can't be read is its `trouble`."""
    return _read(os.path.join(state_dir, course_key(course_root)), course_root, config)


def read_states(state_dir: str, config: Config) -> list[CourseState]:
    """Those of all courses of which something is recorded here, by key.  Raises OSError where the directory is there
    and can't be read."""
    try:
        with os.scandir(state_dir) as entries:
            found = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    return [_read(path, None, config) for path in found if _is_of_course(path)]


def _is_of_course(path: str) -> bool:
    return any(os.path.lexists(os.path.join(path, name)) for name in (JOURNAL, LOCK, CONTROL))


def _read(directory: str, root: str | None, config: Config) -> CourseState:
    state = CourseState(os.path.basename(directory), os.geteuid(), root)
    try:
        state = replace(state, uid=os.stat(directory).st_uid)
        control = read_control(directory)
        state = replace(state, silent=control.why_silent(now_ms(), needs_consent=config.consent))
        state = replace(state, pid=holder(directory))
        if not os.path.exists(os.path.join(directory, JOURNAL)):
            return state
        with Journal.open(directory, create=False, read_only=True) as journal:
            state = _recorded(state, journal)
            return _sending(state, journal, directory, config)
    except FileNotFoundError:
        return state  # nothing is recorded yet
    except OSError as error:
        return replace(state, trouble=one_line(f"{error.filename or directory}: {error.strerror}"))
    except (JournalError, OutboxError, ValueError) as error:
        return replace(state, trouble=one_line(str(error)))


def _recorded(state: CourseState, journal: Journal) -> CourseState:
    """What the journal tells, and the agent that ran last."""
    said = journal.fact("status")
    said = said if isinstance(said, dict) else {}
    root = said.get("course")
    if state.course is None and isinstance(root, str) and course_key(root) == state.key:
        state = replace(state, course=root)
    state = replace(
        state,
        version=_text(said.get("version")),
        last_event_at=journal.last_at(),
        events=journal.last_number,
        gaps=journal.gaps,
        journal_bytes=_size(journal),
    )
    if state.pid is None or (state.pid and said.get("pid") != state.pid):  # said in a life before this one
        return state
    document = _text(said.get("document"))
    return replace(
        state,
        started_at=_number(said.get("started_at")) or None,
        processes=_sight(said.get("processes")),
        files=_sight(said.get("files")),
        lost=_number(said.get("lost")),
        trouble=f"telemetry.json is not written: {one_line(document)}" if document else None,
    )


def _sending(state: CourseState, journal: Journal, directory: str, config: Config) -> CourseState:
    sinks = [sink for sink in sinks_of(config, _course_of(state), journal, directory) if not sink["refused"]]
    return replace(
        state,
        waiting=sum(sink["waiting"] for sink in sinks),
        parked=sum(len(sink["parked"]) for sink in sinks),
        failing=sum(sink["why"] is not None for sink in sinks),
    )


def _course_of(state: CourseState) -> Course:
    if state.course is not None:
        with suppress(CourseError):
            return read_course(state.course)
    # Gone, or not known: what its learn.json names is not known either.
    return Course(state.course or "", state.key)


def _size(journal: Journal) -> int:
    """On the disk, with what waits in the write-ahead log."""
    paths: Iterator[str] = (f"{journal.path}{suffix}" for suffix in ("", "-wal"))
    return sum(os.stat(path).st_size for path in paths if os.path.exists(path))


def _sight(said: Any) -> Sight | None:
    if not isinstance(said, dict) or not isinstance(level := said.get("level"), str):
        return None
    return Sight(one_line(level), one_line(_text(said.get("blind_to")) or ""))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int:
    return value if type(value) is int else 0
