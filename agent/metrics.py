"""What node_exporter's textfile collector reads: the text of Prometheus (exposition format 0.0.4), and its file.

A course is named by its key, never by its path, and a user by number.  `prometheus_client` could write this too, for
95 ms and 12 MB at each start (measured); its parser reads what is written here in the tests.

Nothing here looks anywhere: what is shown is what `overview` found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from . import __version__
from .overview import CourseState, Sight

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Metric:
    """`value` is None where there is nothing to tell of a course, `more` are labels besides course and user."""

    name: str
    kind: str
    words: str
    value: Callable[[CourseState], float | None]
    more: Callable[[CourseState], Labels] = lambda state: {}


def _level(sight: Sight | None) -> Labels:
    return {"level": sight.level if sight else "none"}


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


#: Add a metric: a line here.
_METRICS = (
    _Metric("up", "gauge", "Whether an agent runs for the course.", lambda one: one.is_running),
    _Metric("start_time_seconds", "gauge", "When the running agent was started.", lambda one: _seconds(one.started_at)),
    _Metric(
        "process_sensor_level",
        "gauge",
        "How the running agent sees processes, in the label: connector, pidfd, polling or none.",
        lambda one: 1 if one.is_running else None,
        lambda one: _level(one.processes),
    ),
    _Metric(
        "file_sensor_level",
        "gauge",
        "How the running agent sees files, in the label: inotify, observer, polling or none.",
        lambda one: 1 if one.is_running else None,
        lambda one: _level(one.files),
    ),
    _Metric(
        "last_event_timestamp_seconds",
        "gauge",
        "The time of the newest event.",
        lambda one: _seconds(one.last_event_at),
    ),
    _Metric("events_total", "counter", "Events that were recorded.", lambda one: one.events),
    _Metric("gaps_total", "counter", "Times in which something may have been missed.", lambda one: one.gaps),
    _Metric("lost_total", "counter", "How often a sensor of the running agent lost something.", lambda one: one.lost),
    _Metric("waiting_records", "gauge", "Records that wait to be sent, of all sinks.", lambda one: one.waiting),
    _Metric("parked_records", "gauge", "Records that servers rejected.", lambda one: one.parked),
    _Metric("failing_sinks", "gauge", "Sinks that take nothing now.", lambda one: one.failing),
    _Metric("journal_bytes", "gauge", "The journal's size on the disk.", lambda one: one.journal_bytes),
    _Metric(
        "journal_trouble",
        "gauge",
        "Whether the records can't be read, or telemetry.json can't be written.",
        lambda one: one.trouble is not None,
    ),
    _Metric("silent", "gauge", "Whether nothing is to be recorded: a pause, no consent.", lambda one: bool(one.silent)),
    _Metric(
        "agent_info",
        "gauge",
        "The version of the agent that ran last.",
        lambda one: None if one.version is None else 1,
        lambda one: {"version": one.version or ""},
    ),
)


def rendered(states: Iterable[CourseState]) -> str:
    """The text for these courses, in their order.  Of two states with one course and user the first counts: Prometheus
    refuses a whole file for a line that is there twice."""
    unique = list({(one.key, one.uid): one for one in reversed(list(states))}.values())[::-1]
    lines = [
        *_head("build_info", "gauge", "This program."),
        _line("build_info", {"version": __version__}, 1),
        *_head("courses", "gauge", "Courses of which something is recorded."),
        _line("courses", {}, len(unique)),
    ]
    for metric in _METRICS:
        lines += _lines(metric, unique)
    return "\n".join(lines) + "\n"


def _lines(metric: _Metric, states: Iterable[CourseState]) -> Iterator[str]:
    found = [(one, value) for one in states if (value := metric.value(one)) is not None]
    if found:
        yield from _head(metric.name, metric.kind, metric.words)
    for one, value in found:
        yield _line(metric.name, {"course": one.key, "uid": str(one.uid), **metric.more(one)}, value)


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP learnpack_agent_{name} {words}"
    yield f"# TYPE learnpack_agent_{name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    number = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(int(value))
    return f"learnpack_agent_{name}{'{' + inside + '}' if inside else ''} {number}"


def _escaped(text: str) -> str:
    """A label's value.  What is no Unicode (a half of a letter) becomes a question mark."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return text.encode("utf-8", "replace").decode()


def write_metrics(path: str, text: str) -> None:
    """Puts the text there in one moment, readable for node_exporter, which is another user.  Raises OSError.

    The temporary file beside it does not end in .prom, so the collector does not read it; a symbolic link in the file's
    place is replaced, never followed.
    """
    directory, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, 0o644)  # whatever the umask
            stream.write(text)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
