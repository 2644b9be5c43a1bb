"""A student for tests of the process sensors: a process of its own that starts programs, so that these are not the
children of the agent (whose children are never reported), and a place where observations are collected."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pytest

from agent.core.course import ENTRIES, Course, step_from
from agent.core.observations import Observation, ProcessesListed, ProcessExecuted, ProcessExited
from agent.sensors.processes.level import Level, Mailbox, Refused
from agent.sensors.processes.procfs import Words
from agent.sensors.processes.tracking import Tracker
from tests.until import until

PYTHON = str(Path(sys.executable).resolve())

#: How long anything is waited for, in seconds: on a busy machine whatever takes a millisecond may take seconds.
PATIENCE_S = 60.0

#: A line of Python, and one of a shell, at which a program waits until its student opens the gate.  Neither starts
#: another process.
WAIT = 'import os; open(os.environ["GATE"]).read()\n'
WAIT_SH = 'read x < "$GATE"\n'

#: Reads one order a line, answers one line an order.
_HANDS = """
import json, os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
if len(sys.argv) > 1:
    uid = int(sys.argv[1]); os.setgroups([]); os.setgid(uid); os.setuid(uid)
unreaped = set()
def start(order):
    pid = os.fork()
    if pid:
        unreaped.add(pid)
    else:
        os.chdir(order["cwd"])
        source = os.open(order.get("stdin") or "/dev/null", os.O_RDONLY)
        os.dup2(source, 0)
        sink = os.open("/dev/null", os.O_WRONLY)
        os.dup2(sink, 1); os.dup2(sink, 2)
        try: os.execv(order["argv"][0], order["argv"])
        finally: os._exit(127)
    return pid
def end(pid):
    status = os.waitpid(pid, 0)[1]
    unreaped.discard(pid)
    return status
for line in sys.stdin:
    order = json.loads(line)
    began = time.monotonic_ns()
    if order["do"] == "start": answer = {"pid": start(order)}
    elif order["do"] == "run":
        pid = start(order); answer = {"pid": pid, "status": end(pid)}
    elif order["do"] == "reap": answer = {"pid": order["pid"], "status": end(order["pid"])}
    elif order["do"] == "kill": os.kill(order["pid"], order["signal"]); answer = {}
    else:
        answer = {"runs": []}
        living = {}
        for number, one in enumerate(order["orders"]):
            due = began / 1e9 + number * order["gap_s"]
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG) if living else (0, 0)
                if pid: answer["runs"].append([pid, living.pop(pid), status])
                elif time.monotonic() >= due: break
                else: time.sleep(0.0005)
            pid = start(one)
            unreaped.discard(pid)
            living[pid] = number
        while living:
            pid, status = os.wait()
            answer["runs"].append([pid, living.pop(pid), status])
    print(json.dumps(answer), flush=True)
for pid in unreaped:
    os.kill(pid, signal.SIGKILL)
"""


class Student:
    """Starts programs from a process of its own (as another user, if one is given).  What was not reaped is killed at
    the end, and who waits at the gate then may pass.

    `gate` is a FIFO, and its path is `GATE` in the programs' environment: a program that opens it to read waits there
    until `open_gate`.  `started` are the pids of all that `start` started.
    """

    def __init__(self, uid: int | None = None) -> None:
        self._directory = Path(tempfile.mkdtemp())
        self._directory.chmod(0o755)
        self.gate = self._directory / "gate"
        os.mkfifo(self.gate)
        self.gate.chmod(0o666)
        self.started: list[int] = []
        self._hands = subprocess.Popen(
            [PYTHON, "-S", "-c", _HANDS, *([str(uid)] if uid is not None else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env={**os.environ, "GATE": str(self.gate)},
            text=True,
        )
        self.pid = self._hands.pid

    def __enter__(self) -> Student:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._hands.stdin is not None and self._hands.stdout is not None
        self._hands.stdin.close()
        self._hands.stdout.close()
        self._hands.wait(PATIENCE_S)
        with suppress(OSError):  # nobody waits
            os.close(os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK))
        shutil.rmtree(self._directory)

    def _do(self, **order: Any) -> dict[str, Any]:
        assert self._hands.stdin is not None and self._hands.stdout is not None
        self._hands.stdin.write(json.dumps(order) + "\n")
        self._hands.stdin.flush()
        answer: dict[str, Any] = json.loads(self._hands.stdout.readline())
        return answer

    def run(self, argv: list[str], cwd: Path | str, stdin: Path | str | None = None) -> tuple[int, int]:
        """Run a program to its end; returns its pid and its wait status."""
        answer = self._do(do="run", argv=argv, cwd=str(cwd), stdin=str(stdin) if stdin else None)
        return answer["pid"], answer["status"]

    def start(self, argv: list[str], cwd: Path | str, stdin: Path | str | None = None) -> int:
        """Start a program and leave it alone: it stays a zombie until `reap`."""
        pid = int(self._do(do="start", argv=argv, cwd=str(cwd), stdin=str(stdin) if stdin else None)["pid"])
        self.started.append(pid)
        return pid

    def open_gate(self) -> None:
        """Let the program pass that waits at the gate, or that will soon.  Between two openings another program must
        have been seen: who has just passed could be met again."""
        with open(self.gate, "w"):  # returns when there is a reader, which then reads the end
            pass

    def reap(self, pid: int) -> int:
        return int(self._do(do="reap", pid=pid)["status"])

    def kill(self, pid: int, signal: int) -> None:
        self._do(do="kill", pid=pid, signal=int(signal))

    def burst(self, orders: list[tuple[list[str], Path]], per_second: float) -> list[tuple[int, int, int]]:
        """Run many at this rate; returns (pid, number of the order, wait status) of each."""
        many = [{"argv": argv, "cwd": str(cwd)} for argv, cwd in orders]
        return [tuple(run) for run in self._do(do="burst", orders=many, gap_s=1 / per_second)["runs"]]


@dataclass
class Desk:
    """A course on the disk."""

    root: Path
    course: Course

    def step(self, number: int) -> Path:
        return self.root / self.course.steps[number].path


def make_desk(root: Path, steps: dict[str, dict[str, str]], language: str = "python3") -> Desk:
    """A course with these steps: {directory: {file: text}}."""
    root = root.resolve()
    made = []
    for position, (slug, files) in enumerate(steps.items()):
        directory = root / "exercises" / slug
        directory.mkdir(parents=True)
        for name, text in files.items():
            (directory / name).write_text(text)
        made.append(step_from(f"exercises/{slug}", list(files), position, ENTRIES))
    for directory in (root.parent, root):
        os.chmod(directory, 0o755)
    return Desk(root, Course(root=str(root), slug="course", steps=tuple(made)))


T = TypeVar("T")


def refusal_of(make: Callable[[], Level]) -> str | None:
    """Why a level is refused here, or None.  A reason that passes is waited out: the machine may be busy."""
    reasons: list[str | None] = []

    def is_answered() -> bool:
        level, mailbox = make(), Mailbox()
        try:
            level.open(mailbox)
        except Refused as refused:
            reasons.append(str(refused))
            return not refused.passing
        finally:
            level.close()
            mailbox.close()
        reasons.append(None)
        return True

    until(is_answered, every=0.5)
    return reasons[-1]


def child_of(pid: int) -> int:
    """The first child of a process, as soon as it has one.  Linux only."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until(children.read_text)
    return int(children.read_text().split()[0])


def until_it_runs(pid: int, word: str = "app.py") -> None:
    """Until the process has executed a program with this word in its command line.  Linux only."""
    until(lambda: word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())


class Seen:
    """Collects observations, and waits for them."""

    def __init__(self) -> None:
        self._all: list[Observation] = []
        self._changed = threading.Condition()
        self.put_at_ns: list[int] = []

    def put(self, observation: Observation) -> None:
        with self._changed:
            self._all.append(observation)
            self.put_at_ns.append(time.monotonic_ns())
            self._changed.notify_all()

    def all(self) -> list[Observation]:
        with self._changed:
            return list(self._all)

    def __iter__(self) -> Iterator[Observation]:
        return iter(self.all())

    def wait_for(self, find: Callable[[Seen], T | None], timeout: float = PATIENCE_S) -> T:
        """The first answer of `find` that is true."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = find(self)
                if found:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"not seen in {timeout} s; seen: {self._all[-40:]}"
                self._changed.wait(left)

    def of(self, kind: type[T]) -> list[T]:
        return [one for one in self.all() if isinstance(one, kind)]

    def executed(self, pid: int) -> list[ProcessExecuted]:
        return [one for one in self.of(ProcessExecuted) if one.pid == pid]

    def exits(self, pid: int) -> list[ProcessExited]:
        return [one for one in self.of(ProcessExited) if one.pid == pid]

    def exit_of(self, pid: int, timeout: float = PATIENCE_S) -> ProcessExited:
        return self.wait_for(lambda seen: next(iter(seen.exits(pid)), None), timeout)

    def executions_of(self, pid: int) -> list[ProcessExecuted]:
        """Waits for the first."""
        return self.wait_for(lambda seen: seen.executed(pid))

    def listed(self, times: int = 1) -> ProcessesListed:
        """The list of the n-th survey."""
        return self.wait_for(lambda seen: seen.of(ProcessesListed)[times - 1 :])[0]


class Heard:
    """What a tracker was told of: the pids that executed a program, each after it was looked at; and of those the
    ones that were over before they could be read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.executed: list[int] = []
        self.unreadable: list[int] = []
        executed = Tracker.executed

        def hear_executed(tracker: Tracker, pid: int, at: int) -> bool:
            read = tracker.reader.words

            def hear_words(asked: int) -> Words | None:
                words = read(asked)
                if words is None and asked == pid:
                    self.unreadable.append(pid)
                return words

            with patch.context() as for_now:
                for_now.setattr(tracker.reader, "words", hear_words)
                answer = executed(tracker, pid, at)
            self.executed.append(pid)
            return answer

        patch.setattr(Tracker, "executed", hear_executed)


def run_seen(
    student: Student, seen: Seen, argv: list[str], cwd: Path | str, stdin: Path | str | None = None
) -> tuple[int, int]:
    """Run a program that waits at the gate, which is opened when the program was seen; its pid and its wait status,
    when its end was seen too."""
    pid = student.start(argv, cwd, stdin)
    seen.wait_for(lambda seen: any(one.argv == tuple(argv) for one in seen.executed(pid)))
    student.open_gate()
    status = student.reap(pid)
    seen.exit_of(pid)
    return pid, status


def settle(student: Student, seen: Seen, directory: Path) -> None:
    """Returns when everything that happened before has been reported: a later process was, from start to end."""
    run_seen(student, seen, ["/bin/sh", "-c", WAIT_SH], directory)
