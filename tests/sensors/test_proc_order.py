"""The two sockets of the proc connector with a kernel that is made up: what comes in which order, what is dropped,
whose number is used again.  Its sockets run the filter that was attached, and what happens while the connector is at
work happens exactly then."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from agent.core.course import Course
from agent.core.observations import EventsLost, Observation, ProcessesListed, ProcessExecuted, ProcessExited
from agent.sensors.processes.level import Mailbox
from agent.sensors.processes.proc_connector import _IN_VAIN, _MOST_NAMED, _PASSING, Connector
from agent.sensors.processes.proc_socket import EXEC, EXIT
from agent.sensors.processes.procfs import FOREIGN, Ended, Look, Words
from agent.sensors.processes.tracking import Tracker, Unread
from tests.until import until

ROOT = "/course"
SHELL = 5  # an interactive shell in the course
FIRST = 100  # of the pids that tests use


class MadeSocket(socket.socket):
    """The reading end of a pair.  `capacity`: so many messages fit in; what comes then is dropped until it is empty."""

    def __init__(self) -> None:
        mine, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        super().__init__(fileno=mine.detach())
        self.setblocking(False)
        self.capacity = 1_000
        self.waiting = self.received = self.drops = 0
        self.is_congested = self.has_error = False
        self.filter: list[tuple[int, int, int, int]] = []
        self.before_filter: Callable[[], None] = lambda: None
        self.before_receive: Callable[[], None] = lambda: None

    def close(self) -> None:
        self.other.close()
        super().close()

    def tell(self, message: bytes) -> None:
        if not self.accepts(message):
            return
        if self.is_congested or self.waiting >= self.capacity:
            self.has_error = self.has_error or not self.is_congested
            self.is_congested = True
            self.drops += 1
            return
        self.waiting += 1
        self.other.send(message)

    def accepts(self, message: bytes) -> bool:
        place = accumulator = index = 0
        while True:
            code, if_true, if_false, constant = self.filter[place]
            place += 1
            match code:
                case 0x20:
                    (accumulator,) = struct.unpack_from("!I", message, constant)
                case 0x07:
                    index = accumulator
                case 0x15:
                    place += if_true if accumulator == constant else if_false
                case 0x1D:
                    place += if_true if accumulator == index else if_false
                case 0x06:
                    return constant != 0
                case _:
                    raise AssertionError(f"no such instruction: {code:#x}")

    def setsockopt(self, level: int, option: int, value: Any, *_: Any) -> None:
        if option == 26:  # SO_ATTACH_FILTER
            self.before_filter()
            count, address = struct.unpack("@HP", value)
            self.filter = list(struct.iter_unpack("=HBBI", ctypes.string_at(address, count * 8)))

    def getsockopt(self, *_: Any) -> Any:
        return struct.pack("=9I", *[0] * 8, self.drops)

    def sendto(self, *_: Any) -> int:
        return 0

    def recvfrom_into(self, buffer: Any, *_: Any) -> Any:
        self.before_receive()
        if self.has_error:
            self.has_error = False
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        size = self.recv_into(buffer)
        self.waiting -= 1
        self.received += 1
        self.is_congested = self.is_congested and self.waiting > 0
        return size, (0, 1)


class Kernel:
    """Processes, and what is told of them.  Its clock goes on by a microsecond with each event, from `ago_ms` on.

    It is a `tracking.Reader`, too: of who is alive.  `while_read` is called with a pid in the middle of reading it.
    """

    def __init__(self, ago_ms: int = 0) -> None:
        self.sockets: list[MadeSocket] = []
        self.at_ns = time.monotonic_ns() - ago_ms * 1_000_000
        self.alive: dict[int, tuple[int, int, Words]] = {}  # pid -> born, parent, words
        self.while_read: Callable[[int], None] = lambda pid: None
        self.births = 0
        self.fork(SHELL, Words(("bash",), ROOT, None))

    def open_socket(self) -> socket.socket:
        made = MadeSocket()
        self.sockets.append(made)
        return made

    @property
    def events(self) -> MadeSocket:
        return self.sockets[0]

    @property
    def ends(self) -> MadeSocket:
        return self.sockets[1]

    def _tell(self, what: int, pid: int, status: int, parent: int) -> None:
        self.at_ns += 1_000
        body = struct.pack(
            "=IIIIHHIIQiiIIii", 1, 1, 0, 0, 40, 0, what, 0, self.at_ns, pid, pid, status, 17, parent, parent
        )
        message = struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body
        for each in reversed(self.sockets):  # who came last is told first
            each.tell(message)

    def fork(self, pid: int, words: Words) -> None:
        self.births += 1
        self.alive[pid] = (self.births, 1 if pid == SHELL else SHELL, words)

    def execute(self, pid: int, words: Words | None = None) -> None:
        """The shell starts a program: one of the course if nothing else is said."""
        self.fork(pid, words or Words(("python", "app.py", str(pid)), ROOT, None))
        self._tell(EXEC, pid, 0, 0)

    def exit(self, pid: int, code: int = 0) -> None:
        _, parent, words = self.alive.pop(pid)
        if words is FOREIGN:
            self.alive[pid] = (0, parent, FOREIGN)  # a zombie still shows whose it is
        self._tell(EXIT, pid, code << 8, parent)

    def run_foreign(self, count: int, first: int = 10_000) -> None:
        for pid in range(first, first + count):
            self.execute(pid, FOREIGN)
            self.exit(pid)

    def fork_only(self, count: int) -> None:
        """Of another user; they end at once."""
        for pid in range(20_000, 20_000 + count):
            self.fork(pid, FOREIGN)
            self.exit(pid)

    def pids(self) -> Mapping[int, int]:
        return {pid: born for pid, (born, _, _) in self.alive.items()}

    def is_mine(self, pid: int) -> bool:
        return pid in self.alive and self.alive[pid][2] is not FOREIGN

    def argv(self, pid: int) -> tuple[str, ...] | None:
        return self.alive[pid][2].argv if pid in self.alive else None

    def words(self, pid: int) -> Words | None:
        return self.alive[pid][2] if pid in self.alive else None

    def look(self, pid: int, words: Words | None = None) -> Look | None:
        found = self.alive.get(pid)
        self.while_read(pid)
        if found is None or found[2] is FOREIGN:
            return None
        born, parent, known = found
        return Look(pid, born, parent, known, True, time.time_ns() // 1_000_000, born)

    def ended(self, pid: int, born: int) -> Ended | None:
        return None if pid in self.alive and self.alive[pid][0] == born else Ended(None)


class Bench:
    """A connector at work for this kernel, in the test's own thread.  `rested`: what is reported is named."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.put: list[Observation] = []
        self.mailbox = Mailbox()
        self.connector = Connector(kernel.open_socket)
        self.tracker = Tracker(Course(root=ROOT, slug="course", steps=()), self.put.append, kernel)
        self.connector._self_test = lambda tracker: None  # type: ignore[method-assign]
        self.connector.open(self.mailbox)

    def work(self) -> None:
        """Until nothing is left to do."""
        # A stop is heeded when all that woke us is handled.
        self.mailbox.post(stop=True)
        self.connector.run(self.tracker, self.mailbox)
        self.mailbox._orders.stop = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """In a thread of its own, until nobody asks any more."""
        thread = threading.Thread(target=self.connector.run, args=(self.tracker, self.mailbox))
        thread.start()
        try:
            yield
        finally:
            self.mailbox.post(stop=True)
            thread.join()

    def rested(self) -> None:
        self.work()
        self.kernel.run_foreign(_IN_VAIN)
        self.work()
        assert not self.connector._unnamed
        self.kernel.ends.received = self.kernel.events.received = 0

    def story(self) -> list[tuple[str, int] | tuple[str, int, int | None]]:
        """What was put of the programs that were executed, in order: with their exit codes."""
        told: list[tuple[str, int] | tuple[str, int, int | None]] = []
        for one in self.put:
            match one:
                case ProcessExecuted(found=False):
                    told.append(("executed", one.pid))
                case ProcessExited():
                    told.append(("exited", one.pid, one.exit_code))
        return told

    def lost(self) -> list[str]:
        return [one.reason for one in self.put if isinstance(one, EventsLost)]


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def bench(kernel: Kernel) -> Iterator[Bench]:
    bench = Bench(kernel)
    bench.rested()
    assert list(bench.tracker.tracked) == [SHELL]
    bench.put.clear()
    yield bench
    bench.connector.close()
    bench.mailbox.close()


def once(happens: Callable[[], None]) -> Callable[..., None]:
    """Only at the first call."""
    still = deque([happens])

    def call(*_: object) -> None:
        if still:
            still.popleft()()

    return call


def test_another_users_program_wakes_us_once(kernel: Kernel, bench: Bench) -> None:
    kernel.run_foreign(10)
    bench.work()
    assert (kernel.events.received, kernel.ends.received) == (10, 0)
    assert bench.put == []


def test_who_was_just_reported_is_waited_for_without_another_filter(kernel: Kernel, bench: Bench) -> None:
    kernel.events.before_filter = pytest.fail
    kernel.execute(FIRST)
    bench.work()
    kernel.run_foreign(_IN_VAIN - 1)
    bench.work()
    kernel.exit(FIRST, 3)
    assert (kernel.events.waiting, kernel.ends.waiting) == (0, 1)
    bench.work()
    assert bench.story() == [("executed", FIRST), ("exited", FIRST, 3)]
    kernel.run_foreign(_PASSING // 2)
    bench.work()
    assert kernel.ends.waiting == _PASSING // 2, "nobody is waited for any more"


def test_the_exits_of_others_are_cleared_away_before_they_are_too_many(kernel: Kernel, bench: Bench) -> None:
    kernel.run_foreign(_PASSING)
    bench.work()
    kernel.run_foreign(_PASSING)
    bench.work()
    assert kernel.ends.waiting < _PASSING
    assert bench.put == []


def test_an_exit_while_the_process_is_read_is_told_after_its_exec(kernel: Kernel, bench: Bench) -> None:
    kernel.while_read = once(lambda: kernel.exit(FIRST, 3))
    kernel.execute(FIRST)
    bench.work()
    assert bench.story() == [("executed", FIRST), ("exited", FIRST, 3)]


def test_what_waits_for_its_turn_is_told_though_nothing_happens_any_more(kernel: Kernel, bench: Bench) -> None:
    kernel.execute(FIRST)
    bench.work()
    kernel.execute(FIRST + 1)
    kernel.exit(FIRST, 3)
    with bench.working():
        until(lambda: bench.story()[1:] == [("executed", FIRST + 1), ("exited", FIRST, 3)])


def test_a_loss_is_told_though_nothing_happens_any_more(kernel: Kernel, bench: Bench) -> None:
    kernel.events.capacity = 10
    kernel.run_foreign(20)
    with bench.working():
        until(lambda: len(bench.lost()) == 1)


def test_at_rest_the_exits_of_others_wake_nobody(kernel: Kernel, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.connector, "_handle", pytest.fail)
    with bench.working():
        kernel.fork_only(3)
        kernel.run_foreign(3)
        until(lambda: kernel.events.received == 3)
        kernel.fork_only(3)
        monkeypatch.undo()
    assert bench.put == []


def test_an_exit_just_before_the_filter_names_the_process_is_not_missed(kernel: Kernel, bench: Bench) -> None:
    kernel.execute(FIRST)
    kernel.events.before_filter = once(lambda: kernel.exit(FIRST, 3))
    bench.rested()
    assert bench.story() == [("executed", FIRST), ("exited", FIRST, 3)]


def test_an_exit_after_the_filter_names_the_process_wakes_us(kernel: Kernel, bench: Bench) -> None:
    kernel.execute(FIRST)
    bench.rested()
    kernel.exit(FIRST, 3)
    assert kernel.events.waiting == 1
    bench.work()
    assert bench.story() == [("executed", FIRST), ("exited", FIRST, 3)]
    assert [one.exact for one in bench.put if isinstance(one, ProcessExited)] == [True]


def test_an_exit_that_both_sockets_told_of_is_told_once(kernel: Kernel, bench: Bench) -> None:
    kernel.execute(FIRST)
    bench.rested()
    kernel.execute(FIRST + 1)  # from here on `ends` is read
    bench.work()
    kernel.exit(FIRST, 3)
    kernel.exit(SHELL)
    bench.work()
    assert bench.story() == [
        ("executed", FIRST),
        ("executed", FIRST + 1),
        ("exited", FIRST, 3),
        ("exited", SHELL, 0),
    ]


def test_exits_are_told_in_their_turn_among_the_execs_that_wait(kernel: Kernel, bench: Bench) -> None:
    def storm() -> None:
        kernel.execute(FIRST + 1)
        kernel.exit(FIRST, 3)
        kernel.execute(FIRST + 2)
        kernel.exit(FIRST + 2, 5)
        kernel.run_foreign(1)
        kernel.exit(FIRST + 1, 4)

    kernel.while_read = once(storm)
    kernel.execute(FIRST)
    found = kernel.alive
    kernel.alive = KeepsTheDead(found)  # who is read late is read all the same
    bench.work()
    assert bench.story() == [
        ("executed", FIRST),
        ("executed", FIRST + 1),
        ("exited", FIRST, 3),
        ("executed", FIRST + 2),
        ("exited", FIRST + 2, 5),
        ("exited", FIRST + 1, 4),
    ]
    assert bench.tracker.tracked.keys() == {SHELL}


def test_a_program_that_begins_while_ends_is_read_keeps_its_end(kernel: Kernel, bench: Bench) -> None:
    kernel.execute(FIRST)
    bench.work()
    kernel.alive = KeepsTheDead(kernel.alive)

    def storm() -> None:
        kernel.execute(FIRST + 1)
        kernel.exit(FIRST + 1, 3)

    kernel.fork_only(1)
    kernel.ends.before_receive = once(storm)
    bench.work()
    assert bench.story() == [("executed", FIRST), ("executed", FIRST + 1), ("exited", FIRST + 1, 3)]


class KeepsTheDead(dict[int, tuple[int, int, Words]]):
    def pop(self, pid: int, *_: Any) -> Any:
        return self[pid]


def test_the_end_of_an_earlier_process_with_that_number_ends_nobody(kernel: Kernel, bench: Bench) -> None:
    kernel.execute(FIRST, FOREIGN)
    bench.work()
    kernel.exit(FIRST, 1)
    kernel.execute(FIRST)
    assert kernel.ends.waiting == 1
    bench.work()
    assert kernel.ends.waiting == 0
    assert bench.story() == [("executed", FIRST)]
    kernel.exit(FIRST, 3)
    bench.work()
    assert bench.story() == [("executed", FIRST), ("exited", FIRST, 3)]


def test_a_number_that_is_used_again_at_once_belongs_to_two_processes(kernel: Kernel, bench: Bench) -> None:
    def again() -> None:
        kernel.exit(FIRST, 3)
        kernel.execute(FIRST)
        kernel.exit(FIRST, 4)
        kernel.execute(FIRST)

    kernel.execute(FIRST)
    bench.work()
    again()
    kernel.alive = KeepsTheDead(kernel.alive)
    bench.work()
    assert bench.story() == [
        ("executed", FIRST),
        ("exited", FIRST, 3),
        ("executed", FIRST),
        ("exited", FIRST, 4),
        ("executed", FIRST),
    ]


def test_a_survey_takes_no_older_end_for_that_of_whom_it_finds(kernel: Kernel) -> None:
    bench = Bench(kernel)
    kernel.fork_only(3)
    kernel.fork(20_001, Words(("python", "app.py"), ROOT, None))  # the number of one of them
    bench.work()
    assert bench.story() == []
    assert 20_001 in bench.tracker.tracked
    kernel.at_ns = time.monotonic_ns()
    kernel.exit(20_001, 3)
    bench.work()
    assert bench.story() == [("exited", 20_001, 3)]
    bench.connector.close()
    bench.mailbox.close()


def test_who_ends_in_the_middle_of_a_survey_is_ended_with_his_exit_code(kernel: Kernel) -> None:
    bench = Bench(kernel)
    kernel.fork(FIRST, Words(("python", "app.py"), ROOT, None))

    def end(pid: int) -> None:
        if pid == FIRST and FIRST in kernel.alive:
            kernel.at_ns = time.monotonic_ns()
            kernel.exit(FIRST, 3)

    kernel.while_read = end
    bench.work()
    assert bench.story() == [("exited", FIRST, 3)]
    bench.connector.close()
    bench.mailbox.close()


def test_ends_that_overflow_for_others_are_no_loss(kernel: Kernel, bench: Bench) -> None:
    kernel.ends.capacity = 50
    kernel.fork_only(200)
    for pid in (FIRST + 1, FIRST + 2):
        kernel.execute(pid)
    bench.rested()
    kernel.execute(FIRST)
    bench.work()
    kernel.exit(FIRST, 3)
    kernel.fork_only(200)  # that one lies before the first that is dropped
    bench.rested()
    kernel.fork_only(200)
    kernel.exit(FIRST + 1, 4)
    bench.work()
    assert kernel.ends.drops > 300
    assert bench.lost() == []
    assert bench.story()[3:] == [("exited", FIRST, 3), ("exited", FIRST + 1, 4)]


def test_an_exit_that_ends_dropped_is_said_and_made_good(kernel: Kernel, bench: Bench) -> None:
    kernel.ends.capacity = 50
    kernel.fork_only(200)
    kernel.while_read = once(lambda: kernel.exit(FIRST, 3))
    kernel.execute(FIRST)
    bench.work()
    assert bench.lost() == ["the kernel dropped 151 process events: the buffer was full"]
    assert bench.story() == [("executed", FIRST), ("exited", FIRST, None)]
    assert [one.exact for one in bench.put if isinstance(one, ProcessExited)] == [False]
    assert any(isinstance(one, ProcessesListed) for one in bench.put)
    # and once is enough
    kernel.at_ns = time.monotonic_ns()
    kernel.while_read = once(lambda: kernel.exit(FIRST + 1, 4))
    kernel.execute(FIRST + 1)
    bench.work()
    assert bench.story()[-1] == ("exited", FIRST + 1, 4)
    assert len(bench.lost()) == 1


def test_an_exit_that_was_dropped_before_its_exec_was_handled_is_a_loss_too(kernel: Kernel, bench: Bench) -> None:
    kernel.ends.capacity = 50

    def storm() -> None:
        kernel.execute(FIRST + 1)
        kernel.fork_only(200)
        kernel.exit(FIRST + 1, 3)  # dropped, and the loss is noticed with the first program

    kernel.while_read = once(storm)
    kernel.execute(FIRST)
    kernel.alive = KeepsTheDead(kernel.alive)
    kernel.ended = lambda pid, born: Ended(None) if pid == FIRST + 1 else None  # type: ignore[method-assign]
    bench.work()
    assert len(bench.lost()) == 1
    assert bench.story() == [("executed", FIRST), ("executed", FIRST + 1), ("exited", FIRST + 1, None)]


def test_events_that_overflow_are_said_and_made_good(kernel: Kernel, bench: Bench) -> None:
    kernel.execute(FIRST)
    bench.rested()
    kernel.events.capacity = 10
    kernel.run_foreign(20)
    kernel.execute(FIRST + 1)
    kernel.exit(FIRST, 3)
    bench.work()
    assert bench.lost() == ["the kernel dropped 12 process events: the buffer was full"]
    assert bench.tracker.tracked.keys() == {SHELL, FIRST + 1}
    assert bench.story() == [("executed", FIRST), ("exited", FIRST, None)]


def test_of_a_crowd_too_large_to_be_named_each_end_is_heard(kernel: Kernel, bench: Bench) -> None:
    crowd = range(FIRST, FIRST + 2 * _MOST_NAMED)
    for pid in crowd:
        kernel.execute(pid)
    bench.rested()
    for pid in crowd:
        kernel.exit(pid, pid % 256)
    bench.work()
    assert bench.story() == [
        *(("executed", pid) for pid in crowd),
        *(("exited", pid, pid % 256) for pid in crowd),
    ]


def test_a_crowd_that_is_gone_wakes_us_no_more(kernel: Kernel, bench: Bench) -> None:
    for pid in range(FIRST, FIRST + 2 * _MOST_NAMED):
        kernel.execute(pid)
    bench.rested()
    kernel.fork_only(1)
    assert kernel.events.waiting == 1, "more than can be named: each exit wakes us"
    for pid in range(FIRST, FIRST + 2 * _MOST_NAMED):
        kernel.exit(pid)
    kernel.run_foreign(_PASSING)
    bench.work()
    kernel.fork_only(1)
    assert kernel.events.waiting == 0


def test_who_could_not_be_read_is_part_of_a_loss(kernel: Kernel, bench: Bench) -> None:
    kernel.execute(FIRST)
    kernel.alive.pop(FIRST)
    kernel.at_ns += 10_000_000
    bench.tracker.unread[FIRST] = Unread(0)
    kernel.events.capacity = 10
    kernel.run_foreign(20)
    bench.work()
    assert len(bench.lost()) == 1
    assert bench.tracker.unread == {}, "or the filter would name it for ever"


def test_a_program_that_can_not_be_understood_hides_no_end_of_its_parent(
    kernel: Kernel, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.execute(FIRST)
    kernel.alive[FIRST + 1] = (77, FIRST, Words(("python", "app.py"), ROOT, None))
    kernel._tell(EXEC, FIRST + 1, 0, 0)
    texts = bench.tracker._texts

    def fails(words: Words, not_after: int | None) -> Any:
        if kernel.alive[FIRST + 1][2] is words:
            raise RecursionError("too deep")
        return texts(words, not_after)

    bench.tracker.tracked.clear()
    monkeypatch.setattr(bench.tracker, "_texts", fails)
    kernel.events.recvfrom_into(bytearray(4096))  # the parent's EXEC, as if it had been before the agent
    bench.work()
    assert FIRST in bench.tracker.tracked
    kernel.exit(FIRST, 3)
    bench.work()
    assert [one.exit_code for one in bench.put if isinstance(one, ProcessExited)] == [3]


@pytest.mark.parametrize("when", ["before it is looked for", "later"])
def test_a_program_that_was_over_when_its_turn_came_is_said_to_be_missed(when: str) -> None:
    kernel = Kernel(ago_ms=20)
    bench = Bench(kernel)
    bench.rested()
    kernel.execute(FIRST)
    _, parent, _ = kernel.alive.pop(FIRST)  # its memory is gone, and its EXIT is on the way
    kernel.at_ns += 7_000_000
    if when == "later":
        bench.work()
        assert bench.lost() == []
    kernel._tell(EXIT, FIRST, 0, parent)
    bench.work()
    (reason,) = bench.lost()
    assert reason.startswith("a program that lived 7 ms was over before it could be read")
    assert bench.tracker.unread == {}
    bench.connector.close()
    bench.mailbox.close()


def test_a_program_that_was_over_at_once_costs_nothing_more(kernel: Kernel, bench: Bench) -> None:
    kernel.at_ns = time.monotonic_ns() + 60_000_000_000  # however long this test is set aside, it is read in time
    kernel.execute(FIRST)
    kernel.exit(FIRST)
    bench.work()
    assert bench.tracker.unread == {}
    assert kernel.ends.received == 0
    assert bench.put == []


def test_a_tracked_process_whose_last_program_could_not_be_read_is_ended_and_forgotten() -> None:
    kernel = Kernel(ago_ms=20)
    bench = Bench(kernel)
    bench.work()
    kernel.execute(FIRST)
    bench.work()
    kernel._tell(EXEC, FIRST, 0, 0)
    kernel.exit(FIRST, 3)
    bench.work()
    assert bench.story() == [("executed", FIRST), ("exited", FIRST, 3)]
    assert bench.tracker.unread == {}
    bench.connector.close()
    bench.mailbox.close()


def test_another_place_of_the_course_is_heard_of_at_once(kernel: Kernel, bench: Bench) -> None:
    kernel.fork(FIRST, Words(("python", "app.py"), "/moved", None))
    bench.mailbox.post(course=Course(root="/moved", slug="course", steps=()))
    bench.work()
    assert FIRST in bench.tracker.tracked
    kernel.at_ns = time.monotonic_ns()
    kernel.exit(FIRST, 3)
    bench.work()
    assert ("exited", FIRST, 3) in bench.story()
