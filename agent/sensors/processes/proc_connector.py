"""The best level: the kernel tells of each EXEC and each EXIT, with the time and the wait status.

Promised: every process of every user is heard of within about a millisecond; only those of our user are looked
at; what the kernel dropped is known, said, and made good by a survey of the living.  What is reported lives in
`tracking`, how the kernel tells in `proc_socket`.

Every program of the machine wakes every agent up, and that is what costs (measured: 35 us, because the caches are
cold, and what is done then as much again).  So there are two sockets.  `events` wakes us: it gets each EXEC, and the
EXITs of those whom its filter names.  `ends` gets each EXIT.  Who was reported just now is waited for there; when that
has woken us for others often enough, the filter names everybody who was reported, and from then on `ends` is only
emptied now and then.  (Not at once: a change of the filter takes 35 us, and milliseconds on a busy machine.)  So
another user's program wakes us up once.

The order is that of the kernel's stamps: what was found in `ends` waits until `events` has come so far.

Known to be weak: a program that ends within a millisecond may be gone before it is read (on a quiet machine 0.2 %
of 1 ms lives, 30 % of static programs that return at once; measured on Linux 6.18).  Hundreds of forks at once that
execute nothing fill `ends`: who ends then, and was reported just before or is reported next, loses his exit code, and
that is said.  In another network namespace the kernel refuses; in another pid or user namespace it stays silent: the
self-test finds both.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from ...core.observations import EventsLost
from ..clock import ms_of_monotonic_ns, now_ms
from .level import PASSING, SELF_TEST_CODE, Failed, Mailbox, Refused, end_child, has_ended, spawn_child
from .proc_socket import EXEC, EXIT, Dropped, Listener, open_socket
from .tracking import SENSOR, Tracker

#: So many programs may be executed until `ends` is emptied: an ordinary user's buffer holds some 550 messages.
_PASSING = 32

#: So many EXITs of others may wake us before the filter is changed.
_IN_VAIN = 16

#: So many processes are named at most; beyond, each EXIT wakes us.  Each costs 2 us when the filter is made.
_MOST_NAMED = 64

#: Messages taken at once before other requests are looked at.
_BATCH = 512

_SELF_TEST_S = 1.0
#: The kernel sends EXIT just after it told the parent; on a busy machine that may be some time slices.
_AFTER_REAPING_S = 0.25


class Exit(NamedTuple):
    """`at_ns` is on the clock of `time.monotonic_ns`."""

    at_ns: int
    pid: int
    status: int
    parent: int


class Connector:
    """The level "connector".  `open_socket` is a seam for tests."""

    name: ClassVar[str] = "connector"
    wants_opens: ClassVar[bool] = False
    blind_to = "programs that end within about a millisecond, on a saturated machine also some that end within 30"

    _events: Listener  # both from `open` on
    _ends: Listener

    def __init__(self, open_socket: Callable[[], socket.socket] = open_socket) -> None:
        self._open_socket = open_socket
        self._open: list[Listener] = []
        self._last_ns = 0  # how far `events` has come
        self._passed = 0  # EXECs since `ends` was read
        self._early: list[Exit] = []  # read from `ends`, and not handled yet
        self._named: frozenset[int] = frozenset()
        self._unnamed: dict[int, int] = {}  # whose EXIT is waited for in `ends`, and since when (ns)
        self._in_vain = 0  # EXITs of others meanwhile
        self._lost = False
        self._blind_until_ns = 0  # `ends` was full: some EXITs of the time before may be missing
        self._drops = 0
        self._surveyed = False
        self._child = 0  # of a self-test under way
        self._child_executed = False
        self._child_status: int | None = None

    @property
    def last_event_ms(self) -> int:
        return ms_of_monotonic_ns(self._last_ns) if self._last_ns else 0

    def open(self, mailbox: Mailbox) -> None:
        try:
            self._events = self._opened()
            # After the other, because who came last is told first (sk_add_bind_node in net/netlink/af_netlink.c): an
            # EXIT that `events` doesn't get, for want of a name, lies in `ends` already.
            self._ends = self._opened()
            self._ends.hear_exits_only()
            self._events.hear_exits_of(())
        except OSError as error:
            self.close()
            reason = f"the kernel refuses process events: {error.strerror or error}"
            raise Refused(reason, passing=error.errno in PASSING) from error
        try:
            self._self_test(None)
        except (Refused, OSError):
            self.close()
            raise

    def _opened(self) -> Listener:
        self._open.append(Listener(self._open_socket()))
        return self._open[-1]

    def close(self) -> None:
        for each in self._open:
            each.close()
        self._open.clear()

    def run(self, tracker: Tracker, mailbox: Mailbox) -> None:
        if not self._open:
            raise Failed("the sockets are closed")
        both, one = select.poll(), select.poll()
        for poll in (both, one):
            poll.register(self._events, select.POLLIN)
            poll.register(mailbox, select.POLLIN)
        both.register(self._ends, select.POLLIN)
        if not self._surveyed:
            self._survey(tracker)
            self._surveyed = True
        usual = [(self._events.fileno(), select.POLLIN)]
        timeout = self._timeout_ms(mailbox)
        while True:
            poll = both if self._unnamed else one
            ready = poll.poll(0 if self._early or self._lost else timeout)
            # Events first: a short life can't wait, a request can.
            if ready == usual and timeout is None:
                self._hear(tracker)
                continue
            self._handle(tracker)
            if any(handle == mailbox.fileno() for handle, _ in ready) or mailbox.retry_at is not None:
                orders = mailbox.take()
                if orders.course is not None:
                    since_ns = time.monotonic_ns()
                    tracker.replace_course(orders.course)
                    self._follow(tracker, since_ns)
                if mailbox.should_return(orders):
                    self._handle_all(tracker)
                    return
                if orders.check:
                    self._check(tracker)
            timeout = self._timeout_ms(mailbox)

    @staticmethod
    def _timeout_ms(mailbox: Mailbox) -> float | None:
        timeout = mailbox.timeout()
        return None if timeout is None else timeout * 1000 + 1

    def _handle_all(self, tracker: Tracker) -> None:
        """Handle what there is, at most a batch."""
        for _ in range(_BATCH):
            if not self._handle(tracker):
                break

    def _handle(self, tracker: Tracker) -> bool:
        """Handle the next event, and before it the ends before it.  False if there was nothing to do."""
        has_event = self._events.has_more()
        if self._unnamed:
            self._hear_ends(tracker)
            if self._in_vain >= _IN_VAIN:
                self._name(tracker)
        if has_event:
            self._hear(tracker)
        elif self._events.has_more():
            pass  # what was read from `ends` may be newer, or not all that is older
        elif self._early:
            self._settle(tracker)
        elif self._lost:
            self._make_good(tracker)
        else:
            return False
        return True

    def _hear(self, tracker: Tracker | None) -> None:
        """Handle the next event that woke us.  (One: to be told by an exception that there is no other would cost
        25 us, because the caches are cold.)"""
        try:
            message = self._events.receive()
        except Dropped:
            self._lost = True
            return
        if message is None:
            return
        what, at_ns, pid, status, parent = message
        if self._early and tracker is not None:
            self._settle(tracker, at_ns)
        self._last_ns = at_ns
        if pid == self._child:
            self._hear_child(what, status)
        elif tracker is None:
            return
        elif what == EXEC:
            if tracker.executed(pid, ms_of_monotonic_ns(at_ns)):
                self._follow(tracker, at_ns)
            self._passed += 1
            if self._passed >= _PASSING:
                self._tidy(tracker)
        elif what == EXIT:
            self._exited(tracker, Exit(at_ns, pid, status, parent))

    def _exited(self, tracker: Tracker, end: Exit) -> None:
        if end.pid in tracker.tracked:
            tracker.exited(end.pid, ms_of_monotonic_ns(end.at_ns), end.status)
        elif end.pid in tracker.unread:
            tracker.exited_unread(end.pid, end.parent, ms_of_monotonic_ns(end.at_ns), end.status)
        self._unnamed.pop(end.pid, None)

    # the ends

    def _follow(self, tracker: Tracker, since_ns: int) -> None:
        """Wait for the ends of those who were reported since `since_ns`."""
        new = dict.fromkeys({*tracker.tracked, *tracker.unread} - self._named, since_ns)
        if not new.keys() <= self._unnamed.keys():
            self._unnamed = new | self._unnamed
            if since_ns < self._blind_until_ns:
                self._doubt(tracker)

    def _name(self, tracker: Tracker) -> None:
        """From now on `events` tells of the end of everybody who was reported."""
        self._named = frozenset({*tracker.tracked, *tracker.unread})
        self._events.hear_exits_of(self._named if len(self._named) <= _MOST_NAMED else None)
        self._hear_ends(tracker)  # what the filter still dropped
        self._unnamed.clear()
        self._in_vain = 0

    def _hear_ends(self, tracker: Tracker | None) -> None:
        """Empty `ends`.  Kept is an EXIT that is waited for, and one that may be because the EXEC of its process may
        still lie in `events`.  (That can't be if it is older than what came out last.)"""
        self._passed = 0
        is_full = False
        while self._ends.has_more():
            try:
                message = self._ends.receive()
            except Dropped:
                is_full = True
                continue
            if message is None:
                continue
            what, at_ns, pid, status, parent = message
            if pid == self._child:
                self._hear_child(what, status)
                continue
            if tracker is None or what != EXIT:
                continue
            if at_ns >= self._unnamed.get(pid, self._last_ns):
                self._early.append(Exit(at_ns, pid, status, parent))
            if self._unnamed and pid not in self._unnamed:
                self._in_vain += 1
        if is_full and tracker is not None:
            self._blind_until_ns = time.monotonic_ns()
            self._doubt(tracker)

    def _doubt(self, tracker: Tracker) -> None:
        """`ends` was full: who is over, but was not told to be, will never be."""
        told = {end.pid for end in self._early}
        if any(tracker.is_over(pid) for pid in self._unnamed if pid not in told):
            self._lost = True

    def _settle(self, tracker: Tracker, until_ns: int | None = None) -> None:
        """Handle what was read early, as far as `events` has come; None: nothing is left in it."""
        early, self._early = self._early, []
        for end in early:
            if until_ns is None or end.at_ns <= until_ns:
                self._exited(tracker, end)
            else:
                self._early.append(end)

    def _tidy(self, tracker: Tracker) -> None:
        """Before `ends` is full.  And a crowd that is gone shall wake us no more."""
        self._hear_ends(tracker)
        if len(self._named) > _MOST_NAMED >= len(tracker.tracked) + len(tracker.unread):
            self._name(tracker)

    # losses

    def _survey(self, tracker: Tracker) -> None:
        since_ns = time.monotonic_ns()
        tracker.survey()
        self._follow(tracker, since_ns)

    def _make_good(self, tracker: Tracker) -> None:
        """The kernel dropped events: say so, and report who lives."""
        self._lost = False
        drops = self._events.dropped() + self._ends.dropped()
        count = f"{drops - self._drops} process events" if drops > self._drops else "process events"
        self._drops = max(drops, self._drops)
        now = now_ms()
        since = min(self.last_event_ms or now, now)
        tracker.put(EventsLost(now, since, SENSOR, f"the kernel dropped {count}: the buffer was full"))
        tracker.unread.clear()  # of their ends nobody may tell any more
        self._survey(tracker)

    # the self-test

    def _check(self, tracker: Tracker) -> None:
        try:
            self._self_test(tracker)
        except Refused as refused:
            raise Failed(str(refused)) from refused

    def _self_test(self, tracker: Tracker | None) -> None:
        """Start a child and demand its EXEC and its EXIT with the right status.  Takes 2 to 3 ms; raises Refused
        0.25 s after the child's end, or after 1 s."""
        self._child_executed, self._child_status = False, None
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        poll.register(self._ends, select.POLLIN)
        self._child = child = spawn_child()
        deadline = time.monotonic() + _SELF_TEST_S
        reaped = False
        try:
            while True:
                # Asked before the sockets are read: what came in time counts, however long this thread was set aside.
                is_late = time.monotonic() >= deadline
                poll.poll(5)
                self._hear_ends(tracker)
                for _ in range(_BATCH):
                    if not self._events.has_more():
                        break
                    self._hear(tracker)
                if self._child_executed and self._child_status is not None:
                    break
                if is_late:
                    if reaped and not self._lost:
                        raise Refused("the kernel sends no process events here")
                    raise Refused("the machine is too busy for a self-test", passing=True)
                if not reaped and has_ended(child):
                    reaped = True
                    deadline = min(deadline, time.monotonic() + _AFTER_REAPING_S)
            if self._child_status != SELF_TEST_CODE << 8:
                raise Refused("process events here speak of other processes")
        finally:
            self._child = 0
            if not reaped:
                end_child(child)

    def _hear_child(self, what: int, status: int) -> None:
        if what == EXEC:
            self._child_executed = True
        elif what == EXIT:
            self._child_status = status
