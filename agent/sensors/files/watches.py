"""Where notices of changes come from: what a source promises, and the source that has none.

A source only says "look there"; it never says what happened.  What that means is decided in `tree.py` and
`sensor.py`, which compare the disk with their picture.  So a source may tell too much, but where it may have told too
little it says so (`Kind.LOST`).  Each source is used by one thread, and only `wake` may be called by another.

`inotify.py` is the source on Linux, `observer.py` the one for other systems.
"""

from __future__ import annotations

import contextlib
import queue
from enum import Enum, Flag, auto
from typing import NamedTuple, Protocol


class Kind(Enum):
    """What a notice asks for; `key` and `name` are those of the notice."""

    LOOK = auto()  # at the file `name` in `key`: its content may be new, or it is gone
    CREATED = auto()  # the same, but whoever made it may still be writing, and will be noticed when done
    DIRECTORY = auto()  # at the subdirectory `name` of `key`: it came, went, or became another
    OPENED = auto()  # nothing: the file `name` in `key` was opened
    SELF = auto()  # at the watched directory `key`: it may have been removed, moved or unmounted
    ENDED = auto()  # the same; the directory that was watched as `key` is no more, whatever lies at its path now
    MOUNTS = auto()  # at the table of mounts
    LOST = auto()  # everywhere: notices were lost


class Notice(NamedTuple):
    """`key` is the name under which the directory is watched."""

    kind: Kind
    key: str = ""
    name: str = ""


class Interest(Flag):
    """What to tell of a directory, besides that it is moved or removed itself."""

    ITSELF = 0
    NAMES = auto()  # something came to be in it
    REMOVALS = auto()  # something in it was removed
    CONTENT = auto()  # that, and all that changes in it
    OPENS = auto()  # a file in it was opened
    RIGHTS = auto()  # the permissions of a subdirectory changed


class SameDirectoryError(OSError):
    """The directory is watched already, under another path that is as true: a bind mount."""


class Source(Protocol):
    """Tells where to look.

    `level` is a word for `status`.  `sees_all` is False where everything has to be compared from time to time,
    `sees_root` where the fate of the root has to be looked after.
    """

    level: str
    sees_all: bool
    sees_root: bool

    def watch(self, key: str, path: str, interest: Interest) -> None:
        """Begin to tell of the directory at this absolute path, under this key; again is fine.

        Keys of directories in the course are relative to its root, those of directories above are absolute.
        Raises OSError: ENOENT and ENOTDIR where there is no directory, EACCES, ENOSPC at the limit of watches.
        """

    def unwatch(self, key: str) -> None:
        """Stop to tell of it; one that is not watched is fine."""

    def watched(self) -> list[str]:
        """The keys."""

    def wait(self, timeout: float | None) -> list[Notice]:
        """Block until there is something, for at most `timeout` seconds; the list may be empty."""

    def wake(self) -> None:
        """Let `wait` return.  May be called by any thread."""

    def close(self) -> None:
        """After this, nothing may be called but `wake` and `close`."""


class NoSource:
    """Never a notice: the course has to be compared with its picture.  For systems and moments without a watcher."""

    level = "polling"
    sees_all = False
    sees_root = False

    def __init__(self) -> None:
        self._waking: queue.SimpleQueue[None] = queue.SimpleQueue()

    def watch(self, key: str, path: str, interest: Interest) -> None:
        pass

    def unwatch(self, key: str) -> None:
        pass

    def watched(self) -> list[str]:
        return []

    def wait(self, timeout: float | None) -> list[Notice]:
        with contextlib.suppress(queue.Empty):
            self._waking.get(timeout=timeout)
        return []

    def wake(self) -> None:
        self._waking.put(None)

    def close(self) -> None:
        pass
