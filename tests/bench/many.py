"""What a program of somebody else's costs each agent of a machine, when there are 1, 10 and 50 of them.

`/bin/true` is started again and again.  Each agent watches a course of its own; all are another user's where this runs
as root and that user may run this Python.  (Else the programs are the agents' own user's, and read whole.)
Beside them a Python that blocks in `recv`, hears the same EXECs and EXITs and only counts them.  What is given is CPU
time and wake-ups for each program that the machine really executed meanwhile; of the agents it is the median.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from . import kernel, subjects
from .courses import make_course
from .options import Options
from .report import Report, median
from .subjects import CannotRun, Subject

_CROWDS = (1, 10, 50)
_GAP_S = 0.004
#: The last of many agents has written its document by then.
_SETTLE_S = 10.0
_NOBODY = 65534  # on every Linux


def measure(options: Options) -> list[Report]:
    scratch = Path(options.scratch) / "many"
    agents: list[Subject] = []
    listener = subjects.floor("processes", name="bare listener")
    report = Report(
        f"many: CPU time for each program of somebody else's, median of {options.rounds} times {options.repetitions}",
        ("agent", listener.name),
        against=(listener.name,),
    )
    try:
        try:
            os.chmod(options.scratch, 0o755)  # for another user
            listener.start()
        except CannotRun as error:
            report.notes.append(f"{error} (the kernel tells no process events here)")
            return [report]
        user = _other_user()
        if user is None:
            report.notes.append("no other user may run this Python: the programs are of the agents' own user")
        for crowd in _CROWDS:
            for number in range(len(agents), crowd):
                agents.append(_agent(scratch / str(number), user))
                agents[-1].start()
            time.sleep(_SETTLE_S)
            _put(report, agents, listener, options)
        level = agents[0].said.decode(errors="replace").strip().rpartition("processes: ")[2]
        report.notes.append(f"{level} is the level")
    finally:
        for subject in (*agents, listener):
            subject.stop()
    return [report]


def _other_user() -> int | None:
    """Somebody who is not we and may run this agent."""
    command = [sys.executable, "-c", "import agent"]
    environment = os.environ | {"PYTHONPATH": str(subjects.REPOSITORY)}
    if os.geteuid() != 0:
        return None
    try:
        subprocess.run(command, env=environment, cwd="/", user=_NOBODY, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return _NOBODY


def _agent(directory: Path, user: int | None) -> Subject:
    make_course(directory / "course", 25)
    if user is not None:
        for found, _, names in os.walk(directory):
            for path in (found, *(os.path.join(found, name) for name in names)):
                os.chown(path, user, user)
    agent = subjects.agent(str(directory / "course"), str(directory / "state"))
    agent.user = user
    return agent


def _put(report: Report, agents: list[Subject], listener: Subject, options: Options) -> None:
    cpu: dict[str, list[float]] = {"agent": [], listener.name: []}
    wakes: dict[str, list[float]] = {"agent": [], listener.name: []}
    for _ in range(options.rounds):
        events = kernel.ProcessEvents()
        before = [kernel.effort(subject.pid) for subject in (*agents, listener)]
        _start_programs(options.repetitions)
        time.sleep(0.5)  # what waits is read
        spent = [
            kernel.effort(subject.pid).since(earlier)
            for subject, earlier in zip((*agents, listener), before, strict=True)
        ]
        executed = max(1, sum(not event.is_exit for event in events.take()))
        events.close()
        for name, efforts in (("agent", spent[:-1]), (listener.name, spent[-1:])):
            cpu[name].append(1000 * (median([one.cpu_ms for one in efforts]) or 0) / executed)
            wakes[name].append((median([one.wake_ups for one in efforts]) or 0) / executed)
    what = f"{len(agents)} agents" if len(agents) > 1 else "1 agent"
    report.add(f"CPU time, {what}", "us", {name: median(values) for name, values in cpu.items()})
    report.add(f"wake-ups, {what}", "", {name: median(values) for name, values in wakes.items()})


def _start_programs(count: int) -> None:
    for _ in range(count):
        subprocess.run(["/bin/true"], cwd="/", check=True)
        time.sleep(_GAP_S)
