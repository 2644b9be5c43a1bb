"""What LearnPack's tests print: shelljs's output files, held open from the moment they appear.

shelljs runs a command through a launcher, `exec-child.js`, whose parameter file names two files that the command's
output grows in.  LearnPack's server reads and deletes all three 3 to 6 ms after the launcher's end, but a descriptor
that was opened before outlives that.  At the launcher's end the files are whole: it was their only writer, and it ends
when both streams have.

Promised: of the parameter file nothing is used but `stdoutFile` and `stderrFile` (it holds the server's whole
environment), and nothing else of it is kept, logged, or put into an exception.  Files are opened only beside it, under
shelljs's names, if they are regular ones of our user; no link is followed, no pipe waited for.  Head and tail of what
was printed are read, never the middle, and not before the end.  At rest there is no descriptor and no wake-up.

shelljs 0.8.5 makes the output files before its launcher; 0.8.4's launcher makes them 110 to 135 ms after its own start.
So while a launcher lives whose files aren't there yet, inotify watches their directory, and each new file there is a
reason to try again; so is each program that is executed in the course meanwhile, and the launcher's end.

Known to be weak: without inotify (macOS, or none left) only those last reasons remain.  Output of a launcher whose end
was not told (Linux before 6.15 at the level "pidfd") is taken for whole, though a signal may have cut it off.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import orjson

from ...core.commands import is_shelljs_file
from ...core.events import Captured
from ...core.printed import OUTPUT_BYTES, captured
from ..picture import read_regular

#: LearnPack tests one step at a time; so many servers may do so at once.  What is more is not captured.
MOST = 16

#: An environment has some KB, and the kernel allows 2 MB; JSON makes it longer, but hardly twice as long.
_PARAMETER_BYTES = 4 << 20

#: The notices are not looked at: each means "try again".
_NOTICES = 64 * 1024

_PASSING = frozenset({errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Ear(Protocol):
    """Waits for a descriptor besides its own business.  See `level.Mailbox`."""

    def listen(self, handle: int, ready: Callable[[], None]) -> bool: ...
    def ignore(self, handle: int) -> None: ...


@dataclass(slots=True)
class _Stream:
    """One output file; `handle` is None until it could be opened.  Not `awaited`: it is open, or never will be."""

    path: str
    handle: int | None = None
    awaited: bool = True

    def open(self) -> None:
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            # Not there yet, or no descriptors are left; else a link, a socket, somebody else's.
            self.awaited = error.errno in _PASSING
            return
        self.awaited = False
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            self.handle = handle
        else:
            os.close(handle)

    def read(self, limit: int) -> Captured | None:
        handle = self.handle
        if handle is None:
            return None
        try:
            size = os.fstat(handle).st_size
            return captured(lambda offset, length: os.pread(handle, length, offset), size, limit)
        except OSError:  # the disk can't read it
            return None

    def close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


@dataclass(slots=True)
class _Launcher:
    parameter_file: str
    streams: tuple[_Stream, _Stream]

    @property
    def awaits(self) -> bool:
        return any(stream.awaited for stream in self.streams)


class Captures:
    """The output files of the living launchers, by pid.  All methods belong to the sensor's thread.

    `ear` is told of inotify's descriptor while there is one; None: no inotify.  At most `limit` bytes of each stream
    become text; 0: nothing is read at all.
    """

    def __init__(self, ear: Ear | None = None, limit: int = OUTPUT_BYTES) -> None:
        self._ear = ear
        self._limit = limit
        self._launchers: dict[int, _Launcher] = {}
        self._inotify: int | None = None

    def begin(self, pid: int, parameter_file: str) -> None:
        """A launcher with this parameter file lives: open its output files, now or when they are there."""
        known = self._launchers.get(pid)
        if known is not None and known.parameter_file == parameter_file:
            return
        self._forget(pid)
        if self._limit <= 0 or len(self._launchers) >= MOST:
            return
        paths = _output_files(parameter_file)
        if paths is None:
            return
        launcher = _Launcher(parameter_file, (_Stream(paths[0]), _Stream(paths[1])))
        self._launchers[pid] = launcher
        self.look()
        if launcher.awaits:
            self._watch(posixpath.dirname(parameter_file))
            self.look()  # it may have been made just before the watch was

    def look(self) -> None:
        """Try again to open what is not open yet."""
        for launcher in self._launchers.values():
            for stream in launcher.streams:
                if stream.awaited:
                    stream.open()
        self._maybe_stop_watching()

    def end(self, pid: int, *, is_cut_off: bool) -> tuple[Captured | None, Captured | None]:
        """A process is over: what it wrote to stdout and stderr, if it was a launcher whose files could be opened.
        `is_cut_off`: a signal ended it, so part of the output may be missing, and none is given."""
        launcher = self._launchers.get(pid)
        if launcher is None:
            return None, None
        self.look()
        out, err = (None if is_cut_off else stream.read(self._limit) for stream in launcher.streams)
        self._forget(pid)
        return out, err

    def close(self) -> None:
        for pid in list(self._launchers):
            self._forget(pid)

    def _forget(self, pid: int) -> None:
        launcher = self._launchers.pop(pid, None)
        if launcher is not None:
            for stream in launcher.streams:
                stream.close()
            self._maybe_stop_watching()

    # inotify

    def _watch(self, directory: str) -> None:
        """Wake the sensor's thread up when a file is made in this directory, if that can be had."""
        if self._ear is None or sys.platform != "linux":
            return
        # The file sensor has imported it already: no memory of its own.
        from watchdog.observers.inotify_c import InotifyConstants, Mask, inotify_add_watch, inotify_init

        if self._inotify is None:
            handle = inotify_init()
            if handle < 0:  # no instances left
                return
            os.set_inheritable(handle, False)
            os.set_blocking(handle, False)
            if not self._ear.listen(handle, self._noticed):
                os.close(handle)
                return
            self._inotify = handle
        # It may fail (no watches left, no right to read the directory); the other launchers' watches stay.
        inotify_add_watch(
            self._inotify, os.fsencode(directory), Mask(InotifyConstants.IN_CREATE | InotifyConstants.IN_ONLYDIR)
        )

    def _noticed(self) -> None:
        if self._inotify is not None:
            with suppress(BlockingIOError):  # the thread was woken by something else
                os.read(self._inotify, _NOTICES)
            self.look()

    def _maybe_stop_watching(self) -> None:
        handle = self._inotify
        if handle is None or any(launcher.awaits for launcher in self._launchers.values()):
            return
        assert self._ear is not None
        self._inotify = None
        self._ear.ignore(handle)
        os.close(handle)


def _output_files(parameter_file: str) -> tuple[str, str] | None:
    """The paths of stdout and stderr that a parameter file names; None where it is none that shelljs made."""
    try:
        found, content = read_regular(parameter_file, _PARAMETER_BYTES)
        if content is None or found.st_uid != os.geteuid():
            return None
        parameters = orjson.loads(content)
    except (OSError, orjson.JSONDecodeError):  # neither the error nor anything that it holds goes further
        return None
    if not isinstance(parameters, dict):
        return None
    paths = [parameters.get(name) for name in ("stdoutFile", "stderrFile")]
    directory = posixpath.dirname(parameter_file)
    own = [
        path
        for path in paths
        if isinstance(path, str) and is_shelljs_file(path) and posixpath.dirname(path) == directory
    ]
    if len(own) != 2 or len({*own, parameter_file}) != 3:
        return None
    return own[0], own[1]
