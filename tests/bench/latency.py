"""How long it takes from what the student does until the agent knows it.

`exit → durable`: the benchmark starts a short program in the course, as a shell does, and takes the kernel's own
time of its exit (where the kernel tells: else the moment at which a pidfd is readable).  Then it waits for a write to
the journal's log, and from there on asks SQLite, over and over, until the record of this run is there for another
process.  SQLite shows a commit to others only after its sync (`sqlite3WalFrames` in wal.c), so the time after that
answer is an upper bound: it contains one or two questions of 0.02 ms.  (Asking all the time would take a processor
away from the agent: on two it made 3 ms of 1.)  Besides: when the same event reached this program (`bare listener`),
and a write and fdatasync of the record's bytes on the same file system (`write + fdatasync`), one after each run.

`save → observed`: a file is written and closed; the agent writes what it observed to its trace (`run --record`), which
this program waits for; chokidar and a bare Python watcher print a line.  Everybody has a course of its own, and the
saves go round.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent.config import Config, course_state_dir
from agent.core.events import Compile
from agent.store.journal import Journal

from . import kernel, subjects
from .courses import entry, make_course
from .options import Options
from .report import Report, percentile
from .subjects import CannotRun, Subject

_PATIENCE_S = 10.0
#: So long after a write to the journal's log the journal is asked without a pause, else every 2 ms.
_SPIN_NS = 3_000_000
_PERCENTS = (50, 95, 99)


def measure(options: Options) -> list[Report]:
    scratch = Path(options.scratch) / "latency"
    return [_exits(scratch / "exits", options), _saves(scratch / "saves", options)]


# --- exit -> durable ---


def _exits(directory: Path, options: Options) -> Report:
    course = make_course(directory / "course", 25)
    state = str(directory / "state")
    agent = subjects.agent(str(course), state)
    report = Report(
        f"latency: exit → durable, {options.repetitions} runs of `python -S app.py`",
        ("agent", "bare listener", "write + fdatasync", "listener + write"),
        against=("listener + write",),
    )
    agent.start()
    try:
        durable, heard, floor, both, size, kind = _run_all(course, state, directory, options.repetitions)
    finally:
        agent.stop()
    found = {"agent": durable, "bare listener": heard, "write + fdatasync": floor, "listener + write": both}
    for percent in _PERCENTS:
        report.add(f"p{percent}", "ms", {name: percentile(values, percent) for name, values in found.items()})
    report.notes += [f"the exit's time is that of {kind}", f"a record has {size} bytes in the median"]
    return report


def _run_all(
    course: Path, state: str, directory: Path, repetitions: int
) -> tuple[list[float], list[float], list[float], list[float], int, str]:
    journal_directory = course_state_dir(Config(state_dir=state), str(course))
    processes = kernel.maybe_process_events()
    durable, heard, floor, both, sizes = [], [], [], [], list[int]()
    chance = random.Random(7)
    with Journal.open(journal_directory, create=False, read_only=True) as journal:
        log = kernel.FileEvents(journal_directory, kernel.IN_MODIFY)
        file = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for number in range(repetitions + 3):
                time.sleep(chance.uniform(0.1, 0.4))  # at rest again, and at no fixed beat
                exit_ns, heard_ns, durable_ns, size = _one_run(course, number // 20 % 25, journal, log, processes)
                wrote = _write_durably(file, size)
                if number >= 3:  # the first ones open the step and the session, too
                    durable.append((durable_ns - exit_ns) / 1e6)
                    heard.append((heard_ns - exit_ns) / 1e6)
                    floor.append(wrote)
                    both.append(heard[-1] + wrote)
                    sizes.append(size)
        finally:
            os.close(file)
            log.close()
            if processes is not None:
                processes.close()
    kind = "a pidfd (the kernel tells no process events here)" if processes is None else "the kernel's EXIT event"
    return durable, heard, floor, both, int(percentile(sizes, 50) or 0), kind


def _one_run(
    course: Path, step: int, journal: Journal, log: kernel.FileEvents, processes: kernel.ProcessEvents | None
) -> tuple[int, int, int, int]:
    """When the program exited, when a bare listener knew, when its record was durable (all ns), and its size."""
    last = journal.last_number
    if processes is not None:
        sum(1 for _ in processes.take())
    child = subprocess.Popen([sys.executable, "-S", entry(step)], cwd=course, stdout=subprocess.DEVNULL)
    exit_ns, heard_ns = _exit_of(child.pid, processes)
    child.wait()
    log.take()
    done_ns = written_ns = 0
    while done_ns < exit_ns + _PATIENCE_S * 1e9:
        if done_ns > written_ns + _SPIN_NS and kernel.wait_for(log, seconds=0.002):
            log.take()
            written_ns = time.monotonic_ns()
        now = journal.last_number
        done_ns = time.monotonic_ns()
        if now > last:
            for record in journal.records(after=last):
                last = record.number
                if isinstance(record.event, Compile):
                    return exit_ns, heard_ns, done_ns, _size(journal, record.number)
    raise CannotRun("the agent did not record a run within 10 s")


def _exit_of(pid: int, processes: kernel.ProcessEvents | None) -> tuple[int, int]:
    if processes is None:
        descriptor = os.pidfd_open(pid)
        kernel.wait_for(descriptor, seconds=_PATIENCE_S)
        os.close(descriptor)
        return time.monotonic_ns(), time.monotonic_ns()
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        kernel.wait_for(processes, seconds=_PATIENCE_S)
        for event in processes.take():
            if event.is_exit and event.pid == pid:
                return event.at_ns, time.monotonic_ns()
    raise CannotRun("the kernel did not tell of an exit within 10 s")


def _size(journal: Journal, number: int) -> int:
    query = "SELECT length(body) + coalesce(length(texts), 0) FROM records WHERE number=?"
    return int(journal.connection.execute(query, (number,)).fetchone()[0])


def _write_durably(file: int, size: int) -> float:
    began = time.monotonic_ns()
    os.write(file, b"x" * size)
    os.fdatasync(file)
    return (time.monotonic_ns() - began) / 1e6


# --- save -> observed ---


def _saves(directory: Path, options: Options) -> Report:
    trace = directory / "trace" / "trace"
    trace.parent.mkdir(parents=True)
    present: dict[str, tuple[Subject, Path]] = {}
    missing: list[str] = []

    def add(name: str, make: Callable[[Path], Subject]) -> None:
        course = make_course(directory / name.replace(" ", "-"), 25)
        try:
            subject = make(course)
        except CannotRun as error:
            missing.append(str(error))
        else:
            present[name] = (subject, course)

    add("agent", lambda course: subjects.agent(str(course), str(directory / "state"), "--record", str(trace)))
    add("chokidar", lambda course: subjects.chokidar(f"{course}/exercises", options.scratch))
    add("bare watcher", lambda course: subjects.floor("files", str(course)))
    report = Report(
        f"latency: save → observed, {options.repetitions} saves each",
        tuple(present),
        against=("chokidar", "bare watcher"),
    )
    report.notes += missing
    took: dict[str, list[float]] = {name: [] for name in present}
    try:
        for subject, _ in present.values():
            subject.start()
        time.sleep(2)
        follower = _Follower(trace)
        chance = random.Random(7)
        for number in range(options.repetitions):
            for name, (subject, course) in present.items():
                time.sleep(chance.uniform(0.03, 0.1))
                closed_ns = _save(course / entry(number % 25), number)
                if name == "agent":
                    follower.wait(entry(number % 25))
                else:
                    while b"app.py" not in (line := subject.line()) and line:
                        pass
                took[name].append((time.monotonic_ns() - closed_ns) / 1e6)
    finally:
        for subject, _ in present.values():
            subject.stop()
    for percent in _PERCENTS:
        report.add(f"p{percent}", "ms", {name: percentile(values, percent) for name, values in took.items()})
    return report


def _save(path: Path, number: int) -> int:
    """In place, as LearnPack and VS Code do; when `close` began (ns)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, f"print('hello')  # {number} {random.random()}\n".encode())
    now = time.monotonic_ns()
    os.close(descriptor)
    return now


class _Follower:
    """Reads the agent's trace as it grows."""

    def __init__(self, path: Path) -> None:
        self._events = kernel.FileEvents(str(path.parent), kernel.IN_MODIFY)
        self._file = open(path, "rb")  # noqa: SIM115 (as long as this object)
        self._file.seek(0, os.SEEK_END)

    def wait(self, path: str) -> None:
        """Until a change of this file was observed."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            line = self._file.readline()
            if b'"file_changed"' in line and path.encode() in line:
                return
            if not line:
                self._events.take()
                kernel.wait_for(self._events, seconds=1)
        raise CannotRun("the agent did not observe a save within 10 s")
