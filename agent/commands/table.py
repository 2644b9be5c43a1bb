"""`status --all`: all agents of this machine (root), or of the user who asks, a line each."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.course import one_line
from .common import FAILURE, config_of, print_json

if TYPE_CHECKING:
    from ..machine import Watched

_COURSE_WIDTH = 48


def status_all(arguments: argparse.Namespace) -> int:
    """A line for each agent; 0 where all are well, 1 where one is not."""
    from ..core.codec import to_plain
    from ..machine import all_watched
    from ..store.journal import dumped

    watched = all_watched(lambda: config_of(arguments))
    if arguments.json:
        lines = [{**to_plain(one.state), "state": one.words, "detail": _trouble(one)} for one in watched]
        print_json(dumped(lines))
    elif not watched:
        print("no agent is installed, and nothing is recorded")
    else:
        print("\n".join(map(one_line, table(watched, int(time.time() * 1000)))))
    return FAILURE if any(one.words == "failed" or one.state.trouble for one in watched) else 0


def _trouble(one: Watched) -> str | None:
    return one.state.trouble or (one.instance.detail if one.instance is not None and one.words == "failed" else None)


def table(watched: Sequence[Watched], now: int) -> list[str]:
    """Columns for people; what is wrong stands in a line of its own below."""
    from ..explain import duration

    rows = [("COURSE", "USER", "STATE", "PROCESSES", "LAST EVENT", "QUEUE", "GAPS")]
    notes: list[str | None] = [None]
    for one in watched:
        state = one.state
        level = state.processes.level if state.processes is not None else "-"
        ago = "never" if state.last_event_at is None else f"{duration(max(0, now - state.last_event_at))} ago"
        queue = f"{state.waiting}{f' (+{state.parked} aside)' if state.parked else ''}"
        course = _shortened(one_line(state.course or state.key))
        rows.append((course, login(state.uid), one.words, level, ago, queue, str(state.gaps)))
        notes.append(_trouble(one) or (state.silent if one.words == "paused" else None))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    for row, note in zip(rows, notes, strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if note:
            lines.append(f"    {note}")
    return lines


def _shortened(path: str) -> str:
    """At most so wide that the other columns find room; what a path is told by is at its ends."""
    if len(path) <= _COURSE_WIDTH:
        return path
    half = (_COURSE_WIDTH - 3) // 2
    return f"{path[: _COURSE_WIDTH - 3 - half]}...{path[-half:]}"


def login(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
