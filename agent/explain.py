"""`explain`: one event in words that a teacher can read: what happened, what was seen, and what follows from it.

The words of what was seen are made where it is concluded (`Evidence`); here they are put in order.  Nothing is guessed:
whether a test completed its step is looked up in the journal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import assert_never

from .core.events import (
    AiInteraction,
    Compile,
    CompleteStep,
    Event,
    Evidence,
    Gap,
    OpenStep,
    Origin,
    Output,
    ResetStep,
    Run,
    SessionEnd,
    SessionStart,
    Test,
    Visit,
)
from .store.journal import Journal, Record

#: So many failed tests are named, and so much of a question is shown.
_NAMED, _QUOTED = 5, 200

_WHERE: Mapping[Origin, str] = {
    Origin.LEARNPACK: "in LearnPack",
    Origin.TERMINAL: "in a terminal",
    Origin.OTHER: "by way of another program",
}
_PRINTED: Mapping[Output, str] = {
    Output.FULL: "What it printed is recorded.",
    Output.PARTIAL: "What it printed is recorded in part, or as LearnPack tells it.",
    Output.NONE: "What it printed is not recorded.",
}


def clock(at: int) -> str:
    """A time in ms as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at / 1000)) + f".{at % 1000:03d}"


def duration(ms: int) -> str:
    """A length of time for people, never longer than it was: "410 ms", "1.3 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    seconds, minutes, hours = ms // 1000, ms // 60_000, ms // 3_600_000
    if ms < 1000:
        return f"{ms} ms"
    if seconds < 10:
        return f"{seconds}.{ms % 1000 // 100} s"
    if seconds < 120:
        return f"{seconds} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def found(journal: Journal, event: str) -> Record | None:
    """The record with this number or id, as `events` shows them; None where there is none."""
    prefix, _, number = event.rpartition("-")
    if prefix not in ("", journal.id) or not (number.isascii() and number.isdecimal() and len(number) < 19):
        return None
    record = journal.record(int(number))
    return record if record is not None and event in (record.id, str(record.number)) else None


def explanation(journal: Journal, record: Record) -> Iterator[str]:
    """The lines: the event, the chain of what was seen, oldest first, and what follows."""
    event = record.event
    yield f"{sentence(event)}"
    yield f"(event {record.number}, {record.id}, {clock(event.at)})"
    yield ""
    yield "What was seen:"
    yield from _chain(event.evidence)
    consequences = [*_completion(journal, record), *_consequences(event)]
    if consequences:
        yield ""
        yield "What follows:"
        yield from (f"  {line}" for line in consequences)


def _chain(evidence: tuple[Evidence, ...]) -> Iterator[str]:
    in_order = sorted(evidence, key=lambda one: one.at)
    for words, group in groupby(in_order, key=lambda one: one.words):
        first, *more = group  # a version manager is one process that executes seven programs
        numbers = f"s {first.observation} to {more[-1].observation}" if more else f" {first.observation}"
        after = first.at - in_order[0].at
        when = clock(first.at)[11:] if first is in_order[0] else f"+{after / 1000:.3f} s"
        yield f"  {when:>12}  {words} (observation{numbers})"


def sentence(event: Event) -> str:
    """What happened, in one sentence."""
    match event:
        case SessionStart():
            return "The student began to work."
        case SessionEnd():
            return "The student's session ended."
        case OpenStep():
            return f"The student opened {event.step.slug}."
        case Compile():
            return f"The student ran {event.step.slug} {_WHERE[event.run.origin]}: {_ending(event.run)}."
        case Test():
            what = "tested" if event.run.whole else "ran a test of"
            return f"The student {what} {event.step.slug} {_WHERE[event.run.origin]}: {_ending(event.run)}."
        case CompleteStep():
            return f"The student completed {event.step.slug}."
        case ResetStep():
            return f"The student set {event.step.slug} back to how it came with the course."
        case AiInteraction():
            return f"The student asked LearnPack's AI tutor about {event.step.slug}."
        case Gap():
            return f"For {duration(event.at - event.started_at)} something may have been missed: {event.reason}."
        case _:
            assert_never(event)


def _ending(run: Run) -> str:
    if run.signal is not None:
        how = f"it was stopped by signal {run.signal}"
    elif run.exit_code is None:
        how = "how it ended could not be seen"
    elif run.exit_code == 0:
        how = "it ended well, with exit code 0"
    else:
        how = f"it failed, with exit code {run.exit_code}"
    return how if run.ended_at is None else f"{how}, after {duration(max(0, run.ended_at - run.started_at))}"


def _consequences(event: Event) -> Iterator[str]:
    """What the event itself means."""
    match event:
        case Compile() | Test():
            yield from _of_run(event.run)
            if isinstance(event, Test):
                yield from _of_results(event.run)
                yield _of_tests_file(event.run.tests_modified)
            yield _PRINTED[event.run.output]
        case OpenStep() | SessionEnd():
            if event.left is not None:
                yield _of_visit(event.left)
        case CompleteStep():
            yield "The step counts as completed from then on; that is never taken back."
            if event.tests_modified is not None:
                yield _of_tests_file(event.tests_modified)
        case AiInteraction():
            question = " ".join(event.interaction.student_message.split())
            yield f"The question: {question if len(question) <= _QUOTED else question[:_QUOTED] + '...'}"
        case Gap():
            yield "What the student did in this time may be missing from the record; all the rest of it holds."
        case SessionStart() | ResetStep():
            pass
        case _:
            assert_never(event)


def _of_run(run: Run) -> Iterator[str]:
    if run.ended_at is None:
        yield "Its end was not seen, so its length is not known."
    if run.signal is not None:
        yield "It did not end by itself, so nothing was concluded about success."
    elif run.exit_code is None:
        yield "The exit code could not be seen, so nothing was concluded about success."


def _of_results(run: Run) -> Iterator[str]:
    failed = [one.name for one in run.results if one.status == "failed"]
    passed = sum(one.status == "passed" for one in run.results)
    if passed:
        yield f"{passed} of {len(run.results)} tests passed."
    if failed:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        yield f"Failed: {', '.join(failed[:_NAMED])}{more}."


def _of_tests_file(modified: bool | None) -> str:
    if modified is None:
        return "Whether the test file is the one that came with the course is not known."
    return f"The test file is {'not ' if modified else ''}the one that came with the course."


def _of_visit(left: Visit) -> str:
    stay = duration(max(0, left.ended_at - left.started_at))
    work = f"{duration(left.active_ms)} of work" if left.active_ms else "no work that was seen"
    return f"With that the student left {left.slug}: there since {clock(left.started_at)[:-4]}, {stay}, with {work}."


def _completion(journal: Journal, record: Record) -> Iterator[str]:
    """Whether a test completed its step: a completion is journaled right after the test that it follows from."""
    event = record.event
    if not isinstance(event, Test):
        return
    query = "SELECT min(number) FROM records WHERE step_slug=? AND event=?"
    completed = journal.connection.execute(query, (event.step.slug, CompleteStep.name)).fetchone()[0]
    if completed is not None and completed < record.number:
        yield "The step counted as completed already."
    elif completed == record.number + 1:
        yield "It was the step's whole test file and it passed, so the step counts as completed."
    elif not event.run.whole:
        yield "It was not the step's whole test file, so it does not complete the step, however it ended."
    else:
        yield "The step does not count as completed by this."
