"""What Linux knows of a process and tells anybody: memory, CPU time, context switches, threads, inotify watches.

Besides, the two listeners with which the benchmarks stand outside of the agent: `ProcessEvents` hears every exec and
exit of the machine with the kernel's own time, `FileEvents` what happens in a directory.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.sensors.processes.proc_socket import EXEC, EXIT, open_socket

IN_MODIFY, IN_CLOSE_WRITE, IN_CREATE = 0x2, 0x8, 0x100

#: nlmsghdr, cn_msg, proc_event (linux/cn_proc.h): what, cpu, timestamp_ns, process_pid, process_tgid.
_PROCESS_EVENT = struct.Struct("=16x20xI4xQII")
_INOTIFY_EVENT = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB.  `uss` is what would be free if the process ended; `peak` is the largest RSS so far."""

    rss: float
    pss: float
    uss: float
    peak: float


def memory(pid: int) -> Memory:
    found: dict[str, float] = {}
    for path in (f"/proc/{pid}/smaps_rollup", f"/proc/{pid}/status"):
        with open(path, encoding="ascii", errors="replace") as stream:
            for line in stream:
                words = line.split()
                if len(words) == 3 and words[2] == "kB":
                    found[words[0]] = int(words[1]) / 1024
    uss = found["Private_Clean:"] + found["Private_Dirty:"]
    return Memory(found["Rss:"], found["Pss:"], uss, found["VmHWM:"])


@dataclass(frozen=True, slots=True)
class Effort:
    """Since the process began: CPU time in ms, and how often each living thread was put to sleep or set aside."""

    cpu_ms: float
    switches: Mapping[int, int]

    def since(self, before: Effort) -> Effort:
        switches = {thread: count - before.switches.get(thread, 0) for thread, count in self.switches.items()}
        return Effort(self.cpu_ms - before.cpu_ms, switches)

    @property
    def wake_ups(self) -> int:
        return sum(self.switches.values())

    @property
    def busiest(self) -> int:
        return max(self.switches.values(), default=0)


def effort(pid: int) -> Effort:
    """Voluntary and involuntary switches, of all threads; CPU time to the nanosecond where the kernel counts it so."""
    cpu_ns = 0
    switches: dict[int, int] = {}
    for name in os.listdir(f"/proc/{pid}/task"):
        task = f"/proc/{pid}/task/{name}"
        with open(f"{task}/status", encoding="ascii", errors="replace") as stream:
            switches[int(name)] = sum(int(line.split()[1]) for line in stream if "voluntary_ctxt_switches" in line)
        try:
            with open(f"{task}/schedstat", encoding="ascii") as stream:
                cpu_ns += int(stream.read().split()[0])
        except FileNotFoundError:  # a kernel without CONFIG_SCHED_INFO: 10 ms steps
            with open(f"{task}/stat", encoding="ascii", errors="replace") as stream:
                fields = stream.read().rpartition(")")[2].split()
            cpu_ns += (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return Effort(cpu_ns / 1e6, switches)


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def inotify_watches(pid: int) -> int:
    count = 0
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{name}", encoding="ascii", errors="replace") as stream:
                count += sum(line.startswith("inotify wd:") for line in stream)
        except FileNotFoundError:  # closed meanwhile
            continue
    return count


def file_system(path: str) -> str:
    """The type of the file system that holds this path, as the table of mounts names it."""
    best, kind = "", "unknown"
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            _, where, found, *_ = line.split()
            if (path + "/").startswith(where.rstrip("/") + "/") and len(where) >= len(best):
                best, kind = where, found
    return kind


def stolen() -> tuple[int, int]:
    """Time (in ticks, of all processors) that a host gave to others while we wanted to run, and time in all."""
    with open("/proc/stat", encoding="ascii") as stream:
        ticks = [int(word) for word in stream.readline().split()[1:9]]
    return ticks[7], sum(ticks)


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """`at_ns` is the kernel's stamp, on the clock of `time.monotonic_ns`."""

    is_exit: bool
    pid: int
    at_ns: int


class ProcessEvents:
    """Every exec and exit of the machine.  Raises OSError where the kernel tells nobody."""

    def __init__(self) -> None:
        self._socket: socket.socket = open_socket()

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> Iterator[ProcessEvent]:
        """All that wait.  The kernel keeps some thousand (8 MB as root, else up to net.core.rmem_max)."""
        while True:
            try:
                message = self._socket.recv(4096)
            except BlockingIOError:
                return
            if len(message) >= _PROCESS_EVENT.size:
                what, at_ns, pid, group = _PROCESS_EVENT.unpack_from(message)
                if what in (EXEC, EXIT) and pid == group:
                    yield ProcessEvent(what == EXIT, pid, at_ns)

    def close(self) -> None:
        self._socket.close()


def maybe_process_events() -> ProcessEvents | None:
    """None where the kernel refuses them, as in most containers."""
    try:
        return ProcessEvents()
    except OSError:
        return None


class FileEvents:
    """inotify on one directory."""

    def __init__(self, directory: str, mask: int) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0 or library.inotify_add_watch(self._descriptor, os.fsencode(directory), mask) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)

    def fileno(self) -> int:
        return self._descriptor

    def take(self) -> set[str]:
        """The names that something happened to since the last time."""
        names: set[str] = set()
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return names
        place = 0
        while place < len(data):
            length = _INOTIFY_EVENT.unpack_from(data, place)[3]
            place += _INOTIFY_EVENT.size + length
            names.add(os.fsdecode(data[place - length : place].rstrip(b"\0")))
        return names

    def close(self) -> None:
        os.close(self._descriptor)


def wait_for(*sources: ProcessEvents | FileEvents | int, seconds: float) -> list[int]:
    """The file descriptors that have something; empty when the time is over."""
    poll = select.poll()
    for source in sources:
        poll.register(source, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(seconds * 1000)]
