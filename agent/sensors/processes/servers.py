"""Whether a LearnPack server or an agent of a course lives: one look at the process table, for commands that end at
once.

Known to be weak: another user's processes are seen by root only, and those of another PID name space by nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...core.commands import is_server
from ...core.course import Course
from .level import Refused
from .procfs import Procfs, Words, has_procfs
from .scan import Psutil


def server_of(course: Course) -> int | None:
    """The process of a LearnPack server that works in this course now, None where none is seen."""
    for pid, words in _processes():
        if is_server(course, words.argv, words.cwd):
            return pid
    return None


def agent_of(lock: str) -> int | None:
    """The process that has a lock file open whose path ends like this, None where none is seen: an agent of the course
    after which its directory is named, whatever state directory that lies in."""
    return next((pid for pid, _ in _holders(lock)), None)


def agent_before(lock: str) -> int | None:
    """The process that has another lock file open that ends in the same directory and name, and had it first: an agent
    of this course with another state directory.  `lock` is our own, which we hold."""
    end = "/" + "/".join(lock.split("/")[-2:])
    ours = os.stat(lock)
    for pid, path in _holders(end):
        try:
            theirs = os.stat(path)
        except OSError:  # over, or deleted
            continue
        is_other = (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino)
        # Whoever takes it writes into it, and looks for others then: so of two at once the later one sees the earlier.
        if is_other and theirs.st_mtime_ns <= ours.st_mtime_ns:
            return pid
    return None


def _holders(end: str) -> Iterator[tuple[int, str]]:
    try:
        reader = Procfs() if has_procfs() else Psutil()
    except Refused:
        return
    for pid in reader.pids():
        for path in reader.open_files(pid):
            if path.endswith(end):
                yield pid, path


def _processes() -> Iterator[tuple[int, Words]]:
    if not has_procfs():
        try:
            psutil = Psutil()
        except Refused:
            return
        for pid in psutil.pids():
            if (words := psutil.words(pid)) is not None:
                yield pid, words
        return
    readers: dict[int, Procfs] = {}
    for pid in Procfs().pids():
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:  # gone, or hidden by hidepid
            continue
        reader = readers.setdefault(uid, Procfs(uid))
        if (words := reader.words(pid)) is not None:
            yield pid, words
