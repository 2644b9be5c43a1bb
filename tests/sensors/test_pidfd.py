"""Pidfds with looks triggered by opened files: what containers get.  Real processes, real inotify."""

from __future__ import annotations

import ctypes
import functools
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core.observations import FileText, ProcessExecuted, SensorChanged
from agent.sensors.processes.level import Mailbox
from agent.sensors.processes.pidfd import _ALWAYS, LOOKS, PidfdScan, exit_status
from agent.sensors.processes.procfs import Procfs
from agent.sensors.processes.sensor import ProcessSensor
from agent.sensors.processes.tracking import Finder, Tracker
from tests.sensors.student import (
    PATIENCE_S,
    PYTHON,
    WAIT,
    WAIT_SH,
    Desk,
    Seen,
    Student,
    child_of,
    make_desk,
    refusal_of,
    run_seen,
    until_it_runs,
)
from tests.until import until


@functools.cache
def refusal() -> str | None:
    """Why this machine has no pidfds, or None."""
    return refusal_of(PidfdScan)


pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or refusal() is not None, reason="no pidfd_open here (Linux 5.3 and later)"
)

STEPS = {
    "01-short": {"app.py": WAIT, "app.sh": ":\n", "test.py": "print(2)\n"},
    "02-code": {"app.py": f"{WAIT}import sys; sys.exit(int(sys.argv[1]))\n"},
    "03-slow": {"app.py": "import time; time.sleep(60)\n"},
    "04-signal": {"app.py": f"{WAIT}import sys; os.kill(os.getpid(), int(sys.argv[1]))\n"},
}

_IN_OPEN = 0x20


@contextmanager
def opens_of(directories: list[Path], opened: Callable[[], None]) -> Iterator[None]:
    """Calls `opened` whenever a file in one of these directories is opened, as the file sensor does."""
    library = ctypes.CDLL(None, use_errno=True)
    handle = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    assert handle >= 0, os.strerror(ctypes.get_errno())
    for directory in directories:
        assert library.inotify_add_watch(handle, os.fsencode(directory), _IN_OPEN) >= 0
    stop = os.eventfd(0)

    def listen() -> None:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.register(stop, select.POLLIN)
        while stop not in [one for one, _ in poll.poll()]:
            os.read(handle, 65536)
            opened()

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        os.eventfd_write(stop, 1)
        thread.join()
        os.close(handle)
        os.close(stop)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path / "course", STEPS)


@pytest.fixture
def student() -> Iterator[Student]:
    with Student() as student:
        yield student


@pytest.fixture
def sensor(desk: Desk, seen: Seen) -> Iterator[ProcessSensor]:
    sensor = ProcessSensor(desk.course, seen.put, levels=[PidfdScan])
    sensor.start()
    seen.listed()
    yield sensor
    sensor.stop()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def watched(desk: Desk, sensor: ProcessSensor) -> Iterator[ProcessSensor]:
    """The sensor, triggered by each opening of a course file."""
    with opens_of([desk.step(number) for number in range(len(STEPS))], sensor.trigger):
        yield sensor


def tells_status() -> bool:
    """Whether this kernel tells the wait status of a reaped process through its pidfd (Linux 6.15 and later)."""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    handle = os.pidfd_open(child)
    os.waitpid(child, 0)
    try:
        return exit_status(handle) == 7 << 8
    finally:
        os.close(handle)


needs_status = pytest.mark.skipif(
    sys.platform != "linux" or refusal() is not None or not tells_status(),
    reason="the kernel tells no exit status of others' children (before Linux 6.15)",
)


@pytest.mark.usefixtures("watched")
def test_a_program_is_found_because_it_opens_its_file(desk: Desk, student: Student, seen: Seen) -> None:
    for _ in range(5):
        pid, _ = run_seen(student, seen, [PYTHON, "app.py"], desk.step(0))
        executed = [one for one in seen.executed(pid) if one.argv == (PYTHON, "app.py")]
        assert executed[-1].cwd == str(desk.step(0))
        assert executed[-1].parent == student.pid
        assert executed[-1].texts == (FileText("exercises/01-short/app.py", STEPS["01-short"]["app.py"]),)
        assert not executed[-1].found
        (exited,) = seen.exits(pid)
        assert executed[0].started_at <= executed[-1].at <= exited.at
        assert exited.exact


@needs_status
@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_of_somebody_elses_child_is_told(code: int, desk: Desk, student: Student, seen: Seen) -> None:
    pid, _ = run_seen(student, seen, [PYTHON, "app.py", str(code)], desk.step(1))
    exited = seen.exit_of(pid)
    assert (exited.exit_code, exited.signal, exited.exact) == (code, None, True)


@needs_status
@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_the_signal_that_ended_somebody_elses_child_is_told(
    number: signal.Signals, desk: Desk, student: Student, seen: Seen
) -> None:
    pid, _ = run_seen(student, seen, [PYTHON, "-S", "app.py", str(int(number))], desk.step(3))
    exited = seen.exit_of(pid)
    assert (exited.exit_code, exited.signal) == (None, number)


@pytest.mark.usefixtures("watched")
def test_the_end_of_a_zombie_is_told_at_once_with_its_status(desk: Desk, student: Student, seen: Seen) -> None:
    # Its status lies in /proc/PID/stat, on every kernel, as long as nobody reaps it.
    pid = student.start([PYTHON, "app.py"], desk.step(2))
    seen.wait_for(lambda seen: any(one.argv == (PYTHON, "app.py") for one in seen.executed(pid)))
    student.kill(pid, signal.SIGTERM)
    exited = seen.exit_of(pid)
    assert (exited.exit_code, exited.signal, exited.exact) == (None, signal.SIGTERM, True)
    assert student.reap(pid) == signal.SIGTERM
    assert len(seen.exits(pid)) == 1


@needs_status
def test_the_status_of_a_zombie_is_not_read_from_its_pidfd(desk: Desk, student: Student) -> None:
    pid = student.start(["/bin/sh", "-c", "exit 5"], desk.step(0))
    handle = os.pidfd_open(pid)
    try:
        assert select.select([handle], [], [], PATIENCE_S)[0]
        assert exit_status(handle) is None
        student.reap(pid)
        assert exit_status(handle) == 5 << 8
    finally:
        os.close(handle)


def test_a_status_that_nobody_tells_stays_unknown(
    desk: Desk, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An older kernel: the pidfd tells nothing, and the parent has reaped before we look.
    monkeypatch.setattr("agent.sensors.processes.pidfd.exit_status", lambda handle: None)

    class Reaped(Procfs):
        def ended(self, pid: int, born: int) -> object:  # type: ignore[override]
            ended = super().ended(pid, born)
            return type(ended)(None) if ended is not None else None

    monkeypatch.setattr("agent.sensors.processes.sensor.Procfs", Reaped)
    seen = Seen()
    sensor = ProcessSensor(desk.course, seen.put, levels=[PidfdScan])
    sensor.start()
    try:
        seen.listed()
        assert "exit codes" in seen.of(SensorChanged)[0].blind_to
        pid = student.start([PYTHON, "app.py"], desk.step(2))
        until_it_runs(pid)
        sensor.trigger()
        seen.wait_for(lambda seen: seen.executed(pid))
        student.kill(pid, signal.SIGTERM)
        student.reap(pid)
        exited = seen.exit_of(pid)
        assert (exited.exit_code, exited.signal, exited.exact) == (None, None, True)
    finally:
        sensor.stop()


def test_a_program_that_a_shell_executes_later_replaces_it(
    desk: Desk, student: Student, seen: Seen, watched: ProcessSensor
) -> None:
    (desk.step(0) / "app.sh").write_text(f"{WAIT_SH}exec {PYTHON} -c 'import time; time.sleep(60)'\n")
    pid = student.start(["/bin/sh", "app.sh"], desk.step(0))
    seen.wait_for(lambda seen: any(one.argv == ("/bin/sh", "app.sh") for one in seen.executed(pid)))
    # No course file is opened by the second program: it is found because the process is young, when the looks that
    # come anyway are over.
    level = watched._current.level if watched._current is not None else None
    assert isinstance(level, PidfdScan)
    until(lambda: level._looks > _ALWAYS)
    assert level._looks < len(LOOKS)
    student.open_gate()
    seen.wait_for(lambda seen: any(one.argv[:2] == (PYTHON, "-c") for one in seen.executed(pid)))
    assert len({(one.born, one.started_at) for one in seen.executed(pid)}) == 1
    student.kill(pid, signal.SIGKILL)
    student.reap(pid)
    seen.exit_of(pid)


@pytest.mark.usefixtures("watched")
def test_the_parents_of_a_found_program_are_found_before_it(desk: Desk, student: Student, seen: Seen) -> None:
    pid = student.start(["/bin/sh", "-c", f"{PYTHON} app.py; :"], desk.step(2))

    def program_of(seen: Seen) -> ProcessExecuted | None:
        return next((one for one in seen.of(ProcessExecuted) if one.argv == (PYTHON, "app.py")), None)

    program = seen.wait_for(program_of)
    assert program.parent == pid
    assert seen.executed(pid)[-1].argv[0] == "/bin/sh"
    order = [one.pid for one in seen.of(ProcessExecuted)]
    assert order.index(pid) < order.index(program.pid)
    student.kill(program.pid, signal.SIGKILL)
    student.reap(pid)
    seen.exit_of(pid)
    assert seen.exit_of(program.pid).signal == signal.SIGKILL


def test_at_rest_nothing_wakes_the_thread(desk: Desk, sensor: ProcessSensor, student: Student, seen: Seen) -> None:
    pid = student.start([PYTHON, "app.py"], desk.step(2))
    until_it_runs(pid)
    sensor.trigger()
    seen.wait_for(lambda seen: seen.executed(pid))
    thread = sensor._thread
    assert thread is not None

    def wake_ups() -> int:
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("voluntary_ctxt")).split()[1])

    def sleeps_for_a_second() -> bool:
        before = wake_ups()
        time.sleep(1.0)
        return wake_ups() == before

    # The looks for the sake of the young process are over after LOOKS[-1] seconds, though it lives on.
    until(sleeps_for_a_second, timeout=LOOKS[-1] + PATIENCE_S)
    assert sleeps_for_a_second()
    student.kill(pid, signal.SIGKILL)
    student.reap(pid)
    assert seen.exit_of(pid).exact


class Counting(Procfs):
    """Counts how often the process table is read."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def pids(self) -> dict[int, int]:
        self.looks += 1
        return super().pids()


def test_a_thousand_opened_files_cost_a_few_looks(desk: Desk) -> None:
    reader, mailbox, level, seen = Counting(), Mailbox(), PidfdScan(), Seen()
    level.open(mailbox)
    thread = threading.Thread(target=level.run, args=(Tracker(desk.course, seen.put, reader), mailbox))
    thread.start()
    try:
        seen.listed()
        until(lambda: reader.looks > 2)
        begun, before = time.monotonic(), reader.looks
        for _ in range(1000):
            mailbox.post(trigger=True)
            time.sleep(0.0001)
        took = time.monotonic() - begun
        # At most a tenth of the time is spent looking: a look takes 0.2 ms at least.
        assert reader.looks - before <= took / 0.002 + len(LOOKS) + 2
    finally:
        mailbox.post(stop=True)
        thread.join(PATIENCE_S)
        level.close()
        mailbox.close()


class Table(Procfs):
    """The real processes, but the process table is what the test says."""

    def __init__(self, table: Mapping[int, int]) -> None:
        super().__init__()
        self.table = dict(table)

    def pids(self) -> dict[int, int]:
        return dict(self.table)


def test_a_process_with_the_pid_of_another_is_new(desk: Desk, student: Student) -> None:
    pid = student.start([PYTHON, "app.py"], desk.step(2))
    until_it_runs(pid)
    reader, seen = Table({pid: 1}), Seen()
    tracker = Tracker(desk.course, seen.put, reader)
    finder = Finder(tracker)
    finder.find()
    finder.find()
    assert [one.pid for one in seen.of(ProcessExecuted)] == [pid]
    tracker.exited(pid, 0, None)
    finder.find()
    assert len(seen.executed(pid)) == 1, "the same process is not new again"
    reader.table[pid] = 2
    finder.find()
    assert len(seen.executed(pid)) == 2
    student.kill(pid, signal.SIGKILL)
    student.reap(pid)


def test_a_fork_that_has_not_executed_its_program_is_not_taken_for_its_parent(desk: Desk, student: Student) -> None:
    (desk.step(2) / "app.py").write_text("import os, time\nos.fork()\ntime.sleep(60)\n")
    parent = student.start([PYTHON, "app.py"], desk.step(2))
    child = child_of(parent)
    seen, reader = Seen(), Procfs()
    tracker = Tracker(desk.course, seen.put, reader)
    Finder(tracker).find()
    tracker.survey()
    assert seen.executed(parent)
    assert seen.executed(child) == []
    for pid in (parent, child):
        os.kill(pid, signal.SIGKILL)
    student.reap(parent)


def test_programs_that_all_have_the_same_addresses_are_told_apart(
    desk: Desk, student: Student, seen: Seen, watched: ProcessSensor
) -> None:
    """As under gdb, and where an admin switched the randomness off for a lesson about buffer overflows."""
    setarch = shutil.which("setarch") or "/usr/bin/setarch"
    rerun = f"for i in 1 2 3; do {PYTHON} -S app.py; done; exit 0"
    (desk.step(0) / "app.py").write_text("import time; time.sleep(0.4)\n")
    pid = student.start([setarch, "-R", "bash", "-c", rerun], desk.step(0))
    assert student.reap(pid) == 0
    seen.exit_of(pid)
    runs = [one.pid for one in seen.of(ProcessExecuted) if one.argv == (PYTHON, "-S", "app.py")]
    assert len(set(runs)) == 3


def test_a_program_that_renames_itself_has_not_executed_another(desk: Desk, student: Student) -> None:
    perl = shutil.which("perl")
    if perl is None:
        pytest.skip("no perl, which can rewrite its command line")
    go = desk.step(0) / "go"
    argv = [perl, "-e", f"select(undef, undef, undef, 0.01) until -e '{go}'; $0 = 'npm test'; sleep 60"]
    pid = student.start(argv, desk.step(0))
    line = Path(f"/proc/{pid}/cmdline")
    until(lambda: line.read_bytes().startswith(perl.encode()))
    seen = Seen()
    tracker = Tracker(desk.course, seen.put, Procfs())
    finder = Finder(tracker)
    finder.find()
    go.touch()
    until(lambda: line.read_bytes().startswith(b"npm test"))
    finder.find()
    finder.find()
    assert [one.argv for one in seen.executed(pid)] == [tuple(argv)]
    tracker.survey()
    assert seen.executed(pid)[-1].found
    assert seen.executed(pid)[-1].argv == tuple(argv)
    student.kill(pid, signal.SIGKILL)
    student.reap(pid)
