"""One socket that the kernel tells of each EXEC and each EXIT.  Everything that knows netlink's connector
(linux/connector.h, linux/cn_proc.h) lives here, with nothing but `socket` and `struct`.

Promised: nothing is believed that the kernel did not send; what it dropped is known (ENOBUFS).  What is made of the
events lives in `proc_connector`.

Since Linux 6.6 any user may listen, and a listen message of 8 bytes carries a mask of event kinds; before, it takes
CAP_NET_ADMIN, and the message has 4 bytes.  Both are sent: each kernel ignores the other's or is refined by it.  A
classic BPF filter is attached as well: it is the only filter on old kernels, and on new ones it also drops the
exits of threads (a node process has eleven), and those of processes that nobody asked for, so that they don't wake us
up.
"""

from __future__ import annotations

import array
import errno
import select
import socket
import struct
from collections.abc import Collection

from .level import Failed

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


#: What a message tells: what (EXEC or EXIT), when (ns, on the clock of `time.monotonic_ns`), pid; and of an EXIT the
#: wait status and the parent's pid.  (A plain tuple, because one is made at each wake-up.)
Message = tuple[int, int, int, int, int]


def open_socket(*, kernel_filter: bool = True) -> socket.socket:
    """A socket that listens to EXEC and EXIT of all processes.  Raises OSError where the kernel refuses.

    `kernel_filter=False` leaves the 8-byte message out, as if the kernel were older than 6.6."""
    connection = socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR
    )
    try:
        _enlarge(connection, _RECEIVE_BYTES)
        _attach_filter(connection, EXEC | EXIT, None)
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


def _attach_filter(connection: socket.socket, kinds: int, ends: Collection[int] | None) -> None:
    """Accept events of these kinds and of whole processes (pid == tgid), and EXIT only of the processes in `ends`, if
    any are given.  The offsets are those of `_EVENT`; the loads are in network order, so the constants are turned."""
    load, load_to_x, equal, equal_x, give = 0x20, 0x07, 0x15, 0x1D, 0x06  # BPF_LD|W|ABS, MISC|TAX, JMP|JEQ|K, …|X, RET
    names = ends if ends is not None else ()
    count = len(names)  # 248 at most: a jump is a byte
    program = (
        (load, 0, 0, 36),  # what
        (equal, count + (6 if kinds & EXEC else 5), 0, socket.htonl(EXEC)),
        (equal, 0, count + 4, socket.htonl(EXIT)),
        (load, 0, 0, 52),  # process_pid
        (load_to_x, 0, 0, 0),
        (load, 0, 0, 56),  # process_tgid
        (equal_x, 1 if ends is None else 0, count, 0),
        *((equal, count - number, 0, socket.htonl(pid)) for number, pid in enumerate(names)),
        (give, 0, 0, 0),
        (give, 0, 0, 0xFFFFFFFF),
    )
    # struct sock_fprog holds a pointer; `array` knows its address without ctypes (0.5 MB).
    code = array.array("B", b"".join(struct.pack("=HBBI", *line) for line in program))
    address = code.buffer_info()[0]
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), address))


def _request(payload: bytes) -> bytes:
    body = struct.pack("=IIIIHH", _PROC_ID, _PROC_ID, 0, 0, len(payload), 0) + payload
    return struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body  # 3: NLMSG_DONE


class Dropped(Exception):
    """The kernel dropped messages, because the buffer was full.

    That is told once, however many they were, and while anything is left in the socket the kernel drops all that
    follows (NETLINK_S_CONGESTED).  So: empty it first, then make good."""


class Listener:
    """One socket that tells of processes, and how it is read."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray(4096)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def hear_exits_only(self) -> None:
        """From now on it gets no EXEC; what it has got stays."""
        self._connection.sendto(_request(struct.pack("=II", _LISTEN, EXIT)), (0, 0))
        _attach_filter(self._connection, EXIT, None)

    def hear_exits_of(self, pids: Collection[int] | None) -> None:
        """From now on it gets each EXEC, but the EXIT of these processes only (None: of all).  Takes 35 us."""
        _attach_filter(self._connection, EXEC | EXIT, pids)

    def has_more(self) -> bool:
        return bool(self._poll.poll(0))

    def receive(self) -> Message | None:
        """The next message; None if there is none, or if it tells nothing.  Raises Dropped."""
        try:
            received, (sender, _group) = self._connection.recvfrom_into(self._buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise Dropped from error
            raise
        if received == 0:
            raise Failed("the socket was shut")
        if sender != 0 or received < _EVENT.size:
            return None  # any process may send us a message; only the kernel's number is 0
        length, index, value, payload, what, at_ns, pid, tgid, status, parent = _EVENT.unpack_from(self._buffer)
        if index != _PROC_ID or value != _PROC_ID or pid != tgid or length > received or payload < 40:
            return None
        return what, at_ns, pid, status, parent

    def dropped(self) -> int:
        """How many messages the kernel has dropped so far; 0 where it doesn't tell."""
        try:
            info = self._connection.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
        except OSError:  # before Linux 4.12
            return 0
        numbers = array.array("I", info[: len(info) // 4 * 4])
        return numbers[_DROPS] if len(numbers) > _DROPS else 0
