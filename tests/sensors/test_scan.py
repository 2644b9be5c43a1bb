"""Polling: real processes through psutil, psutil's pitfalls, and kqueue with a fake."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.core.observations import FileText, ProcessExecuted, ProcessExited, SensorChanged
from agent.sensors.clock import now_ms
from agent.sensors.processes import scan
from agent.sensors.processes.level import Mailbox
from agent.sensors.processes.procfs import Procfs, has_procfs
from agent.sensors.processes.scan import KqueueWaiter, PlainWaiter, Polling, Psutil
from agent.sensors.processes.sensor import ProcessSensor
from agent.sensors.processes.tracking import Finder, Reader, Tracker
from tests.sensors.student import PATIENCE_S, PYTHON, WAIT, WAIT_SH, Desk, Seen, Student, make_desk
from tests.until import until

STEPS = {
    "01-short": {"app.py": "print(1)\n", "app.sh": ":\n"},
    "02-code": {"app.py": f"{WAIT}import sys; sys.exit(int(sys.argv[1]))\n"},
    "03-slow": {"app.py": "import time; time.sleep(60)\n"},
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path / "course", STEPS)


@pytest.fixture
def student() -> Iterator[Student]:
    with Student() as student:
        yield student


@pytest.fixture
def few(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil sees the student and what he started.  It opens eight files to read one process: on a busy machine with
    many of them a look at all took seconds."""
    monkeypatch.setattr(psutil, "pids", lambda: [student.pid, *student.started])


def start_slow(student: Student, desk: Desk) -> int:
    """A program of the student that is certainly running."""
    pid = student.start([PYTHON, "app.py"], desk.step(2))
    until(lambda: psutil.Process(pid).cmdline() == [PYTHON, "app.py"])
    return pid


def end(student: Student, pid: int) -> None:
    student.kill(pid, signal.SIGKILL)
    student.reap(pid)


readers = pytest.mark.parametrize(
    "make_reader",
    [Psutil, pytest.param(Procfs, marks=pytest.mark.skipif(not has_procfs(), reason="no /proc"))],
    ids=["psutil", "procfs"],
)


class Polled:
    """A Polling level in a thread of its own."""

    def __init__(self, desk: Desk, reader: Reader) -> None:
        self.seen = Seen()
        self.mailbox = Mailbox()
        self.level = Polling(PlainWaiter)
        self.level.open(self.mailbox)
        self._thread = threading.Thread(
            target=self.level.run, args=(Tracker(desk.course, self.seen.put, reader), self.mailbox)
        )

    def __enter__(self) -> Polled:
        self._thread.start()
        self.seen.listed()
        return self

    def __exit__(self, *error: object) -> None:
        self.mailbox.post(stop=True)
        self._thread.join(PATIENCE_S)
        self.level.close()
        self.mailbox.close()


@readers
@pytest.mark.usefixtures("few")
def test_a_program_that_lives_longer_than_the_interval_is_seen(
    make_reader: type[Reader], desk: Desk, student: Student
) -> None:
    # Well before the start: psutil knows the start on Linux to a second only.
    os.utime(desk.step(1) / "app.py", (time.time() - 60, time.time() - 60))
    with Polled(desk, make_reader()) as polled:
        seen = polled.seen
        pid = student.start([PYTHON, "app.py", "3"], desk.step(1))
        seen.wait_for(lambda seen: any(one.argv == (PYTHON, "app.py", "3") for one in seen.executed(pid)))
        released_at = now_ms()
        student.open_gate()
        student.reap(pid)
        exited = seen.exit_of(pid)
        executed = seen.executed(pid)[-1]
        assert executed.argv == (PYTHON, "app.py", "3")
        assert executed.cwd == str(desk.step(1))
        assert executed.parent == student.pid
        assert executed.texts == (FileText("exercises/02-code/app.py", STEPS["02-code"]["app.py"]),)
        assert exited.born == executed.born
        assert executed.at <= released_at <= exited.at
        # The absence was noticed; nobody told how it ended (unless it was still a zombie when we looked).
        assert not exited.exact
        assert exited.exit_code in (None, 3)
        assert exited.signal is None


@readers
@pytest.mark.usefixtures("few")
def test_what_runs_already_is_found_and_its_later_program_is_seen(
    make_reader: type[Reader], desk: Desk, student: Student
) -> None:
    script = f"{WAIT_SH}exec {PYTHON} ../03-slow/app.py"
    pid = student.start(["/bin/sh", "-c", script], desk.step(0))
    until(lambda: psutil.Process(pid).cmdline()[:1] == ["/bin/sh"])
    with Polled(desk, make_reader()) as polled:
        seen = polled.seen
        assert {one.pid for one in seen.of(ProcessExecuted) if one.argv[0] == "/bin/sh"} == {pid}
        student.open_gate()
        polled.mailbox.post(trigger=True)
        seen.wait_for(lambda seen: seen.executed(pid)[-1].argv == (PYTHON, "../03-slow/app.py"))
        assert len({(one.born, one.started_at) for one in seen.executed(pid)}) == 1
        end(student, pid)
        seen.exit_of(pid)


def test_psutil_and_procfs_say_the_same_of_a_process(desk: Desk, student: Student) -> None:
    if not has_procfs():
        pytest.skip("no /proc")
    pid = student.start([PYTHON, "-S"], desk.step(2), stdin=desk.step(2) / "app.py")
    until(lambda: psutil.Process(pid).cmdline() == [PYTHON, "-S"])
    by_psutil, by_procfs = Psutil().look(pid), Procfs().look(pid)
    assert by_psutil is not None
    assert by_procfs is not None
    assert by_psutil.words.argv == by_procfs.words.argv
    assert by_psutil.words.cwd == by_procfs.words.cwd
    assert by_procfs.words.stdin == str(desk.step(2) / "app.py")
    assert by_psutil.parent == by_procfs.parent == student.pid
    assert by_psutil.on_terminal == by_procfs.on_terminal
    # psutil counts from the boot in whole seconds.
    assert abs(by_psutil.started_at - by_procfs.started_at) < 1100
    end(student, pid)


@pytest.mark.skipif(not has_procfs(), reason="no /proc")
def test_an_interpreters_standard_input_is_read_through_psutil_too(desk: Desk, student: Student) -> None:
    pid = student.start([PYTHON], desk.step(2), stdin=desk.step(2) / "app.py")
    until(lambda: psutil.Process(pid).cmdline() == [PYTHON])
    words = Psutil().words(pid)
    assert words is not None
    assert words.stdin == str(desk.step(2) / "app.py")
    end(student, pid)


@readers
def test_a_zombie_is_over_and_is_not_looked_at(make_reader: type[Reader], desk: Desk, student: Student) -> None:
    reader = make_reader()
    pid = start_slow(student, desk)
    look = reader.look(pid)
    assert look is not None
    assert reader.ended(pid, look.born) is None
    assert reader.ended(pid, look.born - 1_000_000) is not None, "a process born at another time is another process"
    student.kill(pid, signal.SIGTERM)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    ended = reader.ended(pid, look.born)
    assert ended is not None
    assert ended.status == (signal.SIGTERM if make_reader is Procfs else None)
    assert reader.look(pid) is None
    student.reap(pid)
    ended = reader.ended(pid, look.born)
    assert ended is not None
    assert ended.status is None
    assert (reader.look(pid), reader.argv(pid), reader.is_mine(pid)) == (None, None, False)


@readers
def test_another_users_processes_are_not_ours(make_reader: type[Reader]) -> None:
    reader = make_reader(uid=os.geteuid() + 1)  # type: ignore[call-arg]
    assert not reader.is_mine(os.getpid())
    assert reader.look(os.getpid()) is None


class DenyingProcess:
    """What psutil answers for a process that the system protects (macOS)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __getattr__(self, name: str) -> Any:
        def deny() -> Any:
            raise psutil.AccessDenied(self.pid)

        return deny

    def oneshot(self) -> Any:
        return threading.Lock()


def test_a_process_that_may_not_be_read_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Psutil()
    monkeypatch.setattr(psutil, "Process", DenyingProcess)
    assert (reader.look(1), reader.argv(1), reader.is_mine(1)) == (None, None, False)
    assert reader.ended(1, 0) is None, "that it can't be read doesn't mean that it is gone"


def test_the_pid_of_a_reported_process_that_was_used_again_ends_the_first(desk: Desk, student: Student) -> None:
    pid = start_slow(student, desk)
    seen = Seen()
    tracker = Tracker(desk.course, seen.put, Psutil())
    Finder(tracker).find()
    first = tracker.tracked[pid]
    tracker.tracked[pid] = type(first)(first.born - 60_000, first.started_at, ("python", "before.py"), 0)
    tracker.executed(pid, 1)
    assert [one.born for one in seen.of(ProcessExited)] == [first.born - 60_000]
    assert seen.executed(pid)[-1].born == first.born
    end(student, pid)


@pytest.mark.parametrize(
    ("quiet_s", "tracked", "interval_s"),
    [(0, False, 0.05), (1.0, True, 0.05), (3, False, 0.1), (29, True, 0.1), (31, True, 1.0), (31, False, 2.0)],
)
def test_the_interval_follows_what_happens(quiet_s: float, tracked: bool, interval_s: float, desk: Desk) -> None:
    tracker = Tracker(desk.course, Seen().put, Psutil())
    if tracked:
        tracker.tracked[1] = object()  # type: ignore[assignment]
    polling = Polling(PlainWaiter)
    polling._stirred = time.monotonic() - quiet_s
    assert polling._interval(tracker) == interval_s


def test_looks_that_cost_much_come_less_often(desk: Desk) -> None:
    polling = Polling(PlainWaiter)
    polling._cost = 0.1
    assert polling._interval(Tracker(desk.course, Seen().put, Psutil())) == pytest.approx(0.4)


# kqueue


@dataclass
class Kevent:
    ident: int
    filter: int = 0
    flags: int = 0
    fflags: int = 0
    data: int = 0


@dataclass
class FakeKqueue:
    """Holds what was registered; gives what a test posts.  A pipe stands for the kernel's wake-up."""

    fake: FakeSelect
    held: dict[int, int] = field(default_factory=dict)

    def control(self, changes: list[Kevent] | None, most: int, timeout: float | None = None) -> list[Kevent]:
        for change in changes or []:
            if change.filter == FakeSelect.KQ_FILTER_PROC:
                if change.ident in self.fake.gone:
                    raise ProcessLookupError(errno.ESRCH, "No such process")
                if change.ident in self.fake.foreign and change.fflags & 0x04000000:
                    raise PermissionError(errno.EACCES, "Permission denied")
            self.held[change.ident] = change.fflags
        if not most:
            return []
        mailbox = next(ident for ident, fflags in self.held.items() if fflags == 0)
        ready = select.select([self.fake.wake, mailbox], [], [], timeout)[0]
        events = []
        if self.fake.wake in ready:
            os.read(self.fake.wake, 1)
            events.append(self.fake.posted.pop(0))
        if mailbox in ready:
            events.append(Kevent(mailbox, FakeSelect.KQ_FILTER_READ))
        return events

    def close(self) -> None:
        self.fake.closed = True


class FakeSelect:
    """The kqueue half of macOS's `select` module, with macOS's numbers."""

    KQ_FILTER_READ, KQ_FILTER_PROC, KQ_EV_ADD = -1, -5, 1
    KQ_NOTE_EXIT, KQ_NOTE_FORK, KQ_NOTE_EXEC = 0x80000000, 0x40000000, 0x20000000
    kevent = Kevent

    def __init__(self) -> None:
        self.wake, self._post = os.pipe()
        self.posted: list[Kevent] = []
        self.gone: set[int] = set()
        self.foreign: set[int] = set()
        self.closed = False
        self.queue = FakeKqueue(self)

    def kqueue(self) -> FakeKqueue:
        return self.queue

    def post(self, pid: int, notes: int, data: int = 0) -> None:
        self.posted.append(Kevent(pid, self.KQ_FILTER_PROC, 0, notes, data))
        os.write(self._post, b"x")


@pytest.fixture
def fake() -> Iterator[FakeSelect]:
    fake = FakeSelect()
    yield fake
    os.close(fake.wake)
    os.close(fake._post)


@pytest.fixture
def kqueued(desk: Desk, fake: FakeSelect) -> Iterator[Seen]:
    seen = Seen()
    sensor = ProcessSensor(desk.course, seen.put, levels=[lambda: Polling(lambda mailbox: KqueueWaiter(mailbox, fake))])
    sensor.start()
    seen.listed()
    assert "exit codes" not in seen.of(SensorChanged)[0].blind_to
    yield seen
    sensor.stop()
    assert fake.closed


@pytest.mark.parametrize(
    ("status", "exit_code", "number"), [(0, 0, None), (3 << 8, 3, None), (signal.SIGTERM, None, signal.SIGTERM)]
)
def test_kqueue_tells_the_end_and_its_status(
    status: int, exit_code: int | None, number: int | None, desk: Desk, fake: FakeSelect, student: Student
) -> None:
    pid = start_slow(student, desk)
    seen = Seen()
    sensor = ProcessSensor(desk.course, seen.put, levels=[lambda: Polling(lambda mailbox: KqueueWaiter(mailbox, fake))])
    sensor.start()
    try:
        until(lambda: pid in fake.queue.held)
        assert fake.queue.held[pid] & FakeSelect.KQ_NOTE_EXIT
        before = now_ms()
        fake.post(pid, FakeSelect.KQ_NOTE_EXIT | 0x04000000, status)
        exited = seen.exit_of(pid)
        assert (exited.exit_code, exited.signal, exited.exact) == (exit_code, number, True)
        assert before <= exited.at <= now_ms()
    finally:
        sensor.stop()
        end(student, pid)


def test_kqueue_without_a_status_leaves_the_exit_code_unknown(
    desk: Desk, fake: FakeSelect, kqueued: Seen, student: Student
) -> None:
    pid = student.start([PYTHON, "app.py"], desk.step(2))
    fake.foreign.add(pid)
    until(lambda: pid in fake.queue.held)
    fake.post(pid, FakeSelect.KQ_NOTE_EXIT, 3 << 8)
    exited = kqueued.exit_of(pid)
    assert (exited.exit_code, exited.signal, exited.exact) == (None, None, True)
    end(student, pid)


def test_a_fork_of_a_reported_process_starts_a_look_at_once(
    desk: Desk, fake: FakeSelect, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After the first look no other comes by itself while this test lasts.
    monkeypatch.setattr(scan, "BUSY", ())
    monkeypatch.setattr(scan, "_TRACKED_INTERVAL", 3600.0)
    shell = start_slow(student, desk)
    seen = Seen()
    waiters: list[KqueueWaiter] = []

    def make(mailbox: Mailbox) -> KqueueWaiter:
        waiters.append(KqueueWaiter(mailbox, fake))
        return waiters[-1]

    level = Polling(make)
    sensor = ProcessSensor(desk.course, seen.put, levels=[lambda: level])
    sensor.start()
    try:
        until(lambda: shell in fake.queue.held)
        pid = student.start([PYTHON, "app.py"], desk.step(2))
        until(lambda: psutil.Process(pid).cmdline() == [PYTHON, "app.py"])
        looked = level._looked
        until(lambda: time.monotonic() > looked + scan._REST * level._cost)  # else it comes a little later
        assert seen.executed(pid) == []
        fake.post(shell, FakeSelect.KQ_NOTE_FORK)
        seen.wait_for(lambda seen: seen.executed(pid))
        end(student, pid)
    finally:
        sensor.stop()
        end(student, shell)


def test_a_process_that_kqueue_can_no_longer_hold_is_over(desk: Desk, fake: FakeSelect, student: Student) -> None:
    pid = start_slow(student, desk)
    seen = Seen()
    mailbox = Mailbox()
    tracker = Tracker(desk.course, seen.put, Psutil())
    Finder(tracker).find()
    level = Polling(lambda mailbox: KqueueWaiter(mailbox, fake))
    level.open(mailbox)
    assert level._waiter is not None
    fake.gone.add(pid)
    end(student, pid)
    level._hold_all(level._waiter, tracker)
    exited = seen.exit_of(pid)
    assert (exited.exit_code, exited.exact) == (None, False)
    level.close()
    mailbox.close()


class EndingMeanwhile(Psutil):
    """When the processes are listed next, something happens first."""

    before: Callable[[], object] | None = None

    def pids(self) -> dict[int, int]:
        before, self.before = self.before, None
        if before is not None:
            before()
        return super().pids()


@pytest.mark.usefixtures("few")
def test_what_ends_while_a_look_begins_still_tells_its_status(desk: Desk, fake: FakeSelect, student: Student) -> None:
    pid = start_slow(student, desk)
    seen, reader, mailbox = Seen(), EndingMeanwhile(), Mailbox()
    tracker, level = Tracker(desk.course, seen.put, reader), Polling(lambda mailbox: KqueueWaiter(mailbox, fake))
    level.open(mailbox)
    assert level._waiter is not None
    finder = Finder(tracker)
    level._look(finder, level._waiter, tracker)
    assert pid in fake.queue.held

    def end_and_tell() -> None:
        end(student, pid)
        fake.post(pid, FakeSelect.KQ_NOTE_EXIT | 0x04000000, 3 << 8)

    reader.before = end_and_tell
    level._look(finder, level._waiter, tracker)
    exited = seen.exit_of(pid)
    assert (exited.exit_code, exited.exact) == (3, True)
    level.close()
    mailbox.close()


@pytest.mark.usefixtures("few")
def test_a_fork_during_a_look_is_not_forgotten(desk: Desk, fake: FakeSelect, student: Student) -> None:
    pid = start_slow(student, desk)
    reader, mailbox = EndingMeanwhile(), Mailbox()
    tracker, level = Tracker(desk.course, Seen().put, reader), Polling(lambda mailbox: KqueueWaiter(mailbox, fake))
    level.open(mailbox)
    assert level._waiter is not None
    finder = Finder(tracker)
    level._look(finder, level._waiter, tracker)
    reader.before = lambda: fake.post(pid, FakeSelect.KQ_NOTE_FORK)
    level._look(finder, level._waiter, tracker)
    level._cost = 0.001
    assert level._interval(tracker) == pytest.approx(scan._REST * 0.001)
    level._look(finder, level._waiter, tracker)
    assert level._interval(tracker) >= scan.BUSY[0][1]
    end(student, pid)
    level.close()
    mailbox.close()
