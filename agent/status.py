"""`status`: what is watched, what can't be seen, how far the student is, and how long there was work.

Only reading: a journal that the agent writes at this moment can be shown.  Times are shown in local time.  `status_of`
is one dictionary for scripts, `status_lines` the same for people.  What is left out for people: gaps beyond the newest
(it is said how many), the state directory, the newest event, the size of a document that lacks nothing, and the counts
of what is watched and of its losses (each loss is a gap).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .core.codec import from_plain
from .core.course import Course
from .core.coverage import Coverage
from .core.events import Compile, CompleteStep, Gap, OpenStep, ResetStep, SessionEnd, Test
from .core.inference import Snapshot
from .core.visits import OpenVisit
from .explain import clock, duration
from .sending import sink_lines
from .store.journal import Journal, Record
from .store.lock import holder

#: So many gaps are shown with their times, the newest; and so many reasons.  `status --json` has all of them.
_NEWEST_GAPS, _REASONS = 5, 10
#: A number that stands alone: two gaps whose reasons differ in such only have the same reason.
_NUMBER = re.compile(r"(?<![\w./:-])\d+(?![\w/-]|\.\d)")


def status_of(course: Course, journal: Journal, directory: str) -> dict[str, Any]:
    """Everything that `status` tells, as plain data.

    `agent`: what the running (or last) agent said of itself, with `running` and its `pid`; `steps`: progress per
    step, with its visits and the time (ms) in which there was work in them, the one that goes on included; `visit`:
    that one; `events`: how many of each; `coverage`: of how much of the sessions each sensor saw all that it can see;
    `gaps`: all of them; `gap_reasons`: how often and for how long together, the longest first.
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
    with journal.snapshot():  # a visit that ends meanwhile is one that goes on, or one of the records
        for record in journal.records(with_texts=False):
            event, last = record.event, record
            counts[event.name] += 1
            if isinstance(event, Gap):
                gaps.append({"started_at": event.started_at, "ended_at": event.at, "reason": event.reason})
            elif isinstance(event, (OpenStep, Compile, Test, CompleteStep, ResetStep)):
                name = event.step
                step = steps.setdefault(name.slug, {"slug": name.slug, "position": name.position} | _nothing())
                _count(step, event)
            if isinstance(event, (OpenStep, SessionEnd)) and event.left is not None:
                _visited(steps, event.left.slug, event.left.active_ms)
        snapshot = _snapshot(journal)
    visit = snapshot.presence if snapshot else None
    if visit is not None:
        _visited(steps, visit.slug, visit.active_ms)
    return {
        "course": course.root,
        "slug": course.slug,
        "state_dir": directory,
        "agent": agent,
        "session": {"started_at": snapshot.session.started_at} if snapshot and snapshot.session else None,
        "current_step": snapshot.visits[-1][1] if snapshot and snapshot.visits else None,
        "visit": _visit(visit) if visit else None,
        "events": dict(sorted(counts.items())),
        "last_event": {"number": last.number, "event": last.event.name, "at": last.event.at} if last else None,
        "coverage": _coverage(snapshot, is_running=pid is not None) if snapshot else None,
        "gaps": gaps,
        "gap_reasons": _reasons(gaps),
        "steps": list(steps.values()),
    }


def _visited(steps: dict[str, dict[str, Any]], slug: str, active_ms: int) -> None:
    step = steps.setdefault(slug, {"slug": slug, "position": None} | _nothing())
    step["visits"] += 1
    step["active_ms"] += active_ms


def _visit(visit: OpenVisit) -> dict[str, Any]:
    return {
        "step_slug": visit.slug,
        "started_at": visit.started_at,
        "last_act_at": visit.last_act_at,
        "active_ms": visit.active_ms,
    }


def _coverage(snapshot: Snapshot, *, is_running: bool) -> dict[str, Any]:
    """Per sensor; `share` is None before the first session.  Without an agent nothing was seen since it ended."""
    reports = Coverage(snapshot.coverage).report(int(time.time() * 1000) if is_running else None)
    return {
        one.sensor: {
            "session_ms": one.session_ms,
            "whole_ms": one.whole_ms,
            "share": one.whole_ms / one.session_ms if one.session_ms else None,
            "levels": [{"level": level, "ms": ms, "blind_to": blind_to} for level, ms, blind_to in one.levels],
            "losses": one.losses,
        }
        for one in reports
    }


def _reasons(gaps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The gaps by their reasons, numbers aside; a reason that occurred once stays as it was said."""
    found: dict[str, dict[str, Any]] = {}
    for gap in gaps:
        pattern = _NUMBER.sub("N", gap["reason"])
        one = found.setdefault(pattern, {"reason": gap["reason"], "count": 0, "total_ms": 0, "last_at": 0})
        if gap["reason"] != one["reason"]:
            one["reason"] = pattern
        one["count"] += 1
        one["total_ms"] += gap["ended_at"] - gap["started_at"]
        one["last_at"] = max(one["last_at"], gap["ended_at"])
    return sorted(found.values(), key=lambda one: one["total_ms"], reverse=True)


def _agent(journal: Journal, pid: int | None) -> dict[str, Any]:
    """What the agent said of itself.  Nothing (but `running` and `pid`) while it starts, or in a journal begun anew."""
    said = journal.fact("status")
    if not isinstance(said, dict) or (pid and said.get("pid") != pid):  # of a life before this one
        said = {}
    return said | {"running": pid is not None, "pid": pid}


def _nothing() -> dict[str, Any]:
    return {
        "opened_at": None,
        "completed_at": None,
        "compilations": 0,
        "tests": 0,
        "failures": 0,
        "visits": 0,
        "active_ms": 0,
    }


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
    if status.get("silent"):
        yield f"silent    nothing is recorded: {status['silent']}"
    for sensor in ("processes", "files"):
        if seen := agent.get(sensor):
            yield f"{sensor:<9} seen by {seen.get('level')}; can't see: {seen.get('blind_to') or 'nothing'}"
    if agent.get("skipped"):
        yield f"skipped   {_times(agent['skipped'])} a process was left out because looking at it failed"
    if agent.get("document"):
        yield f"document  not written: {agent['document']}"
    if agent.get("document_omitted"):
        size = f"{agent.get('document_size', 0) / (1 << 20):.1f} MB"
        yield f"document  without the texts of {agent['document_omitted']} runs, to keep it small ({size})"
    session = status["session"]
    yield f"session   {'open since ' + clock(session['started_at']) if session else 'none'}"
    if visit := status["visit"]:
        work = f"{duration(visit['active_ms'])} of work, the last at {clock(visit['last_act_at'])}"
        yield f"visit     {visit['step_slug']} since {clock(visit['started_at'])}, {work}"
    for number, line in enumerate(sink_lines(status.get("sinks") or (), int(time.time() * 1000))):
        yield f"{'' if number else 'sinks':<9} {line}"
    yield f"events    {', '.join(f'{count} {name}' for name, count in status['events'].items()) or 'none yet'}"
    yield from _coverage_lines(status["coverage"] or {}, agent)
    yield from _gap_lines(status["gaps"], status["gap_reasons"])
    yield from progress_lines(status["steps"], status["current_step"])


def percent(part: int, whole: int) -> str:
    """Rounded down, from 90 % on with one digit more: "100 %" is nothing less than all."""
    tenths = 1000 * part // whole
    return f"{tenths // 10} %" if tenths < 900 else f"{tenths / 10:g} %"


def _coverage_lines(coverage: Mapping[str, Any], agent: Mapping[str, Any]) -> Iterator[str]:
    """Of how much of the sessions each sensor saw all that it can see, and what levels that are gone could not."""
    if not any(one["session_ms"] for one in coverage.values()):
        yield "coverage  no session yet"
        return
    told: list[str] = []
    blind: list[str] = []
    for sensor, one in coverage.items():
        levels = [f"{each['level']} {percent(each['ms'], one['session_ms'])}" for each in one["levels"]]
        by = f" ({', '.join(levels) if len(levels) > 1 else one['levels'][0]['level']})" if levels else ""
        told.append(f"{sensor} {percent(one['whole_ms'], one['session_ms'])}{by}")
        now = (agent.get(sensor) or {}).get("level")
        blind += [
            f"          {sensor} by {each['level']} could not see: {each['blind_to']}"
            for each in one["levels"]
            if each["blind_to"] and each["level"] != now
        ]
    yield f"coverage  of the sessions' time: {', '.join(told)}"
    yield from blind


def _gap_lines(gaps: Sequence[Mapping[str, Any]], reasons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    newest = gaps[-_NEWEST_GAPS:]
    if len(gaps) > len(newest):
        total = sum(one["total_ms"] for one in reasons)
        yield f"gaps      {len(gaps)} in all, {duration(total)} together:"
        for one in reasons[:_REASONS]:
            yield f"          {_times(one['count'])}, {duration(one['total_ms'])} together: {one['reason']}"
        if others := reasons[_REASONS:]:
            count, rest = sum(one["count"] for one in others), sum(one["total_ms"] for one in others)
            yield f"          {_times(count)}, {duration(rest)} together: {len(others)} other reasons"
        yield f"          the newest {len(newest)} (`status --json` has all):"
    for gap in newest:
        yield f"gap       {clock(gap['started_at'])} to {clock(gap['ended_at'])}: {gap['reason']}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def progress_lines(steps: list[dict[str, Any]], current: str | None) -> Iterator[str]:
    """One line a step: where the student is and how it went."""
    yield "steps"
    for step in steps:
        mark = "done" if step["completed_at"] else "open" if step["opened_at"] else ""
        runs = f"{step['compilations']} runs, {step['tests']} tests, {step['failures']} failed" if mark else ""
        count = step["visits"]
        visits = f"; {count} visit{'s' * (count > 1)}, {duration(step['active_ms'])}" if count else ""
        here = "  <- here" if step["slug"] == current else ""
        position = "" if step["position"] is None else step["position"]
        yield f"  {position:>3}  {step['slug']:<36} {mark:<5} {runs}{visits}{here}".rstrip()
