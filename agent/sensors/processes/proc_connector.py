"""The best level: the kernel tells of each EXEC and each EXIT, with the time and the wait status.

Promised: every process of every user is heard of within about a millisecond; only those of our user are looked
at; what the kernel dropped is known (ENOBUFS), said, and made good by a survey of the living.  What is reported
lives in `tracking`.

How: netlink's connector (linux/connector.h, linux/cn_proc.h), with nothing but `socket` and `struct`.  Since Linux
6.6 any user may listen, and a listen message of 8 bytes carries a mask of event kinds; before, it takes
CAP_NET_ADMIN, and the message has 4 bytes.  Both are sent: each kernel ignores the other's or is refined by it.  A
classic BPF filter is attached as well: it is the only filter on old kernels, and on new ones it also drops the
exits of threads (a node process has eleven), so that they don't wake us up.

Known to be weak: a program that ends within a millisecond may be gone before it is read (on a quiet machine 0.2 %
of 1 ms lives, 30 % of static programs that return at once; measured on Linux 6.18).  In another network namespace
the kernel refuses; in another pid or user namespace it stays silent: the self-test finds both.
"""

from __future__ import annotations

import array
import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import ClassVar

from ...core.observations import EventsLost
from ..clock import ms_of_monotonic_ns, now_ms
from .level import PASSING, SELF_TEST_CODE, Failed, Mailbox, Refused, end_child, has_ended, spawn_child
from .tracking import SENSOR, Tracker

_NETLINK_CONNECTOR = 11
_PROC_GROUP = _PROC_ID = 1  # CN_IDX_PROC, CN_VAL_PROC
_LISTEN = 1  # PROC_CN_MCAST_LISTEN
EXEC = 0x00000002
EXIT = 0x80000000

#: nlmsghdr (16 bytes), cn_msg (20), proc_event: what, cpu, timestamp_ns, process_pid, process_tgid, exit_code,
#: exit_signal, parent_pid, parent_tgid (from Linux 4.18; 0 before).
#: The kernel always sends the whole proc_event, 76 bytes in all.
_EVENT = struct.Struct("=I12xII8xHxxI4xQiiI8xi")

_RECEIVE_BYTES = 8 * 1024 * 1024
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_MEMINFO = 26, 33, 55
_DROPS = 8  # SK_MEMINFO_DROPS

#: Messages taken at once before other requests are looked at again.
_BATCH = 512

_SELF_TEST_S = 1.0
#: The kernel sends EXIT just after it told the parent; on a busy machine that may be some time slices.
_AFTER_REAPING_S = 0.25


def open_socket(*, kernel_filter: bool = True) -> socket.socket:
    """A socket that listens to EXEC and EXIT of all processes.  Raises OSError where the kernel refuses.

    `kernel_filter=False` leaves the 8-byte message out, as if the kernel were older than 6.6."""
    connection = socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR
    )
    try:
        _enlarge(connection, _RECEIVE_BYTES)
        _attach_filter(connection)
        connection.bind((0, _PROC_GROUP))
        connection.sendto(_request(struct.pack("=I", _LISTEN)), (0, 0))
        if kernel_filter:
            connection.sendto(_request(struct.pack("=II", _LISTEN, EXEC | EXIT)), (0, 0))
    except OSError:
        connection.close()
        raise
    return connection


def _enlarge(connection: socket.socket, size: int) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)  # needs CAP_NET_ADMIN
    except OSError:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)  # up to net.core.rmem_max, silently


def _attach_filter(connection: socket.socket) -> None:
    """Accept EXEC and EXIT of whole processes (pid == tgid).  The offsets are those of `_EVENT`; the loads are in
    network order, so the constants are turned."""
    load, load_to_x, equal, equal_x, give = 0x20, 0x07, 0x15, 0x1D, 0x06  # BPF_LD|W|ABS, MISC|TAX, JMP|JEQ|K, …|X, RET
    program = (
        (load, 0, 0, 36),  # what
        (equal, 1, 0, socket.htonl(EXEC)),
        (equal, 0, 5, socket.htonl(EXIT)),
        (load, 0, 0, 52),  # process_pid
        (load_to_x, 0, 0, 0),
        (load, 0, 0, 56),  # process_tgid
        (equal_x, 0, 1, 0),
        (give, 0, 0, 0xFFFFFFFF),
        (give, 0, 0, 0),
    )
    # struct sock_fprog holds a pointer; `array` knows its address without ctypes (0.5 MB).
    code = array.array("B", b"".join(struct.pack("=HBBI", *line) for line in program))
    address = code.buffer_info()[0]
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), address))


def _request(payload: bytes) -> bytes:
    body = struct.pack("=IIIIHH", _PROC_ID, _PROC_ID, 0, 0, len(payload), 0) + payload
    return struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body  # 3: NLMSG_DONE


class Connector:
    """The level "connector".  `open_socket` is a seam for tests."""

    name: ClassVar[str] = "connector"
    wants_opens: ClassVar[bool] = False
    blind_to = "programs that end within about a millisecond, on a saturated machine also some that end within 30"

    def __init__(self, open_socket: Callable[[], socket.socket] = open_socket) -> None:
        self._open_socket = open_socket
        self._socket: socket.socket | None = None
        self._buffer = bytearray(4096)
        self._last_ns = 0
        self._lost = False
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
            self._socket = self._open_socket()
        except OSError as error:
            reason = f"the kernel refuses process events: {error.strerror or error}"
            raise Refused(reason, passing=error.errno in PASSING) from error
        try:
            self._self_test(self._socket, None)
        except (Refused, OSError):
            self.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def run(self, tracker: Tracker, mailbox: Mailbox) -> None:
        connection = self._socket
        if connection is None:
            raise Failed("the socket is closed")
        if not self._surveyed:
            tracker.survey()
            self._surveyed = True
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(mailbox, select.POLLIN)
        while True:
            timeout = mailbox.timeout()
            ready = poll.poll(None if timeout is None else timeout * 1000 + 1)
            # Events first: a short life can't wait, a request can.
            if self._drain(connection, tracker) and self._lost:
                self._make_good(connection, tracker)
            if any(handle == mailbox.fileno() for handle, _ in ready) or mailbox.retry_at is not None:
                orders = mailbox.take()
                if orders.course is not None:
                    tracker.replace_course(orders.course)
                if mailbox.should_return(orders):
                    return
                if orders.check:
                    self._check(connection, tracker)

    def _drain(self, connection: socket.socket, tracker: Tracker | None) -> bool:
        """Handle what is in the socket, at most a batch; True if nothing is left in it."""
        buffer, receive, unpack, size = self._buffer, connection.recvfrom_into, _EVENT.unpack_from, _EVENT.size
        for _ in range(_BATCH):
            try:
                received, (sender, _group) = receive(buffer)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # Told once, however many were dropped; and while anything is left in the socket the kernel drops
                # all that follows (NETLINK_S_CONGESTED).  So: empty it first, then make good.
                self._lost = True
                continue
            if received == 0:
                raise Failed("the socket was shut")
            if sender != 0 or received < size:
                continue  # any process may send us a message; only the kernel's number is 0
            length, index, value, payload, what, at_ns, pid, tgid, status, parent = unpack(buffer)
            if index != _PROC_ID or value != _PROC_ID or pid != tgid or length > received or payload < 40:
                continue
            self._last_ns = at_ns
            if pid == self._child:
                if what == EXEC:
                    self._child_executed = True
                elif what == EXIT:
                    self._child_status = status
            elif tracker is None:
                continue
            elif what == EXEC:
                tracker.executed(pid, ms_of_monotonic_ns(at_ns))
            elif what == EXIT and pid in tracker.tracked:
                tracker.exited(pid, ms_of_monotonic_ns(at_ns), status)
            elif what == EXIT and pid in tracker.unread:
                tracker.exited_unread(pid, parent, ms_of_monotonic_ns(at_ns))
        return False

    def _make_good(self, connection: socket.socket, tracker: Tracker) -> None:
        """The kernel dropped events: say so, and report who lives."""
        self._lost = False
        drops = self._dropped(connection)
        count = f"{drops - self._drops} process events" if drops > self._drops else "process events"
        self._drops = max(drops, self._drops)
        now = now_ms()
        since = min(self.last_event_ms or now, now)
        tracker.put(EventsLost(now, since, SENSOR, f"the kernel dropped {count}: the buffer was full"))
        tracker.survey()

    @staticmethod
    def _dropped(connection: socket.socket) -> int:
        """How many messages the kernel has dropped for this socket so far; 0 where it doesn't tell."""
        try:
            info = connection.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
        except OSError:  # before Linux 4.12
            return 0
        numbers = array.array("I", info[: len(info) // 4 * 4])
        return numbers[_DROPS] if len(numbers) > _DROPS else 0

    def _check(self, connection: socket.socket, tracker: Tracker) -> None:
        try:
            self._self_test(connection, tracker)
        except Refused as refused:
            raise Failed(str(refused)) from refused

    def _self_test(self, connection: socket.socket, tracker: Tracker | None) -> None:
        """Start a child and demand its EXEC and its EXIT with the right status.  Takes 2 to 3 ms; raises Refused
        0.25 s after the child's end, or after 1 s."""
        self._child_executed, self._child_status = False, None
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        self._child = child = spawn_child()
        deadline = time.monotonic() + _SELF_TEST_S
        reaped = False
        try:
            while True:
                # Asked before the socket is read: what came in time counts, however long this thread was set aside.
                is_late = time.monotonic() >= deadline
                poll.poll(5)
                self._drain(connection, tracker)
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
