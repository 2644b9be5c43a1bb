"""What `events` shows of a journal, lines for people, and the file that `export` writes.

Times are shown in local time.  What a line for scripts holds: `store/lines.py`; `status` and `explain` have files of
their own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

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
from .explain import clock
from .store.journal import Record


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
