"""What `events` and `export` show of a journal: lines for people, and lines for scripts.

Only reading: a journal that the agent writes at this moment can be shown.  Times are shown in local time.  `status`
and `explain` have files of their own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from .core.events import (
    AiInteraction,
    Compile,
    CompleteStep,
    Event,
    Gap,
    OpenStep,
    ResetStep,
    Run,
    SessionEnd,
    SessionStart,
    Test,
)
from .core.export import public
from .explain import clock
from .store.adoption import row, same_runs
from .store.journal import Journal, Record, dumped


def outcome(run: Run) -> str:
    """How a run ended, in two words."""
    if run.signal is not None:
        return f"ended by signal {run.signal}"
    if run.exit_code is None:
        return "exit code unknown"
    return f"exit code {run.exit_code}"


def event_words(event: Event) -> str:
    """An event without its time, in one line."""
    match event:
        case Compile() | Test():
            length = "" if event.run.ended_at is None else f", {event.run.ended_at - event.run.started_at} ms"
            return f"{event.name} {event.step.slug}: {outcome(event.run)}{length} ({event.run.origin})"
        case OpenStep() | CompleteStep() | ResetStep() | AiInteraction():
            return f"{event.name} {event.step.slug}"
        case Gap():
            return f"gap of {event.at - event.started_at} ms: {event.reason}"
        case SessionStart() | SessionEnd():
            return event.name


def event_line(record: Record) -> str:
    return f"{record.number:>6}  {clock(record.event.at)}  {event_words(record.event)}"


class PublicLines:
    """Records as `export` writes them, with LearnPack's own texts of the same run where ours were not captured.

    Which runs LearnPack recorded too is asked once per step and kind, and again for a record that came after that
    (`events --follow`; what LearnPack writes later than the event is printed is not in its line).
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._same: dict[tuple[str, str], tuple[int, dict[int, int]]] = {}

    def line(self, record: Record) -> bytes:
        """One JSON object, without a line end."""
        event = record.event
        theirs = None
        if isinstance(event, (Compile, Test)):
            theirs = self._learnpacks(record.number, event.name, event.step.slug)
        return dumped(public(record.number, record.id, event, theirs))

    def _learnpacks(self, number: int, kind: str, slug: str) -> dict[str, Any] | None:
        asked_at, same = self._same.get((kind, slug), (0, {}))
        if asked_at < number:
            with self._journal.snapshot():
                asked_at, same = self._journal.last_number, same_runs(self._journal, kind, slug)
            self._same[kind, slug] = asked_at, same
        if number not in same:
            return None
        with self._journal.snapshot():
            return row(self._journal, same[number])


def is_open_as(path: str, descriptor: int) -> bool:
    """Whether the path names what is open already: /dev/stdout, for one."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def write_private(path: str, lines: Iterator[bytes]) -> None:
    """Write lines to a new file of mode 0600 that replaces `path` when it is complete.

    A symbolic link stays and what it names is replaced; what is no regular file (a FIFO, a device) is written to.
    """
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        is_file = True
    if not is_file:
        with open(path, "wb") as stream:
            stream.writelines(lines)
        return
    target = os.path.realpath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(lines)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
