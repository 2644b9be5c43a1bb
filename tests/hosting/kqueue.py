"""kqueue(2) as macOS has it, on Linux and for real processes: by pidfds, and by looking.

As documented there, and in XNU's `filt_procattach` and `filt_proc`: to register a process that is gone, or a zombie, is
ESRCH, and to ask for the exit status of one that may not be signalled EACCES; without room in the event list such an
error is raised; the end is told once, with the wait status where that was asked for; what happened to one process
between two looks is one event.  `test_kqueue.py` holds this stand-in, and the real kqueue where there is one, to that.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.sensors.processes.pidfd import exit_status

KQ_FILTER_READ, KQ_FILTER_PROC = -1, -5
KQ_EV_ADD, KQ_EV_ONESHOT, KQ_EV_EOF = 0x1, 0x10, 0x8000
KQ_NOTE_EXIT, KQ_NOTE_FORK, KQ_NOTE_EXEC = 0x80000000, 0x40000000, 0x20000000
NOTE_EXITSTATUS = 0x04000000

#: How often is looked for forks and execs, of which a pidfd tells nothing.
_LOOK_S = 0.01
#: The stand-in for macOS takes these away from everybody else.
_pidfd_open, _epoll, _EPOLLIN = os.pidfd_open, select.epoll, select.EPOLLIN


@dataclass
class kevent:
    ident: int
    filter: int = KQ_FILTER_READ
    flags: int = KQ_EV_ADD
    fflags: int = 0
    data: int = 0


@dataclass
class _Process:
    pid: int
    handle: int
    wanted: int
    program: bytes
    children: frozenset[str]


class kqueue:
    def __init__(self) -> None:
        self._wakes = _epoll()
        self._processes: dict[int, _Process] = {}
        self._files: set[int] = set()

    def control(self, changes: Sequence[kevent] | None, max_events: int, timeout: float | None = None) -> list[kevent]:
        for change in changes or ():
            assert change.flags == KQ_EV_ADD, "nothing else is used"
            if change.filter == KQ_FILTER_READ:
                self._files.add(change.ident)
                self._wakes.register(change.ident, _EPOLLIN)
            else:
                self._add(change.ident, change.fflags)
        return self._wait(timeout)[:max_events] if max_events else []

    def close(self) -> None:
        self._wakes.close()
        for one in self._processes.values():
            os.close(one.handle)
        self._processes.clear()

    def _add(self, pid: int, wanted: int) -> None:
        if _state(pid) in ("", "Z"):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if wanted & KQ_NOTE_EXIT and wanted & NOTE_EXITSTATUS:
            try:
                os.kill(pid, 0)
            except PermissionError:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
        if (known := self._processes.get(pid)) is not None:
            known.wanted = wanted
            return
        handle = _pidfd_open(pid)
        self._processes[pid] = _Process(pid, handle, wanted, _program(pid), children_of(pid))
        self._wakes.register(handle, _EPOLLIN)

    def _wait(self, timeout: float | None) -> list[kevent]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            slices = [one for one in (left, _LOOK_S if self._processes else None) if one is not None]
            ready = {descriptor for descriptor, _ in self._wakes.poll(min(slices) if slices else None)}
            events = [kevent(one, KQ_FILTER_READ) for one in sorted(self._files & ready)]
            events += [event for one in list(self._processes.values()) if (event := self._told(one, ready)) is not None]
            if events or (end is not None and time.monotonic() >= end):
                return events

    def _told(self, one: _Process, ready: set[int]) -> kevent | None:
        event = kevent(one.pid, KQ_FILTER_PROC)
        if one.handle in ready:
            event.flags |= KQ_EV_EOF | KQ_EV_ONESHOT
            event.fflags |= KQ_NOTE_EXIT
            if one.wanted & NOTE_EXITSTATUS:
                event.fflags |= NOTE_EXITSTATUS
                event.data = _status(one)
            self._wakes.unregister(one.handle)
            os.close(one.handle)
            del self._processes[one.pid]
        else:
            program, children = _program(one.pid), children_of(one.pid)
            event.fflags |= KQ_NOTE_EXEC if program != one.program else 0
            event.fflags |= KQ_NOTE_FORK if children - one.children else 0
            one.program, one.children = program, children
        event.fflags &= one.wanted
        return event if event.fflags else None


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "")


def _status(one: _Process) -> int:
    """The wait status: a zombie's, or what the kernel keeps for the pidfd of one that was reaped (Linux 6.15)."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        if (status := exit_status(one.handle)) is not None:
            return status
        fields = _stat(one.pid)
        if fields[:1] == ["Z"]:
            return int(fields[49])
    raise AssertionError("this Linux does not tell how a process ended")


def _program(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children_of(pid: int) -> frozenset[str]:
    try:
        return frozenset(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except OSError:
        return frozenset()
