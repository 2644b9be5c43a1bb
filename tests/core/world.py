"""A small world for core tests: one course, and observations written as short sentences."""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.course import ENTRIES, Course, step_from
from agent.core.events import (
    AiInteraction,
    Compile,
    CompleteStep,
    Event,
    Gap,
    OpenStep,
    ResetStep,
    SessionEnd,
    SessionStart,
    Test,
)
from agent.core.inference import Inference
from agent.core.observations import (
    ClockJumped,
    FileText,
    Observation,
    ProcessExecuted,
    ProcessExited,
    QueueEntry,
    QueueRead,
)

ROOT = "/c"
_STEPS = (
    ("exercises/00-welcome", ["README.md"]),
    ("exercises/01-hello", ["README.md", "app.py", "solution.hide.py", "test.py"]),
    ("exercises/02-js", ["README.md", "app.js", "tests.js"]),
    ("exercises/03-read", ["README.md"]),
    ("exercises/04-more", ["README.md", "app.py", "test.py"]),
    ("exercises/05-js-again", ["README.md", "app.js", "test.js"]),
    ("exercises/06-shell", ["README.md", "app.sh"]),
)
COURSE = Course(ROOT, "demo", tuple(step_from(path, names, n, ENTRIES) for n, (path, names) in enumerate(_STEPS)))
INCREMENTAL = Course(
    ROOT,
    "incremental",
    (
        step_from(".learn/exercises/01-a", ["README.md", "test.py"], 0, ENTRIES),
        step_from(".learn/exercises/02-b", ["README.md", "test.py"], 1, ENTRIES),
    ),
    grading="incremental",
)

SERVER = ("node", "/usr/lib/node_modules/learnpack/bin/learnpack", "start")
BOX = ("node", "/opt/lp/node_modules/compile-run/dist/lib/box")
EXEC_CHILD = ("/usr/bin/node", "/opt/lp/node_modules/shelljs/src/exec-child.js", "/tmp/shelljs_0123456789abcdef0123")


def executed(
    at: int,
    pid: int,
    command: str | Sequence[str],
    *,
    parent: int = 1,
    cwd: str | None = ROOT,
    texts: dict[str, str] | None = None,
    terminal: bool = True,
    found: bool = False,
    started_at: int | None = None,
    copy_of: tuple[str, ...] = (),
    stdin: str | None = None,
) -> ProcessExecuted:
    return ProcessExecuted(
        at=at,
        pid=pid,
        born=pid * 10,
        parent=parent,
        argv=tuple(command.split() if isinstance(command, str) else command),
        cwd=cwd,
        started_at=at if started_at is None else started_at,
        on_terminal=terminal,
        stdin=stdin,
        texts=tuple(FileText(path, text) for path, text in (texts or {}).items()),
        copy_of=copy_of,
        found=found,
    )


def exited(at: int, pid: int, code: int | None = 0, signal: int | None = None) -> ProcessExited:
    return ProcessExited(at, pid, pid * 10, None if signal else code, signal)


def queue(at: int, *entries: str) -> QueueRead:
    """`queue(5, "initializing", "start_exercise 01-hello")`."""
    words = [entry.split() for entry in entries]
    return QueueRead(at, tuple(QueueEntry(word[0], word[1] if len(word) > 1 else None) for word in words))


def told(event: Event) -> str:
    """An event in a few words: `compile 01-hello 1 @20-40 terminal`."""
    match event:
        case Compile() | Test():
            run = event.run
            result = f"sig{run.signal}" if run.signal else str(run.exit_code)
            return f"{event.name} {event.step.slug} {result} @{run.started_at}-{run.ended_at} {run.origin}"
        case OpenStep() | CompleteStep() | ResetStep() | AiInteraction():
            return f"{event.name} {event.step.slug} @{event.at}"
        case Gap():
            return f"gap {event.started_at}-{event.at}"
        case SessionStart() | SessionEnd():
            return f"{event.name} @{event.at}"


def conclude(
    observations: Sequence[Observation], *, until: int | None = None, inference: Inference | None = None
) -> list[str]:
    """What follows from these observations; deadlines in between and up to `until` are kept."""
    return [told(event) for event in events_of(observations, until=until, inference=inference)]


def events_of(
    observations: Sequence[Observation], *, until: int | None = None, inference: Inference | None = None
) -> list[Event]:
    inference = inference or Inference()
    events: list[Event] = []

    def deadlines(now: int) -> None:
        while (deadline := inference.next_deadline()) is not None and deadline <= now:
            events.extend(inference.handle_deadline(deadline))

    for seen in observations:
        if not isinstance(seen, ClockJumped):  # its time is one of the new clock
            deadlines(seen.at)
        events.extend(inference.receive(seen))
    if until is not None:
        deadlines(until)
    return events
