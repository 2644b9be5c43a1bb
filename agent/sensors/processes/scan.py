"""The last level, for macOS and wherever nothing better works: look at the process table every now and then.

Promised: 50 ms between two looks for 2 s after something happened in the course (`trigger`), 100 ms for half a
minute more or while a reported process is young, 1 s while any reported process lives, 2 s else.  On macOS kqueue
tells the end of each reported process and its exit status at once, and tells when one of them forks or executes,
which starts a look: a program that the student starts from a shell in the course is looked at within milliseconds.

How processes are read: on Linux by `procfs`, else by `Psutil` below (psutil is imported only then, 4 MB).

Known to be weak: without kqueue most programs that live shorter than the interval are missed (a 15 ms one 3 times
of 5 at 50 ms), an end is noticed up to one interval late, and its exit code stays unknown.  The kqueue part follows
XNU's `filt_procattach` (NOTE_EXITSTATUS is granted to whoever may signal the process) and is tested with a fake
only.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from ..clock import now_ms
from .level import Failed, Mailbox, Refused
from .procfs import Ended, Look, Words
from .tracking import Finder, Tracker

#: (seconds since something happened, seconds between two looks)
BUSY = ((2.0, 0.05), (30.0, 0.1))
_TRACKED_INTERVAL = 1.0
_IDLE_INTERVAL = 2.0

#: Looks take at most a fifth of a processor, however many processes there are.
_REST = 4

_NOTE_EXITSTATUS = 0x04000000  # sys/event.h of macOS; Python's select doesn't name it
_NOTE_DATA = 0xFFFF


class Psutil:
    """The processes of one user, as psutil reads them.  The contracts are those of `procfs.Procfs`; `born` is the
    creation time in ms since the epoch.  Raises Refused where psutil is missing."""

    def __init__(self, uid: int | None = None) -> None:
        try:
            import psutil
        except ImportError as error:
            raise Refused("psutil is not installed") from error
        self._psutil = psutil
        # A zombie is a NoSuchProcess to psutil, except where it is read as if it lived.  OSError: what macOS answers
        # in the middle of an exec or an exit is not always translated.
        self._gone = (psutil.NoSuchProcess, psutil.AccessDenied, OSError)
        self._uid = os.geteuid() if uid is None else uid

    def pids(self) -> dict[int, int]:
        """A process that took the pid of another between two looks is not told apart (it is, once reported)."""
        return dict.fromkeys(self._psutil.pids(), 0)

    def is_mine(self, pid: int) -> bool:
        try:
            return bool(self._psutil.Process(pid).uids().effective == self._uid)
        except self._gone:
            return False

    def argv(self, pid: int) -> tuple[str, ...] | None:
        try:
            return tuple(self._psutil.Process(pid).cmdline()) or None
        except self._gone:
            return None

    def words(self, pid: int) -> Words | None:
        look = self.look(pid)
        return look.words if look is not None else None

    def look(self, pid: int, words: Words | None = None) -> Look | None:
        try:
            process = self._psutil.Process(pid)
            with process.oneshot():
                if process.uids().effective != self._uid:
                    return None
                argv = tuple(process.cmdline())
                if not argv or process.status() == self._psutil.STATUS_ZOMBIE:
                    return None
                cwd = self._maybe(process.cwd) or None
                # All open files are listed to find the first: only for an interpreter without a file.
                stdin = self._stdin(process) if len(argv) == 1 else None
                born = round(process.create_time() * 1000)
                terminal = self._maybe(process.terminal) is not None
                return Look(pid, born, process.ppid() or 0, Words(argv, cwd, stdin), terminal, born, 0)
        except self._gone:
            return None

    def open_files(self, pid: int) -> list[str]:
        try:
            return [str(file.path) for file in self._psutil.Process(pid).open_files()]
        except self._gone:
            return []

    def ended(self, pid: int, born: int) -> Ended | None:
        try:
            process = self._psutil.Process(pid)
            if round(process.create_time() * 1000) == born and process.status() != self._psutil.STATUS_ZOMBIE:
                return None
        except self._psutil.NoSuchProcess:
            pass
        except (self._psutil.AccessDenied, OSError):  # it is there
            return None
        return Ended(None)

    def _maybe(self, read: Callable[[], str | None]) -> str | None:
        try:
            return read()
        except self._psutil.AccessDenied:
            return None

    def _stdin(self, process: Any) -> str | None:
        try:
            return next((str(file.path) for file in process.open_files() if file.fd == 0), None)
        except self._psutil.AccessDenied:
            return None


class Waiter(Protocol):
    """Waits for the mailbox, and for what can be heard of processes meanwhile."""

    hears_ends: bool

    def hold(self, pid: int) -> bool: ...
    def wait(self, timeout: float | None) -> tuple[list[tuple[int, int | None]], bool]: ...
    def close(self) -> None: ...


class PlainWaiter:
    """Hears nothing of processes."""

    hears_ends = False

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def hold(self, pid: int) -> bool:
        return True

    def wait(self, timeout: float | None) -> tuple[list[tuple[int, int | None]], bool]:
        select.select([self._mailbox], [], [], timeout)
        return [], False

    def close(self) -> None:
        pass


class KqueueWaiter:
    """Hears the end, forks and execs of each process that it holds.  `api` is the `select` module or a fake."""

    hears_ends = True

    def __init__(self, mailbox: Mailbox, api: Any = select) -> None:
        self._api = api
        self._kqueue = api.kqueue()
        self._mailbox = mailbox.fileno()
        self._control(self._mailbox, api.KQ_FILTER_READ, 0)

    def _control(self, what: int, kind: int, notes: int) -> None:
        self._kqueue.control([self._api.kevent(what, kind, self._api.KQ_EV_ADD, notes)], 0)

    def hold(self, pid: int) -> bool:
        """False if the process is over already."""
        api = self._api
        notes = api.KQ_NOTE_EXIT | api.KQ_NOTE_FORK | api.KQ_NOTE_EXEC
        try:
            try:
                self._control(pid, api.KQ_FILTER_PROC, notes | _NOTE_EXITSTATUS)
            except PermissionError:  # a process that changed its user since
                self._control(pid, api.KQ_FILTER_PROC, notes)
        except ProcessLookupError:
            return False
        return True

    def wait(self, timeout: float | None) -> tuple[list[tuple[int, int | None]], bool]:
        """The processes that ended, with the wait status where it was told, and whether any forked or executed."""
        api = self._api
        ends: list[tuple[int, int | None]] = []
        stirred = False
        for event in self._kqueue.control(None, 64, timeout):
            if event.filter != api.KQ_FILTER_PROC:
                continue
            if event.fflags & api.KQ_NOTE_EXIT:
                told = bool(event.fflags & _NOTE_EXITSTATUS)
                ends.append((event.ident, event.data & _NOTE_DATA if told else None))
            if event.fflags & (api.KQ_NOTE_FORK | api.KQ_NOTE_EXEC):
                stirred = True
        return ends, stirred

    def close(self) -> None:
        self._kqueue.close()


def waiter_for(mailbox: Mailbox) -> Waiter:
    if sys.platform == "darwin" and hasattr(select, "kqueue"):
        return KqueueWaiter(mailbox)
    return PlainWaiter(mailbox)


class Polling:
    """The level "polling".  `make_waiter` is a seam for tests."""

    name: ClassVar[str] = "polling"
    wants_opens: ClassVar[bool] = True

    def __init__(self, make_waiter: Callable[[Mailbox], Waiter] = waiter_for) -> None:
        self._make_waiter = make_waiter
        self._waiter: Waiter | None = None
        self._held: dict[int, int] = {}  # pid -> born
        self._finder: Finder | None = None
        self._stirred = time.monotonic()
        self._stirred_meanwhile = False  # during the last look
        self._looked = 0.0
        self._cost = 0.0
        self.last_event_ms = 0

    @property
    def blind_to(self) -> str:
        if self._waiter is not None and self._waiter.hears_ends:
            return "programs that end within about 50 ms and were not started from a shell in the course"
        return "most programs that end within 50 to 100 ms (2 s while nothing happens in the course); all exit codes"

    def open(self, mailbox: Mailbox) -> None:
        """Nothing can be refused here: how processes are read is the tracker's."""
        self._waiter = self._make_waiter(mailbox)

    def close(self) -> None:
        if self._waiter is not None:
            self._waiter.close()
            self._waiter = None
        self._held.clear()

    def run(self, tracker: Tracker, mailbox: Mailbox) -> None:
        waiter = self._waiter
        if waiter is None:
            raise Failed("not open")
        if self._finder is None:
            tracker.survey()
            self._finder = Finder(tracker)
            self._look(self._finder, waiter, tracker)
        while True:
            interval = self._interval(tracker)
            stirred = self._hear(waiter, tracker, mailbox.timeout(self._looked + interval))
            orders = mailbox.take()
            if orders.course is not None:
                tracker.replace_course(orders.course)
            if mailbox.should_return(orders):
                return
            now = time.monotonic()
            if orders.trigger or orders.check or stirred:
                self._stirred = now
                interval = _REST * self._cost
            if now >= self._looked + interval:
                self._look(self._finder, waiter, tracker)

    def _interval(self, tracker: Tracker) -> float:
        """Seconds between two looks, as things are now."""
        if self._stirred_meanwhile:
            return _REST * self._cost
        quiet = time.monotonic() - self._stirred
        interval = next((one for since, one in BUSY if quiet < since), None)
        if interval is None:
            interval = _TRACKED_INTERVAL if tracker.tracked else _IDLE_INTERVAL
        return max(interval, _REST * self._cost)

    def _look(self, finder: Finder, waiter: Waiter, tracker: Tracker) -> None:
        begun = time.thread_time()
        before = tracker.tracked.copy()
        table = finder.find()
        # What ended just before is missing in the table; only the waiter knows how it ended.
        self._stirred_meanwhile = self._hear(waiter, tracker, 0)
        now = now_ms()
        for pid in list(tracker.tracked):
            if pid not in table or not waiter.hears_ends:
                tracker.end_if_gone(pid, now)
        self._hold_all(waiter, tracker)
        self.last_event_ms = now
        self._looked = time.monotonic()
        self._cost = time.thread_time() - begun
        if tracker.tracked != before:
            self._stirred = self._looked

    def _hold_all(self, waiter: Waiter, tracker: Tracker) -> None:
        for pid, one in list(tracker.tracked.items()):
            if self._held.get(pid) != one.born:
                if waiter.hold(pid):
                    self._held[pid] = one.born
                else:
                    tracker.end_if_gone(pid, now_ms())
        for pid in self._held.keys() - tracker.tracked.keys():
            del self._held[pid]

    def _hear(self, waiter: Waiter, tracker: Tracker, timeout: float | None) -> bool:
        """Report the ends that are heard; returns whether any process forked or executed."""
        ends, stirred = waiter.wait(timeout)
        for pid, status in ends:
            self._ended(pid, status, tracker)
        return stirred

    def _ended(self, pid: int, status: int | None, tracker: Tracker) -> None:
        known = tracker.tracked.get(pid)
        if known is not None and self._held.pop(pid, None) == known.born:
            tracker.exited(pid, now_ms(), status)
