"""How many short programs are read before they are over: what no test can promise, because the scheduler decides it.

A process starts programs in the course at 50 a second: a shell that lives about 3 ms, and `python -S` that lives
about 15.  Beside the agent a Python listens to the same events of the kernel and only reads the command line of each
process.  Both hear the same programs, once while nothing else runs and once beside busy loops, one more than the
machine has processors.  The agent's own figure is taken from its trace (`run --record`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from . import subjects
from .courses import entry, make_course
from .options import Options
from .report import Report
from .subjects import CannotRun, Subject

_GAP_S = 0.02
_PATIENCE_S = 30.0
#: After the kernel has told of the last program, everybody has so long to read what waits.
_REST_S = 1.0

_LIVES = {
    "3 ms": ["/bin/sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done"],
    "15 ms": [sys.executable, "-S", "-E", entry(1)],
}


def measure(options: Options) -> list[Report]:
    directory = Path(options.scratch) / "catch"
    course = make_course(directory / "course", 25)
    trace = directory / "trace"
    agent = subjects.agent(str(course), str(directory / "state"), "--record", str(trace))
    listener = subjects.floor("words", name="bare listener")
    count = options.repetitions * 3
    report = Report(
        f"catch: programs of the course that were read in time, of {count} at 50 a second",
        (agent.name, listener.name),
        against=(listener.name,),
    )
    lines: list[bytes] = []
    try:
        agent.start()
        try:
            listener.start()
            threading.Thread(target=_collect, args=(listener, lines), daemon=True).start()
        except CannotRun as error:
            report.notes.append(f"{error} (the kernel tells no process events here)")
        report.notes.append(agent.said.decode(errors="replace").strip().rpartition("processes: ")[2] + " is the level")
        time.sleep(1.5)
        for loops in (0, (os.cpu_count() or 1) + 1):
            with _busy(loops):
                for life, command in _LIVES.items():
                    mark = f"{life.replace(' ', '-')}-beside-{loops}"
                    _run(command, mark, course, count)
                    seen: dict[str, float | None] = {agent.name: _share(trace.read_bytes().splitlines(), mark, count)}
                    if listener.process is not None:
                        seen[listener.name] = _share(lines, mark, count)
                    report.add(f"lives of {life}, beside {loops} busy loops", "%", seen)
    finally:
        agent.stop()
        listener.stop()
    return [report]


def _run(command: list[str], mark: str, course: Path, count: int) -> None:
    living: list[subprocess.Popen[bytes]] = []
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number * _GAP_S - time.monotonic()))
        living.append(subprocess.Popen([*command, f"{mark}-{number:04d}"], cwd=course, stdout=subprocess.DEVNULL))
        living = [one for one in living if one.poll() is None]
    for one in living:
        one.wait(_PATIENCE_S)
    time.sleep(_REST_S)


def _share(lines: list[bytes], mark: str, count: int) -> float:
    """How many of the programs are named in any of these lines, in percent."""
    text = b"\n".join(lines)
    return 100 * sum(f"{mark}-{number:04d}".encode() in text for number in range(count)) / count


def _collect(listener: Subject, lines: list[bytes]) -> None:
    with contextlib.suppress(AssertionError, ValueError):  # it was stopped
        while line := listener.line():
            lines.append(line)


@contextlib.contextmanager
def _busy(loops: int) -> Iterator[None]:
    running = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"], cwd="/") for _ in range(loops)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()
