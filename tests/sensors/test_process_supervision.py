"""Which level sees the processes, what happens when it fails, and when a better one is tried again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agent.core.observations import EventsLost, Observation, ProcessesListed, ProcessExecuted, SensorChanged
from agent.sensors.clock import now_ms
from agent.sensors.processes.level import Failed, Mailbox, Refused
from agent.sensors.processes.pidfd import PidfdScan
from agent.sensors.processes.proc_connector import Connector
from agent.sensors.processes.proc_socket import open_socket
from agent.sensors.processes.procfs import has_procfs
from agent.sensors.processes.scan import Polling
from agent.sensors.processes.sensor import NO_LEVEL, ProcessSensor
from agent.sensors.processes.tracking import Tracker
from tests.sensors.student import PATIENCE_S, PYTHON, WAIT, Desk, Seen, Student, make_desk, run_seen, until_it_runs
from tests.sensors.test_pidfd import refusal as no_pidfd
from tests.sensors.test_proc_connector import Opener
from tests.sensors.test_proc_connector import refusal as no_connector
from tests.until import until

REPOSITORY = Path(__file__).parents[2]

STEPS = {
    "01-short": {"app.py": WAIT},
    "02-slow": {"app.py": "import time; time.sleep(60)\n"},
}

needs_connector = pytest.mark.skipif(no_connector() is not None, reason=f"no proc connector: {no_connector()}")
needs_pidfd = pytest.mark.skipif(not has_procfs() or no_pidfd() is not None, reason="no pidfd_open")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path / "course", STEPS)


@pytest.fixture
def student() -> Iterator[Student]:
    with Student() as student:
        yield student


class FakeLevel:
    """A level that does what the test says.  `refusals`: one for each try to open it, then it works."""

    name: ClassVar[str] = "fake"
    wants_opens: ClassVar[bool] = False
    blind_to = "everything, it is a fake"
    last_event_ms = 0

    def __init__(self, refusals: list[Exception]) -> None:
        self.refusals = refusals
        self.opened = 0
        self.closed = 0
        self.broken = threading.Event()
        self.triggers = 0
        self.tries: list[float] = []

    def __call__(self) -> FakeLevel:
        return self

    def open(self, mailbox: Mailbox) -> None:
        self.tries.append(time.monotonic())
        if self.refusals:
            raise self.refusals.pop(0)
        self.opened += 1

    def run(self, tracker: Tracker, mailbox: Mailbox) -> None:
        tracker.survey()
        while True:
            if self.broken.is_set():
                self.broken.clear()
                raise Failed("it broke")
            orders = mailbox.take()
            self.triggers += orders.trigger
            if mailbox.should_return(orders):
                return
            time.sleep(0.001)

    def close(self) -> None:
        self.closed += 1


class Second(FakeLevel):
    name = "second"
    wants_opens = True
    blind_to = "nearly everything"


class Supervised:
    """A running sensor with what it said."""

    def __init__(self, desk: Desk, *levels: Callable[[], Any], waits_s: tuple[float, float] = (30.0, 600.0)) -> None:
        self.seen = Seen()
        self.logged: list[str] = []
        self.levels_told: list[str] = []
        self.sensor = ProcessSensor(
            desk.course,
            self.seen.put,
            levels=levels,
            log=self.logged.append,
            on_level=self.levels_told.append,
            waits_s=waits_s,
        )

    def __enter__(self) -> Supervised:
        self.sensor.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.sensor.stop()

    def changes(self) -> list[str]:
        """The levels that were announced."""
        return [one.level for one in self.seen.of(SensorChanged)]

    def failures(self) -> list[EventsLost]:
        """The losses that are told of a level that failed."""
        return [one for one in self.seen.of(EventsLost) if " level failed: " in one.reason]

    def wait_for_level(self, level: str, times: int = 1) -> None:
        self.seen.wait_for(lambda seen: self.changes().count(level) >= times)


def test_the_first_level_that_works_is_used_and_said(desk: Desk) -> None:
    first, second = FakeLevel([Refused("not here")]), Second([])
    with Supervised(desk, first, second) as it:
        it.seen.listed()
        assert it.sensor.level == "second"
        assert it.sensor.wants_opens
        (changed,) = it.seen.of(SensorChanged)
        assert (changed.sensor, changed.level, changed.blind_to) == ("processes", "second", "nearly everything")
        assert it.levels_told == ["second"]
        assert it.logged == ["Processes can't be seen by the fake level: not here."]
        # SensorChanged comes before what the level sees.
        assert [type(one) for one in it.seen] == [SensorChanged, ProcessesListed]
    assert (first.opened, first.closed, second.closed) == (0, 1, 1)


def test_a_level_refused_for_good_is_never_tried_again(desk: Desk) -> None:
    first, second = FakeLevel([Refused("not here")] * 5), Second([])
    with Supervised(desk, first, second, waits_s=(0.001, 0.001)) as it:
        it.seen.listed()
        assert it.sensor._mailbox.retry_at is None, "nothing will wake it up for that"
        assert it.sensor._mailbox.timeout() is None
    assert len(first.tries) == 1


def test_a_level_refused_for_a_passing_reason_is_tried_again_ever_more_rarely(desk: Desk) -> None:
    first, second = FakeLevel([Refused("too busy", passing=True)] * 4), Second([])
    with Supervised(desk, first, second, waits_s=(0.05, 0.2)) as it:
        it.wait_for_level("fake")
        assert it.changes() == ["second", "fake"]
        waits = [later - earlier for earlier, later in zip(first.tries, first.tries[1:], strict=False)]
        assert [wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2, 0.2), strict=True)] == [True] * 4
        # Said once, not at each try.
        assert it.logged == [
            "Processes can't be seen by the fake level: too busy.",
            "Processes are seen by the fake level again.",
        ]
    assert second.closed == 1


def test_a_level_that_fails_is_replaced_at_once_and_comes_back(desk: Desk) -> None:
    first, second = FakeLevel([]), Second([])
    # Longer than this test may take: it is not the wait before a retry that brings the second.
    with Supervised(desk, first, second, waits_s=(3600.0, 3600.0)) as it:
        it.wait_for_level("fake")
        first.broken.set()
        it.wait_for_level("second")
        (lost,) = it.seen.of(EventsLost)
        assert lost.sensor == "processes"
        assert lost.reason == "the fake level failed: it broke"
        assert lost.since <= lost.at
    first, second = FakeLevel([]), Second([])
    with Supervised(desk, first, second, waits_s=(0.05, 0.1)) as it:
        it.wait_for_level("fake")
        first.broken.set()
        it.wait_for_level("fake", times=2)
        assert it.changes() == ["fake", "second", "fake"]
        until(lambda: it.levels_told == ["fake", "second", "fake"])
        assert it.logged == [
            "The fake level stopped seeing processes: it broke.",
            "Processes are seen by the fake level again.",
        ]
        # and again, with the second at hand at once
        first.broken.set()
        it.wait_for_level("second", times=2)
        assert second.opened == 2


def test_a_mistake_in_a_level_does_not_blind_the_agent(desk: Desk) -> None:
    class Mistaken(FakeLevel):
        def run(self, tracker: Tracker, mailbox: Mailbox) -> None:
            raise ZeroDivisionError("a mistake")

    with Supervised(desk, Mistaken([]), Second([])) as it:
        it.wait_for_level("second")
        assert "ZeroDivisionError: a mistake" in it.seen.of(EventsLost)[0].reason


def test_without_any_level_it_says_so_and_waits(desk: Desk) -> None:
    only = FakeLevel([Refused("too busy", passing=True)])
    with Supervised(desk, only, waits_s=(0.05, 0.05)) as it:
        it.wait_for_level("fake")
        assert it.changes() == [NO_LEVEL, "fake"]
        assert it.seen.of(SensorChanged)[0].blind_to == "all programs"
    with Supervised(desk, FakeLevel([Refused("never")])) as it:
        it.wait_for_level(NO_LEVEL)
        assert it.sensor.level == NO_LEVEL
        assert not it.sensor.wants_opens


def test_a_trigger_reaches_only_a_level_that_wants_it(desk: Desk) -> None:
    for level, expected in ((FakeLevel([]), 0), (Second([]), 1)):
        with Supervised(desk, level) as it:
            it.seen.listed()
            it.sensor.trigger()
        # A stop is taken after all that was posted before it.
        assert level.triggers == expected


def test_nothing_is_put_after_stop(desk: Desk, student: Student) -> None:
    with Supervised(desk, Polling) as it:
        it.seen.listed()
    before = it.seen.all()
    pid = student.start([PYTHON, "app.py"], desk.step(1))
    until_it_runs(pid)
    it.sensor.trigger()
    it.sensor.check()
    it.sensor.set_course(desk.course)
    assert it.seen.all() == before
    assert not any(thread.name == "processes" for thread in threading.enumerate())


def test_a_thread_that_hangs_keeps_its_mailbox_until_it_ends(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.sensors.processes.sensor._STOP_S", 0.05)
    go_on = threading.Event()

    class Hanging(FakeLevel):
        def run(self, tracker: Tracker, mailbox: Mailbox) -> None:
            tracker.survey()
            go_on.wait(PATIENCE_S)
            super().run(tracker, mailbox)

    with Supervised(desk, Hanging([])) as it:
        it.seen.listed()
        thread = it.sensor._thread
        mailbox = it.sensor._mailbox
    try:
        assert thread is not None and thread.is_alive()
        os.fstat(mailbox.fileno())  # still the mailbox's own, and no other file's
        assert not mailbox._closed
    finally:
        go_on.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert mailbox._closed
    it.sensor.trigger()
    it.sensor.stop()


def test_a_sensor_that_was_never_started_can_be_stopped(desk: Desk) -> None:
    it = Supervised(desk, FakeLevel([]))
    it.sensor.stop()
    assert it.sensor._mailbox._closed


class BreakableSocket(socket.socket):
    """The real socket, until it is told to fail."""

    broken = False

    def recvfrom_into(self, *arguments: Any) -> Any:
        if BreakableSocket.broken:
            raise OSError(errno.EIO, "Input/output error")
        return super().recvfrom_into(*arguments)


def breakable() -> socket.socket:
    real = open_socket()
    return BreakableSocket(fileno=real.detach())


@pytest.fixture
def mend() -> Iterator[None]:
    yield
    BreakableSocket.broken = False


@needs_connector
@needs_pidfd
@pytest.mark.usefixtures("mend")
def test_a_socket_that_fails_hands_over_to_pidfds_and_back(desk: Desk, student: Student) -> None:
    with Supervised(desk, lambda: Connector(breakable), PidfdScan, waits_s=(0.3, 1.0)) as it:
        it.wait_for_level("connector")
        before = it.changes()  # pidfd comes first where the machine was too busy for a self-test
        pid = student.start([PYTHON, "app.py"], desk.step(1))
        it.seen.wait_for(lambda seen: seen.executed(pid))
        BreakableSocket.broken = True
        student.run([PYTHON, "-S", "-c", "pass"], "/")  # any event: the next read fails
        it.wait_for_level("pidfd", times=before.count("pidfd") + 1)
        BreakableSocket.broken = False
        (lost,) = it.failures()
        assert "Input/output error" in lost.reason
        # At once: nothing was put in between.
        put = it.seen.all()
        changed = put[put.index(lost) + 1]
        assert isinstance(changed, SensorChanged)
        assert changed.level == "pidfd"
        # What the connector had reported is ended by the pidfds, once, or by the connector that came back.
        student.kill(pid, signal.SIGTERM)
        student.reap(pid)
        exited = it.seen.exit_of(pid)
        assert exited.signal in (signal.SIGTERM, None)
        it.wait_for_level("connector", times=2)
        again, _ = run_seen(student, it.seen, [PYTHON, "-S", "app.py"], desk.step(0))
        assert it.seen.exit_of(again).exit_code == 0
        assert len(it.seen.exits(pid)) == 1
        assert it.changes() == [*before, "pidfd", "connector"]


def leave_group(connection: socket.socket) -> None:
    """What a kernel that stopped sending looks like."""
    connection.setsockopt(270, 2, 1)  # SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, CN_IDX_PROC


@needs_connector
@needs_pidfd
@pytest.mark.parametrize("which", ["events", "ends"])
def test_a_connector_that_fell_silent_is_found_out_by_a_check(
    which: str, desk: Desk, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here a machine that is too busy for a self-test would look like a silent connector.
    monkeypatch.setattr("agent.sensors.processes.proc_connector._SELF_TEST_S", PATIENCE_S)
    opener = Opener()
    with Supervised(desk, lambda: Connector(opener), PidfdScan, waits_s=(0.3, 1.0)) as it:
        it.wait_for_level("connector")
        it.sensor.check()
        pid, _ = run_seen(student, it.seen, [PYTHON, "-S", "app.py"], desk.step(0))
        leave_group(getattr(opener, which))
        left = now_ms()
        living = student.start([PYTHON, "app.py"], desk.step(1))
        until_it_runs(living)
        it.sensor.check()
        it.wait_for_level("pidfd")
        (lost,) = it.failures()
        assert it.seen.executed(pid)[0].at - 1 <= lost.since
        assert lost.since <= left + 1 or which == "ends"  # the other goes on
        assert "no process events" in lost.reason
        it.seen.wait_for(lambda seen: seen.executed(living))
        it.wait_for_level("connector", times=2)
        student.kill(living, signal.SIGKILL)
        student.reap(living)
        it.seen.exit_of(living)
        assert it.changes() == ["connector", "pidfd", "connector"], "the first check found that it works"


@needs_connector
def test_the_preferred_level_is_tried_first(desk: Desk) -> None:
    for prefer, expected in (("auto", "connector"), ("connector", "connector"), ("pidfd", "pidfd")):
        if expected == "pidfd" and no_pidfd() is not None:
            continue
        seen = Seen()
        sensor = ProcessSensor(desk.course, seen.put, prefer=prefer, waits_s=(0.1, 1.0))
        sensor.start()
        try:
            seen.listed()
            # At once, where the machine is not too busy for a self-test.
            until(lambda sensor=sensor, expected=expected: sensor.level == expected)  # type: ignore[misc]
        finally:
            sensor.stop()


_IN_CONTAINER = """
import sys
from pathlib import Path
from agent.sensors.processes.sensor import ProcessSensor
from tests.sensors.student import PYTHON, WAIT, Seen, Student, make_desk, until_it_runs
desk = make_desk(Path(sys.argv[1]), {"01": {"app.py": WAIT + "raise SystemExit(3)"}})
seen = Seen()
sensor = ProcessSensor(desk.course, seen.put, log=print)
sensor.start()
seen.listed()
with Student() as student:
    pid = student.start([PYTHON, "app.py"], desk.step(0))
    until_it_runs(pid)
    sensor.trigger()
    seen.wait_for(lambda seen: seen.executed(pid))
    student.open_gate()
    student.reap(pid)
    exited = seen.exit_of(pid)
print("level", sensor.level, "exit", exited.exit_code, "retry", sensor._mailbox.retry_at)
sensor.stop()
"""


@needs_pidfd
@pytest.mark.parametrize("flags", [["--net"], ["--user", "--map-root-user", "--net"]], ids=" ".join)
def test_in_a_container_pidfds_serve_and_the_connector_is_not_tried_again(flags: list[str], tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, *flags, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make such a namespace")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}
    told = subprocess.run(
        [unshare, *flags, sys.executable, "-c", _IN_CONTAINER, str(tmp_path / "course")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("Processes can't be seen by the connector level: the kernel refuses")
    assert lines[1].startswith("level pidfd exit ")
    assert lines[1].endswith("retry None")


def test_an_observer_may_ask_anything_before_the_first_level_is_chosen(desk: Desk) -> None:
    put: list[Observation] = []
    sensor = ProcessSensor(desk.course, put.append, levels=[])
    assert (sensor.level, sensor.wants_opens, sensor.last_event_ms) == (NO_LEVEL, False, 0)
    sensor.trigger()
    sensor.check()
    sensor.stop()
    assert [one for one in put if isinstance(one, ProcessExecuted)] == []
