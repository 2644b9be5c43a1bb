"""What the three ways to see processes have in common: the contract of a level, and its mailbox.

A level runs in the one thread of `processes.ProcessSensor`.  It owns its file descriptors and nothing else: what
has been reported lives in `tracking.Tracker`, which outlives a change of level.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ...core.course import Course
from .tracking import Tracker

#: The exit code of the self-test's child.  An unusual one, so that a foreign event can't be taken for it.
SELF_TEST_CODE = 61

#: Errors that may be over in a while.
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR})


class Refused(Exception):
    """A level can't work here.  `passing`: it may work later (no file descriptors left, machine too busy)."""

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class Failed(Exception):
    """A level that worked stopped working; events may have been missed."""


class Level(Protocol):
    """One way to see processes.

    `open` proves with a child of its own that it works, in about 3 ms (1 s at most), or raises Refused.  `run`
    begins with a survey, then observes until the mailbox says stop or its `retry_at` has come, and may then be
    called again; it raises Failed (or OSError) when it can't go on.  `close` may be called at any time.
    `last_event_ms`: when it last saw anything of any process; 0 if never.
    """

    name: ClassVar[str]
    wants_opens: ClassVar[bool]

    @property
    def blind_to(self) -> str: ...
    @property
    def last_event_ms(self) -> int: ...
    def open(self, mailbox: Mailbox) -> None: ...
    def run(self, tracker: Tracker, mailbox: Mailbox) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Orders:
    """What was asked since the last time."""

    stop: bool = False
    trigger: bool = False
    check: bool = False
    course: Course | None = None


class Mailbox:
    """What other threads ask of the sensor's thread, with the file descriptor that wakes it up.

    Requests of one kind are joined until they are taken.  `retry_at` is on the clock of `time.monotonic`; only
    the sensor's thread touches it.

    A level waits for `fileno` and for nothing else of this.  So what the sensor's thread wants to hear besides (and
    only for a while) hangs on it: on Linux it is an epoll descriptor.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders = Orders()
        self._waiting = False
        self._closed = False
        self._listeners: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None
        self.retry_at: float | None = None
        if sys.platform == "linux":
            self._read = self._write = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll = select.epoll()
            self._epoll.register(self._read, select.EPOLLIN)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read if self._epoll is None else self._epoll.fileno()

    def listen(self, handle: int, ready: Callable[[], None]) -> bool:
        """From now on a readable `handle` wakes the sensor's thread up, and `ready` is called in it by each `take`.
        `ready` has to read the handle empty.  False where this can't be had (macOS).  Sensor's thread only."""
        if self._epoll is None:
            return False
        self._epoll.register(handle, select.EPOLLIN)
        self._listeners[handle] = ready
        return True

    def ignore(self, handle: int) -> None:
        """Undo `listen`, before the handle is closed.  Sensor's thread only."""
        if self._listeners.pop(handle, None) is not None and self._epoll is not None:
            self._epoll.unregister(handle)

    def post(
        self, *, stop: bool = False, trigger: bool = False, check: bool = False, course: Course | None = None
    ) -> None:
        with self._lock:
            orders = self._orders
            orders.stop |= stop
            orders.trigger |= trigger
            orders.check |= check
            if course is not None:
                orders.course = course
            if not self._waiting and not self._closed:
                self._waiting = True
                # Eight bytes are one increment of an eventfd, and fit any pipe.
                os.write(self._write, (1).to_bytes(8, sys.byteorder))

    def take(self) -> Orders:
        """All that was asked.  A stop stays asked."""
        for ready in list(self._listeners.values()):
            ready()
        with self._lock:
            if self._waiting:
                self._waiting = False
                os.read(self._read, 8)
            orders, self._orders = self._orders, Orders(stop=self._orders.stop)
            return orders

    def asked_to_stop(self) -> bool:
        with self._lock:
            return self._orders.stop

    def timeout(self, at: float | None = None) -> float | None:
        """Seconds until the earlier of `at` and `retry_at`, 0 if it is past; None: no need to wake up."""
        times = [moment for moment in (at, self.retry_at) if moment is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def should_return(self, orders: Orders) -> bool:
        return orders.stop or (self.retry_at is not None and time.monotonic() >= self.retry_at)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._epoll is not None:
                    self._epoll.close()
                for handle in {self._read, self._write}:
                    os.close(handle)


def spawn_child() -> int:
    """Start the self-test's child, which ends at once with SELF_TEST_CODE; returns its pid.  1 ms with a shell."""
    for command in (
        ["/bin/sh", "-c", f"exit {SELF_TEST_CODE}"],
        [sys.executable, "-S", "-c", f"raise SystemExit({SELF_TEST_CODE})"],
    ):
        try:
            return os.posix_spawn(command[0], command, {}, setsigmask=())
        except OSError as error:
            reason = error
    raise Refused(f"the self-test could not start a process: {reason.strerror}", passing=True)


def has_ended(child: int, *, wait: bool = False) -> bool:
    """Whether our child is over; reaps it then."""
    try:
        return os.waitpid(child, 0 if wait else os.WNOHANG)[0] == child
    except ChildProcessError:  # somebody else reaped it, or SIGCHLD is ignored
        return True


def end_child(child: int) -> None:
    """Leave no child behind, whatever state it is in.  A child that isn't reaped keeps its pid: no other is killed."""
    if not has_ended(child):
        os.kill(child, signal.SIGKILL)
        has_ended(child, wait=True)
