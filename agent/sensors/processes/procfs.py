"""One process, read from Linux's /proc.  Everything that knows the layout of /proc lives here.

Promised: only processes of one user are looked at; what a dying process loses first is read first; nothing is
kept open, nothing but a vanished or unreadable process is caught.  Which process matters is decided in
`tracking`, when to look in `proc_connector`, `pidfd` and `scan`.

Why the order: at exit the kernel frees the memory map (command line), then the files (standard input), then the
file system view (cwd); the `stat` line stays until the parent has reaped.  Facts about /proc are those of
proc(5) and fs/proc of Linux 6.18.

Known to be weak: a process that made itself undumpable hides its cwd and standard input from its own user (and
is then judged by its command line); one that overwrote its command line is believed.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

from ..clock import ms_of_monotonic_ns, now_ms

#: The unit of `born` (field 22 of /proc/PID/stat): 10 ms on every common machine.
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

#: Command lines are read whole up to here.  jest's carries its configuration; the kernel allows 2 MB.
_CMDLINE_BYTES = 256 * 1024
_CHUNK = 16 * 1024

#: In the flags of a process whose addresses are random (include/linux/sched.h).
_PF_RANDOMIZE = 0x00400000

_NO_FILES = ("/dev/pts/", "/dev/null", "/dev/tty")


@dataclass(frozen=True, slots=True)
class Words:
    """What decides whether a process matters.  `cwd` and `stdin` are absolute real paths; `stdin` is None where
    standard input is no regular file."""

    argv: tuple[str, ...]
    cwd: str | None
    stdin: str | None


#: What is said of another user's process.
FOREIGN = Words((), None, None)


@dataclass(frozen=True, slots=True)
class Look:
    """One process at one moment.  `parent` is 0 where it isn't known.  `started_at` is in ms since the epoch; on
    Linux it is known to 10 ms, and the middle of these is taken.  `image` is another after each exec, and 0 where
    it isn't known: so a program that rewrites its command line (npm, jest) is told from an executed one.  `is_over`:
    it ended while it was looked at, and `born` is only an estimate."""

    pid: int
    born: int
    parent: int
    words: Words
    on_terminal: bool
    started_at: int
    image: int
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A process is over.  `status` is its wait status where it still lies there as a zombie, else None."""

    status: int | None


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used.  `status` is the wait status of a zombie, else None."""

    state: str
    parent: int
    terminal: int
    born: int
    image: int
    status: int | None


class Procfs:
    """The processes of one user.  All methods may be called at any time with any pid, and return None (False)
    for a process that is gone, is another user's (`words`: FOREIGN), or can't be read."""

    def __init__(self, uid: int | None = None) -> None:
        self._uid = os.geteuid() if uid is None else uid

    def pids(self) -> dict[int, int]:
        """All pids of all users, each with a number that another process with that pid doesn't have.

        The number is the inode of /proc/PID, which the directory listing gives for nothing: 100 processes
        cost 0.2 ms.  The kernel may forget an inode under memory pressure: then a process looks new.
        """
        with os.scandir("/proc") as entries:
            return {int(entry.name): entry.inode() for entry in entries if entry.name.isdigit()}

    def is_mine(self, pid: int) -> bool:
        """Whether the process runs as our user.  The owner of /proc/PID itself is always the effective user, even
        of an undumpable process (`task_dump_owner` in fs/proc/base.c makes an exception for just this)."""
        try:
            return os.stat(f"/proc/{pid}").st_uid == self._uid
        except OSError:  # gone, or hidden by hidepid
            return False

    def argv(self, pid: int) -> tuple[str, ...] | None:
        """The command line; None for a zombie, a kernel thread and in the middle of an exec."""
        try:
            return _argv(f"/proc/{pid}/cmdline")
        except OSError:  # gone
            return None

    def words(self, pid: int) -> Words | None:
        """What a dying process loses first; 17 us, and 3 us for another user's, of which it is FOREIGN."""
        base = f"/proc/{pid}"
        try:
            if os.stat(base).st_uid != self._uid:
                return FOREIGN
            argv = _argv(base + "/cmdline")
        except OSError:  # gone, or hidden by hidepid
            return None
        if argv is None:
            return None
        stdin = _stdin(base + "/fd/0")
        try:
            cwd = os.readlink(base + "/cwd")
        except OSError:  # gone since, or undumpable
            cwd = None
        return Words(argv, cwd, stdin)

    def look(self, pid: int, words: Words | None = None) -> Look | None:
        """Everything that is said of a process, with the words if they were read already; 15 us more."""
        words = words or self.words(pid)
        if words is None or words is FOREIGN:
            return None
        line = read_stat(pid)
        if line is None:
            # It ended and was reaped in the last 50 us.  What was run is known all the same; when it began, to
            # a few ms, because it was alive just now and so young that nobody had looked before.
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            return Look(pid, now // TICK_NS, 0, words, False, now_ms(), 0, is_over=True)
        return Look(pid, line.born, line.parent, words, line.terminal != 0, wall_ms_of_ticks(line.born), line.image)

    def open_files(self, pid: int) -> list[str]:
        """The paths of what any user's process has open, as far as it may be looked at: root may."""
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:  # gone, another user's, or undumpable
            return []
        paths = []
        for number in numbers:
            with suppress(OSError):  # closed since
                paths.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        return paths

    def ended(self, pid: int, born: int) -> Ended | None:
        """Whether that process is over, reaped or not; None while it lives."""
        line = read_stat(pid)
        if line is None or line.born != born:
            return Ended(None)
        if line.state in "ZX":
            return Ended(line.status)
        return None


def read_stat(pid: int) -> Stat | None:
    """/proc/PID/stat of any user's process, or None when it is gone."""
    try:
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            line = os.read(handle, 1024)
        finally:
            os.close(handle)
    except OSError:  # gone, or hidden by hidepid
        return None
    # The second field is the program's name in parentheses; it may hold spaces and parentheses itself.
    fields = line.rpartition(b")")[2].split()
    state = fields[0].decode("ascii")
    # Field 52 holds the wait status of a process that has ended, for whoever may read it (its own user).
    status = int(fields[49]) if state in "ZX" and len(fields) > 49 else None
    # Field 28, the address of the stack's bottom, is random anew at each exec; gdb and `setarch -R` switch that off.
    image = int(fields[25]) if int(fields[6]) & _PF_RANDOMIZE else 0
    return Stat(state, int(fields[1]), int(fields[4]), int(fields[19]), image, status)


def wall_ms_of_ticks(born: int) -> int:
    """The wall time of a start time in ticks since boot: the middle of the tick."""
    asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return ms_of_monotonic_ns(born * TICK_NS + TICK_NS // 2 - asleep)


def has_procfs() -> bool:
    """Whether this is a Linux with a /proc that shows us ourselves."""
    return sys.platform == "linux" and read_stat(os.getpid()) is not None


def _argv(path: str) -> tuple[str, ...] | None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        line = os.read(handle, _CHUNK)
        if len(line) == _CHUNK:  # jest's and javac's can be long
            parts = [line]
            while parts[-1] and len(parts) * _CHUNK < _CMDLINE_BYTES:
                parts.append(os.read(handle, _CHUNK))
            line = b"".join(parts)
    finally:
        os.close(handle)
    if not line:
        return None
    return tuple(os.fsdecode(line.removesuffix(b"\0")).split("\0"))


def _stdin(path: str) -> str | None:
    """The real path behind file descriptor 0 where that is a regular file that still has a name."""
    try:
        target = os.readlink(path)
        if not target.startswith("/") or target.startswith(_NO_FILES):
            return None
        found = os.stat(path)
    except OSError:  # gone, closed, or undumpable
        return None
    # A here-document of bash is a deleted file.
    return target if stat.S_ISREG(found.st_mode) and found.st_nlink > 0 else None
