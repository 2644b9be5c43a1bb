"""How long it takes from what the student does until the agent knows it.

`exit → durable`: the benchmark starts a short program in the course, as a shell does, and takes the kernel's own
time of its exit (where the kernel tells: else the moment at which its parent knows).  Then it waits for a write to the
journal's log, and from there on asks SQLite every 0.1 ms until the record of this run is there for another process.
SQLite shows a commit to others only after its sync (`sqlite3WalFrames` in wal.c), so the time after that answer is an
upper bound, by 0.15 ms at most.  The floor, every other run, in a course that nobody watches:
the benchmark itself hears of the exit and at once writes as many bytes, with fdatasync, on the same file system.

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
#: A run that is not recorded by then was not seen.
_MISSED_S = 3.0
#: So long after a write to the journal's log the journal is asked every 0.1 ms, else every 2 ms.  Without a pause this
#: program would take a processor away from the agent, and from the kernel's threads that write to the disk.
_CLOSE_LOOK_NS = 5_000_000
_STEP_S = 0.00005
_PERCENTS = (50, 95, 99)


def measure(options: Options) -> list[Report]:
    scratch = Path(options.scratch) / "latency"
    return [_exits(scratch / "exits", options), _saves(scratch / "saves", options)]


# --- exit -> durable ---


def _exits(directory: Path, options: Options) -> Report:
    course = make_course(directory / "course", 25)
    elsewhere = make_course(directory / "elsewhere", 25)
    agent = subjects.agent(str(course), str(directory / "state"))
    report = Report(
        f"latency: exit → durable, {options.repetitions} runs of `python -S app.py` each",
        ("agent", "floor"),
        against=("floor",),
    )
    agent.start()
    processes = kernel.maybe_process_events()
    watcher = _Recorded(course_state_dir(Config(state_dir=str(directory / "state")), str(course)))
    took: dict[str, list[float]] = {"agent": [], "floor": []}
    size, missed = 700, 0  # the size is known with the first record
    file = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    chance = random.Random(7)
    try:
        time.sleep(2)
        for number in range(options.repetitions + 3):
            for name, where in (("agent", course), ("floor", elsewhere)):
                time.sleep(chance.uniform(0.15, 0.45))  # at rest again, and at no fixed beat
                command = [sys.executable, "-S", entry(number // 20 % 25)]
                with subprocess.Popen(command, cwd=where, stdout=subprocess.DEVNULL) as child:
                    exit_ns = _exit_of(child, processes)
                    if name == "agent":
                        found = watcher.wait()
                        if found is None:
                            missed += 1
                            continue
                        done_ns, size = found
                    else:
                        os.write(file, b"x" * size)
                        os.fdatasync(file)
                        done_ns = time.monotonic_ns()
                if number >= 3:  # the first ones open the step and the session, too
                    took[name].append((done_ns - exit_ns) / 1e6)
    finally:
        os.close(file)
        watcher.close()
        if processes is not None:
            processes.close()
        agent.stop()
    for percent in _PERCENTS:
        report.add(f"p{percent}", "ms", {name: percentile(values, percent) for name, values in took.items()})
    kind = "a pidfd (the kernel tells no process events here)" if processes is None else "the kernel's EXIT event"
    report.notes += [f"the exit's time is that of {kind}; a record has {size} bytes"]
    report.notes.append(f"runs that the agent did not record: {missed} of {options.repetitions + 3}")
    return report


def _exit_of(child: subprocess.Popen[bytes], processes: kernel.ProcessEvents | None) -> int:
    """When the program exited (ns); returns as soon as it is heard of."""
    if processes is None:
        child.wait()
        return time.monotonic_ns()
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        kernel.wait_for(processes, seconds=_PATIENCE_S)
        for event in processes.take():
            if event.is_exit and event.pid == child.pid:
                return event.at_ns
    raise CannotRun("the kernel did not tell of an exit within 10 s")


class _Recorded:
    """Waits until another process can read the agent's next run from the journal."""

    def __init__(self, directory: str) -> None:
        self._journal = Journal.open(directory, create=False, read_only=True)
        self._log = kernel.FileEvents(directory, kernel.IN_MODIFY)
        self._last = self._journal.last_number

    def wait(self) -> tuple[int, int] | None:
        """When it was there (ns), and the record's size in bytes; None when it did not come."""
        began = done_ns = written_ns = time.monotonic_ns()
        while done_ns < began + _MISSED_S * 1e9:
            if done_ns < written_ns + _CLOSE_LOOK_NS:
                time.sleep(_STEP_S)
            elif kernel.wait_for(self._log, seconds=0.002):
                self._log.take()
                written_ns = time.monotonic_ns()
            number = self._journal.last_number
            done_ns = time.monotonic_ns()
            if number > self._last:
                for record in self._journal.records(after=self._last):
                    self._last = record.number
                    if isinstance(record.event, Compile):
                        return done_ns, self._size(record.number)
        self._last = self._journal.last_number
        return None

    def _size(self, number: int) -> int:
        query = "SELECT length(body) + coalesce(length(texts), 0) FROM records WHERE number=?"
        return int(self._journal.connection.execute(query, (number,)).fetchone()[0])

    def close(self) -> None:
        self._log.close()
        self._journal.close()


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
