"""What the commands show of a journal: lines for people, and one dictionary for scripts.

Only reading: a journal that the agent writes at this moment can be shown.  Times are shown in local time.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .core.codec import from_plain
from .core.course import Course
from .core.events import (
    AiInteraction,
    Compile,
    CompleteStep,
    Event,
    Gap,
    OpenStep,
    ResetStep,
    Run,
    SessionEnd,
    SessionStart,
    Test,
)
from .core.export import public
from .core.inference import Snapshot
from .store.adoption import row, same_runs
from .store.journal import Journal, Record, dumped
from .store.lock import holder


def clock(at: int) -> str:
    """A time in ms as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at / 1000)) + f".{at % 1000:03d}"


def outcome(run: Run) -> str:
    """How a run ended, in two words."""
    if run.signal is not None:
        return f"ended by signal {run.signal}"
    if run.exit_code is None:
        return "exit code unknown"
    return f"exit code {run.exit_code}"


def event_words(event: Event) -> str:
    """An event without its time, in one line."""
    match event:
        case Compile() | Test():
            length = "" if event.run.ended_at is None else f", {event.run.ended_at - event.run.started_at} ms"
            return f"{event.name} {event.step.slug}: {outcome(event.run)}{length} ({event.run.origin})"
        case OpenStep() | CompleteStep() | ResetStep() | AiInteraction():
            return f"{event.name} {event.step.slug}"
        case Gap():
            return f"gap of {event.at - event.started_at} ms: {event.reason}"
        case SessionStart() | SessionEnd():
            return event.name


def event_line(record: Record) -> str:
    return f"{record.number:>6}  {clock(record.event.at)}  {event_words(record.event)}"


def explanation(record: Record) -> Iterator[str]:
    """Why an event is believed: the observations behind it, oldest first."""
    yield f"{record.id}  {clock(record.event.at)}  {event_words(record.event)}"
    for reason in record.event.evidence:
        yield f"  because at {clock(reason.at)} {reason.words} (observation {reason.observation})"


def status_of(course: Course, journal: Journal, directory: str) -> dict[str, Any]:
    """Everything that `status` tells, as plain data.

    `agent`: what the running (or last) agent said of itself, with `running` and its `pid`; `steps`: progress per
    step; `events`: how many of each; `gaps`: the last ten with their reasons.
    """
    pid = holder(directory)
    agent = _agent(journal, pid)
    counts: Counter[str] = Counter()
    steps: dict[str, dict[str, Any]] = {
        step.slug: {"slug": step.slug, "position": step.position, "is_testable": step.is_testable} | _nothing()
        for step in course.steps
    }
    gaps: list[dict[str, Any]] = []
    last: Record | None = None
    for record in journal.records(with_texts=False):
        event, last = record.event, record
        counts[event.name] += 1
        if isinstance(event, Gap):
            gaps = [*gaps[-9:], {"started_at": event.started_at, "ended_at": event.at, "reason": event.reason}]
        elif isinstance(event, (OpenStep, Compile, Test, CompleteStep, ResetStep)):
            name = event.step
            step = steps.setdefault(name.slug, {"slug": name.slug, "position": name.position} | _nothing())
            _count(step, event)
    snapshot = _snapshot(journal)
    return {
        "course": course.root,
        "slug": course.slug,
        "state_dir": directory,
        "agent": agent,
        "session": {"started_at": snapshot.session.started_at} if snapshot and snapshot.session else None,
        "current_step": snapshot.visits[-1][1] if snapshot and snapshot.visits else None,
        "events": dict(sorted(counts.items())),
        "last_event": {"number": last.number, "event": last.event.name, "at": last.event.at} if last else None,
        "gaps": gaps,
        "steps": list(steps.values()),
    }


def _agent(journal: Journal, pid: int | None) -> dict[str, Any]:
    """What the agent said of itself.  Nothing (but `running` and `pid`) while it starts, or in a journal begun anew."""
    try:
        said = journal.fact("status")
    except ValueError:  # not JSON; the next change writes it anew
        said = None
    if not isinstance(said, dict) or (pid and said.get("pid") != pid):  # of a life before this one
        said = {}
    return said | {"running": pid is not None, "pid": pid}


def _nothing() -> dict[str, Any]:
    return {"opened_at": None, "completed_at": None, "compilations": 0, "tests": 0, "failures": 0}


def _count(step: dict[str, Any], event: OpenStep | Compile | Test | CompleteStep | ResetStep) -> None:
    match event:
        case OpenStep():
            step["opened_at"] = step["opened_at"] or event.at
        case CompleteStep():
            step["completed_at"] = step["completed_at"] or event.at
        case Compile() | Test():
            step["compilations" if isinstance(event, Compile) else "tests"] += 1
            step["failures"] += event.run.signal is not None or (event.run.exit_code or 0) != 0
        case ResetStep():
            pass


def _snapshot(journal: Journal) -> Snapshot | None:
    import orjson

    kept = journal.state()
    try:
        return from_plain(Snapshot, orjson.loads(kept)) if kept else None
    except ValueError:
        return None


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """`status_of` for people."""
    agent = status["agent"]
    yield f"course    {status['slug']}  ({status['course']})"
    if agent["running"]:
        since = f"since {clock(agent['started_at'])}" if agent.get("started_at") else "nothing told yet"
        yield f"agent     running, process {agent['pid'] or 'unknown'}, {since}"
    else:
        stopped = f", stopped {clock(agent['stopped_at'])}" if agent.get("stopped_at") else ""
        yield f"agent     not running{stopped}"
    for sensor in ("processes", "files"):
        if seen := agent.get(sensor):
            yield f"{sensor:<9} seen by {seen.get('level')}; can't see: {seen.get('blind_to') or 'nothing'}"
    if agent.get("document"):
        yield f"document  not written: {agent['document']}"
    session = status["session"]
    yield f"session   {'open since ' + clock(session['started_at']) if session else 'none'}"
    yield f"events    {', '.join(f'{count} {name}' for name, count in status['events'].items()) or 'none yet'}"
    for gap in status["gaps"]:
        yield f"gap       {clock(gap['started_at'])} to {clock(gap['ended_at'])}: {gap['reason']}"
    yield from progress_lines(status["steps"], status["current_step"])


def progress_lines(steps: list[dict[str, Any]], current: str | None) -> Iterator[str]:
    """One line a step: where the student is and how it went."""
    yield "steps"
    for step in steps:
        mark = "done" if step["completed_at"] else "open" if step["opened_at"] else ""
        runs = f"{step['compilations']} runs, {step['tests']} tests, {step['failures']} failed"
        here = "  <- here" if step["slug"] == current else ""
        yield f"  {step['position']:>3}  {step['slug']:<36} {mark:<5} {runs if mark else ''}{here}".rstrip()


class PublicLines:
    """Records as `export` writes them, with LearnPack's own texts of the same run where ours were not captured.

    Which runs LearnPack recorded too is asked once per step and kind, and again for a record that came after that
    (`events --follow`; what LearnPack writes later than the event is printed is not in its line).
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._same: dict[tuple[str, str], tuple[int, dict[int, int]]] = {}

    def line(self, record: Record) -> bytes:
        """One JSON object, without a line end."""
        event = record.event
        theirs = None
        if isinstance(event, (Compile, Test)):
            theirs = self._learnpacks(record.number, event.name, event.step.slug)
        return dumped(public(record.number, record.id, event, theirs))

    def _learnpacks(self, number: int, kind: str, slug: str) -> dict[str, Any] | None:
        asked_at, same = self._same.get((kind, slug), (0, {}))
        if asked_at < number:
            with self._journal.snapshot():
                asked_at, same = self._journal.last_number, same_runs(self._journal, kind, slug)
            self._same[kind, slug] = asked_at, same
        if number not in same:
            return None
        with self._journal.snapshot():
            return row(self._journal, same[number])


def is_open_as(path: str, descriptor: int) -> bool:
    """Whether the path names what is open already: /dev/stdout, for one."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def write_private(path: str, lines: Iterator[bytes]) -> None:
    """Write lines to a new file of mode 0600 that replaces `path` when it is complete.

    A symbolic link stays and what it names is replaced; what is no regular file (a FIFO, a device) is written to.
    """
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        is_file = True
    if not is_file:
        with open(path, "wb") as stream:
            stream.writelines(lines)
        return
    target = os.path.realpath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(lines)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
