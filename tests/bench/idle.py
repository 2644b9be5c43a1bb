"""What the agent costs while nothing happens, beside chokidar and a Python that does nothing but watch.

Starting and memory: each subject alone, in turns, several times.  Memory is read after the agent has written its
first document.  CPU time and wake-ups: all subjects side by side for some seconds, each on a course of its own, while
this program sleeps.

A listener to processes is woken by every program that anybody starts on the machine.  These are counted in the same
seconds; `wake-ups of the other threads` is what is left without the one thread that listens.  On the level "pidfd",
which does not listen, nothing has an excuse.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from . import kernel, subjects
from .courses import make_course
from .options import Options
from .report import Report, median
from .subjects import CannotRun, Subject

#: The agent writes its document 0.3 s after it is ready; everybody is at rest well before this.
_SETTLE_S = 2.0
#: Before the seconds that count: V8 collects its garbage some 8 s after the last work.
_REST_S = 12.0


@dataclass(slots=True)
class _Found:
    """All repetitions of one subject."""

    ready: list[float] = field(default_factory=list)
    memory: list[kernel.Memory] = field(default_factory=list)
    watches: int = 0
    threads: int = 0
    cpu: list[float] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)


def measure(options: Options) -> list[Report]:
    return [_measure(options, exercises) for exercises in ([25, 500] if options.large else [25])]


def _measure(options: Options, exercises: int) -> Report:
    directory = Path(options.scratch) / f"idle-{exercises}"
    present, missing = _subjects(directory, options.scratch, exercises)
    report = Report(
        f"idle: a course of {exercises} exercises with 4 files each",
        tuple(subject.name for subject in present),
        against=("chokidar", "bare watcher"),
    )
    report.notes += missing
    found = {subject.name: _Found() for subject in present}
    level = ""
    for subject in present:  # a first time, for the caches of the disk and of Python
        subject.start()
        level = level or subject.said.decode(errors="replace").strip().rpartition("processes: ")[2]
        subject.stop()
    for number in range(options.rounds):
        for subject in _turned(present, number):
            _alone(subject, found[subject.name])
    events = [_together(present, found, options.window_s) for _ in range(options.windows)]
    _put(report, found)
    report.notes.append(f"the agent sees processes by: {level}")
    total = [event for event in events if event is not None]
    if total:
        told = ", ".join(f"{count}" for count in total)
        report.notes.append(f"the machine's own process events in each window of {options.window_s:.0f} s: {told}")
    else:
        report.notes.append("the machine's own process events could not be counted: the kernel tells nobody here")
    return report


def _subjects(directory: Path, scratch: str, exercises: int) -> tuple[list[Subject], list[str]]:
    def course(name: str) -> str:
        return str(make_course(directory / name, exercises))

    quiet = directory / "pidfd.toml"
    agent = subjects.agent(course("a"), str(directory / "state-a"))
    quiet.write_text('process_sensor = "pidfd"\n')
    pidfd = subjects.agent(course("b"), str(directory / "state-b"), "--config", str(quiet), name="agent (pidfd)")
    listening = subjects.floor("files", course("d"), name="bare watcher")
    bare = subjects.floor("bare", name="bare Python")
    missing: list[str] = []
    peers: list[Subject] = []
    try:
        peers.append(subjects.chokidar(f"{course('c')}/exercises", scratch))
    except CannotRun as error:
        missing.append(str(error))
    return [agent, *peers, listening, bare, pidfd], missing


def _turned(items: list[Subject], by: int) -> list[Subject]:
    by %= len(items)
    return items[by:] + items[:by]


def _alone(subject: Subject, found: _Found) -> None:
    found.ready.append(subject.start())
    try:
        time.sleep(_SETTLE_S)
        found.memory.append(kernel.memory(subject.pid))
        found.watches = kernel.inotify_watches(subject.pid)
        found.threads = kernel.threads(subject.pid)
    finally:
        subject.stop()


def _together(present: list[Subject], found: dict[str, _Found], seconds: float) -> int | None:
    """CPU time and wake-ups of all at once; returns how many process events the machine had meanwhile."""
    events = kernel.maybe_process_events()
    try:
        for subject in present:
            subject.start()
        time.sleep(_REST_S)
        if events is not None:
            sum(1 for _ in events.take())
        before = {subject.name: kernel.effort(subject.pid) for subject in present}
        time.sleep(seconds)
        for subject in present:
            spent = kernel.effort(subject.pid).since(before[subject.name])
            one = found[subject.name]
            one.cpu.append(spent.cpu_ms * 60 / seconds)
            one.wakes.append(spent.wake_ups / seconds)
            one.others.append((spent.wake_ups - spent.busiest) / seconds)
        return None if events is None else sum(1 for _ in events.take())
    finally:
        if events is not None:
            events.close()
        for subject in present:
            subject.stop()


def _put(report: Report, found: dict[str, _Found]) -> None:
    for what in ("rss", "pss", "uss"):
        values = {name: median([getattr(each, what) for each in one.memory]) for name, one in found.items()}
        report.add(what.upper(), "MB", values)
    report.add("ready after", "ms", {name: median([1000 * each for each in one.ready]) for name, one in found.items()})
    report.add("CPU time", "ms/60 s", {name: median(one.cpu) for name, one in found.items()})
    report.add("wake-ups", "1/s", {name: median(one.wakes) for name, one in found.items()})
    report.add("wake-ups of the other threads", "1/s", {name: median(one.others) for name, one in found.items()})
    report.add("inotify watches", "", {name: one.watches for name, one in found.items()})
    report.add("threads", "", {name: one.threads for name, one in found.items()})
