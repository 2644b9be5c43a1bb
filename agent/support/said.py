"""What the agent said last: its log, of which a bundle holds nothing that was worked on."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress

import orjson

from ..checks.finding import asked
from ..hosting.manager import ManagerError
from .case import Case

_LOG_LINES = 300
_LOG_BYTES = 256 << 10


def log(case: Case) -> str:
    """Its last lines, without debug lines and the texts of tracebacks.  Raises LookupError, OSError."""
    return "".join(f"{line}\n" for line in [*_told(case)][-_LOG_LINES:])


def _told(case: Case) -> Iterator[str]:
    """What the agent said last, to its service manager or in a file of its own."""
    from ..hosting.detached import log_path

    course = case.named_course
    for manager in case.place.managers:
        try:
            if not any(one.course == course.root for one in manager.instances()):
                continue
            command = manager.log_command(course.root, follow=False, lines=_LOG_LINES)
        except ManagerError as error:
            yield f"({manager.words}: {error})"
            continue
        if command[0] == "journalctl":
            command += ["--output=json", "--output-fields=MESSAGE,PRIORITY"]
        if (answer := asked(*command, within_s=5.0)) is None:
            yield f"({manager.words} does not answer)"
        else:
            yield from _from_journalctl(answer.stdout) if command[0] == "journalctl" else _from_file(answer.stdout)
    with suppress(FileNotFoundError):
        descriptor = os.open(log_path(case.directory), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            stream.seek(max(0, os.fstat(descriptor).st_size - _LOG_BYTES))
            yield from _from_file(stream.read(_LOG_BYTES))


#: Debug lines tell whole events, with programs and outputs.
_DEBUG = 7
_LINE = re.compile(r"(\S+ \S+) (INFO|WARNING|ERROR|CRITICAL) (.*)")
_WHERE = re.compile(r"File \"[^\"]*?/(agent/[\w/]+\.py)\", line (\d+)")
_TRACEBACK = re.compile(r"(?:\\n|\s)*Traceback \(most recent call last\)")


def _from_journalctl(printed: bytes) -> Iterator[str]:
    for line in printed.splitlines():
        try:
            said = orjson.loads(line)
            at, priority, words = int(said["__REALTIME_TIMESTAMP"]), int(said.get("PRIORITY", 6)), said["MESSAGE"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(words, str) and priority < _DEBUG:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at / 1_000_000))
            yield f"{stamp} {priority} {_without_traceback(words)}"


def _from_file(content: bytes) -> Iterator[str]:
    """The agent's own lines: of others (a traceback that nobody caught) only where in the agent it was."""
    for line in content.decode("utf-8", "replace").splitlines():
        if (match := _LINE.fullmatch(line)) is not None:
            yield f"{match[1]} {match[2]} {_without_traceback(match[3])}"
        elif (where := _WHERE.search(line)) is not None:
            yield f"  in {where[1]}, line {where[2]}"


def _without_traceback(words: str) -> str:
    """A traceback's text may quote what was worked on."""
    begins = _TRACEBACK.search(words)
    if begins is None:
        where = _WHERE.search(words)
        return f"in {where[1]}, line {where[2]}" if where else words
    places = ", ".join(f"{path}:{line}" for path, line in _WHERE.findall(words))
    return f"{words[: begins.start()]} (traceback: {places or 'elsewhere'})"
