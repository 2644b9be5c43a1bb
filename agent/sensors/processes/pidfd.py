"""The second level, for containers: look into /proc when a course file is opened, and let pidfds tell the end.

Promised: no wake-ups at rest.  `trigger` (the file sensor saw somebody open a course file) starts a look at once
and a few more soon after, because the opening process may be a shell that executes its program next.  Each
reported process is held by a pidfd, so its exit is told within a fraction of a millisecond.

The exit status of a process that isn't our child: from its pidfd (ioctl PIDFD_GET_INFO with PIDFD_INFO_EXIT,
Linux 6.15 and later, once its parent has reaped it), or from /proc/PID/stat while it is a zombie (any kernel).
Where neither works it stays unknown.

Known to be weak: a program that opens no course file, or that is over before the look (a shell script that lives
3 ms), is not seen; a program executed more than 2 s after its process was first found irrelevant isn't either; on
kernels before 6.15 most exit codes are unknown, because parents reap quickly.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from ..clock import now_ms
from .level import PASSING, SELF_TEST_CODE, Failed, Mailbox, Refused, end_child, has_ended, spawn_child
from .procfs import has_procfs
from .tracking import Finder, Tracker

#: When to look again after a trigger, in seconds.  Those after the fifth only while a reported process is young: a
#: JavaScript build of LearnPack opens no course file, begins 60 to 100 ms after its launcher and lives for 75 or more.
LOOKS = (0.002, 0.010, 0.030, 0.060, 0.100, 0.140, 0.180, 0.220, 0.260, 0.300, 0.350, 0.500, 1.0, 2.0)
_ALWAYS = 5

#: Looks take at most a tenth of a processor, however many files are opened: so many times the processor time of a
#: look is waited before the next, but not longer than this, in seconds.
_REST = 9
_LONGEST_REST = 0.025

#: When to ask again for the status of a process that has ended, in seconds after its end.
_STATUS_RETRIES = (0.001, 0.005, 0.020, 0.100, 0.300, 0.600, 1.0)

#: struct pidfd_info of linux/pidfd.h, first version (64 bytes): mask, cgroupid, 11 ids, exit_code.
#: PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info).
_INFO = struct.Struct("=Q52xi")
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3


def exit_status(handle: int) -> int | None:
    """The wait status of the process behind a pidfd: known once it was reaped, from Linux 6.15 on; else None.

    Without the bit in the mask that comes back (a zombie, an older kernel) the zero in `exit_code` means nothing."""
    info = bytearray(_INFO.size)
    _INFO.pack_into(info, 0, _PIDFD_INFO_EXIT, 0)
    try:
        fcntl.ioctl(handle, _PIDFD_GET_INFO, info, True)
    except OSError:  # ENOTTY before 6.13, ESRCH of a reaped process before 6.15
        return None
    mask, status = _INFO.unpack(info)
    return int(status) if mask & _PIDFD_INFO_EXIT else None


@dataclass(slots=True)
class _Watch:
    """A pidfd of a reported process.  `ended_at` (ms) and `ended` (monotonic) are set while its status is sought."""

    handle: int
    pid: int
    born: int
    ended_at: int | None = None
    ended: float = 0.0
    tries: int = 0


class PidfdScan:
    """The level "pidfd"."""

    name: ClassVar[str] = "pidfd"
    wants_opens: ClassVar[bool] = True

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watches: dict[int, _Watch] = {}  # by handle
        self._held: dict[int, int] = {}  # pid -> handle
        self._fresh: dict[int, int] = {}  # pid -> handle, of processes that are just being looked at
        self._seeking: list[_Watch] = []
        self._finder: Finder | None = None
        self._triggered = 0.0
        self._looks = len(LOOKS)  # how many of LOOKS are done; all: no look is due
        self._rest_until = 0.0
        self._tells_status = False
        self.last_event_ms = 0

    @property
    def blind_to(self) -> str:
        programs = "programs that open no file of the course, and many of those that end within about 10 ms"
        if self._tells_status:
            return programs
        return programs + "; the exit codes of most programs (Linux before 6.15)"

    def open(self, mailbox: Mailbox) -> None:
        """Start a child, hold it by a pidfd, demand its end and see whether its status is told."""
        if not has_procfs():
            raise Refused("/proc does not show processes")
        child = spawn_child()
        handle = None
        try:
            handle = os.pidfd_open(child)
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(1000):
                raise Refused("the machine is too busy for a self-test", passing=True)
            has_ended(child, wait=True)
            self._tells_status = exit_status(handle) == SELF_TEST_CODE << 8
            self._epoll = select.epoll()
        except AttributeError as error:
            raise Refused("this Python knows no pidfd_open") from error
        except OSError as error:
            # EMFILE, ENFILE, ENOMEM pass; ENOSYS (before 5.3) and EPERM (a container's system call filter) don't.
            passing = error.errno in PASSING
            raise Refused(f"pidfd_open: {error.strerror}", passing=passing) from error
        finally:
            if handle is not None:
                os.close(handle)
            end_child(child)

    def close(self) -> None:
        for handle in (*self._watches, *self._fresh.values()):
            os.close(handle)
        self._watches.clear()
        self._held.clear()
        self._fresh.clear()
        self._seeking.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def run(self, tracker: Tracker, mailbox: Mailbox) -> None:
        epoll = self._epoll
        if epoll is None:
            raise Failed("not open")
        if self._finder is None:
            epoll.register(mailbox.fileno(), select.EPOLLIN)
            tracker.survey()
            self._finder = Finder(tracker, self._hold_early)
            self._trigger()
        while True:
            timeout = mailbox.timeout(self._next_time())
            for handle, _ in epoll.poll(timeout):
                watch = self._watches.get(handle)
                if watch is not None:
                    self._ended(watch, tracker)
            orders = mailbox.take()
            if orders.course is not None:
                tracker.replace_course(orders.course)
                self._hold_all(tracker)
            if orders.trigger or orders.check:
                self._trigger()
            if mailbox.should_return(orders):
                return
            now = time.monotonic()
            if self._look_time() is not None and now >= (self._look_time() or 0.0):
                self._look(tracker, now)
            for watch in [watch for watch in self._seeking if now >= self._retry_time(watch)]:
                self._seek(watch, tracker)

    # looking

    def _trigger(self) -> None:
        self._triggered = time.monotonic()
        self._looks = -1  # one at once, then those of LOOKS

    def _look_time(self) -> float | None:
        """When the next look is due; None if none is."""
        if self._looks >= len(LOOKS):
            return None
        after = 0.0 if self._looks < 0 else LOOKS[self._looks]
        return max(self._triggered + after, self._rest_until)

    def _look(self, tracker: Tracker, now: float) -> None:
        assert self._finder is not None
        # A look that was held up stands for those that have become due meanwhile.
        while self._looks < len(LOOKS) and (self._looks < 0 or self._triggered + LOOKS[self._looks] <= now):
            self._looks += 1
        begun = time.thread_time()
        self._finder.find()
        self._hold_all(tracker)
        self.last_event_ms = now_ms()
        self._rest_until = time.monotonic() + min(_REST * (time.thread_time() - begun), _LONGEST_REST)
        if self._looks >= _ALWAYS and not self._finder.expects_more():
            self._looks = len(LOOKS)

    # holding

    def _hold_early(self, pid: int) -> None:
        """Hold a new process before it is read: so its end can't be missed, however soon it comes."""
        with suppress(OSError):  # gone already; or no descriptors are left, which _hold_all finds out
            self._fresh[pid] = os.pidfd_open(pid)

    def _hold_all(self, tracker: Tracker) -> None:
        """Have a pidfd of each reported process and of no other."""
        assert self._epoll is not None
        for pid, one in list(tracker.tracked.items()):
            handle = self._held.get(pid)
            if handle is not None and self._watches[handle].born == one.born:
                continue
            handle = self._fresh.pop(pid, None)
            if handle is None:
                try:
                    handle = os.pidfd_open(pid)
                except ProcessLookupError:
                    tracker.end_if_gone(pid, now_ms())
                    continue
            watch = _Watch(handle, pid, one.born)
            self._watches[handle] = watch
            self._held[pid] = handle
            self._epoll.register(handle, select.EPOLLIN)
        for handle in self._fresh.values():
            os.close(handle)
        self._fresh.clear()

    def _drop(self, watch: _Watch) -> None:
        del self._watches[watch.handle]
        if self._held.get(watch.pid) == watch.handle:
            del self._held[watch.pid]
        os.close(watch.handle)

    # ends

    def _ended(self, watch: _Watch, tracker: Tracker) -> None:
        assert self._epoll is not None
        self._epoll.unregister(watch.handle)
        watch.ended_at, watch.ended = now_ms(), time.monotonic()
        self.last_event_ms = watch.ended_at
        self._seeking.append(watch)
        self._seek(watch, tracker)

    def _seek(self, watch: _Watch, tracker: Tracker) -> None:
        """Report the end with its status, or ask again later, or give up."""
        assert watch.ended_at is not None
        known = tracker.tracked.get(watch.pid)
        mine = known is not None and known.born == watch.born
        status = exit_status(watch.handle)
        reaped = False
        if status is None:
            ended = tracker.reader.ended(watch.pid, watch.born)
            status = ended.status if ended is not None else None
            reaped = ended is not None and ended.status is None
            if reaped and self._tells_status:
                status = exit_status(watch.handle)  # reaped between the two questions
        hopeless = (reaped and not self._tells_status) or watch.tries >= len(_STATUS_RETRIES)
        if mine and status is None and not hopeless:
            watch.tries += 1
            return
        self._seeking.remove(watch)
        if mine:
            tracker.exited(watch.pid, watch.ended_at, status)
        self._drop(watch)

    @staticmethod
    def _retry_time(watch: _Watch) -> float:
        return watch.ended + _STATUS_RETRIES[min(watch.tries, len(_STATUS_RETRIES)) - 1]

    def _next_time(self) -> float | None:
        times = [self._retry_time(watch) for watch in self._seeking]
        look = self._look_time()
        if look is not None:
            times.append(look)
        return min(times) if times else None
