"""What other programs cost the agent: 1,000 times `/bin/true`, started by a shell elsewhere on the machine.

Beside it a Python that listens to the same events of the kernel and only counts them.  Both hear the same storms.
What is given is CPU time for each 1,000 programs that the machine really executed meanwhile, of whomever.  Once while
nobody works in the course, once while a program of the student's runs there: then the agent also looks whether a new
process is a child of that one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from . import kernel, subjects
from .courses import entry, make_course
from .options import Options
from .report import Report, median
from .subjects import CannotRun, Subject

_COUNT = 1_000
_STORM = f"i=0; while [ $i -lt {_COUNT} ]; do /bin/true; i=$((i+1)); done"


def measure(options: Options) -> list[Report]:
    scratch = Path(options.scratch) / "storm"
    course = make_course(scratch / "course", 25)
    (course / entry(1)).write_text("input()\n")
    agent = subjects.agent(str(course), str(scratch / "state"))
    listener = subjects.floor("processes", name="bare listener")
    report = Report(
        f"storm: CPU time for each 1,000 programs elsewhere, median of {options.rounds} storms of {_COUNT:,}",
        (agent.name, listener.name),
        against=(listener.name,),
    )
    present = [agent, listener]
    try:
        agent.start()
        try:
            listener.start()
        except CannotRun as error:
            report.notes.append(f"{error} (the kernel tells no process events here)")
            present.remove(listener)
        report.notes.append(agent.said.decode(errors="replace").strip().rpartition("processes: ")[2] + " is the level")
        time.sleep(1.5)
        _put(report, "nobody works", present, options.rounds)
        with subprocess.Popen(
            [sys.executable, "-S", entry(1)], cwd=course, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as program:
            time.sleep(1.5)
            _put(report, "a program runs in the course", present, options.rounds)
            program.kill()
    finally:
        for subject in present:
            subject.stop()
    return [report]


def _put(report: Report, what: str, present: list[Subject], rounds: int) -> None:
    cpu: dict[str, list[float]] = {subject.name: [] for subject in present}
    wakes: dict[str, list[float]] = {subject.name: [] for subject in present}
    for _ in range(rounds):
        events = kernel.maybe_process_events()
        before = [kernel.effort(subject.pid) for subject in present]
        with subprocess.Popen(["/bin/sh", "-c", _STORM], cwd="/"):
            pass
        time.sleep(0.2)  # what waits is read
        executed = _COUNT
        if events is not None:
            executed = max(1, sum(not event.is_exit for event in events.take()))
            events.close()
        for subject, earlier in zip(present, before, strict=True):
            spent = kernel.effort(subject.pid).since(earlier)
            cpu[subject.name].append(spent.cpu_ms * 1000 / executed)
            wakes[subject.name].append(spent.wake_ups * 1000 / executed)
    report.add(f"CPU time, {what}", "ms", {name: median(values) for name, values in cpu.items()})
    report.add(f"wake-ups, {what}", "", {name: median(values) for name, values in wakes.items()})
