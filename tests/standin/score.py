"""The agent's events against the truth: what was missed, what was invented, what is wrong.

A truth from LearnPack names the moment, and from when to when the action lasted: what the agent says lies in there.  A
truth from a terminal names a window in which the run happened.  Each event explains at most one truth, so a doubled
run is an invented one.  An `open_step` that nobody asked for is allowed only where work in that step explains it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Beyond this the agent's time is wrong, where nothing better than a moment is known.  (It stamps a file when it reads
#: it: 620 ms late on a saturated machine.)
TOLERANCE_MS = 1_500
#: Two clocks: file times are those of the kernel's last tick.
CLOCK_MS = 50

EventRow = Mapping[str, Any]


@dataclass(frozen=True)
class Truth:
    """What happened.  `kind` is the event's name, or "edit" for work that may open a step but is no event.

    `window` says that the run lies somewhere between the two times; `span` is from when to when the action lasted that
    it was part of, however slow the machine was; `start_known` false, that nothing but the end can be known to the
    moment; `may_end_at` is another moment that is its end as well.  None in `source`, `stdout`,
    `stderr`, `origin` means: not compared; of several sources any will do.  `optional`: it may be concluded or not.
    """

    kind: str
    slug: str
    started_at: int
    ended_at: int
    exit_code: int | None = None
    signal: int | None = None
    source: str | tuple[str, ...] | None = None
    stdout: str | None = None
    stderr: str | None = None
    origin: str | None = None
    optional: bool = False
    window: bool = False
    label: str = ""
    span: tuple[int, int] | None = None
    start_known: bool = True
    may_end_at: int | None = None

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Between which moments everything of it lies, None where that is not known."""
        if self.span is not None:
            # What a file of LearnPack's tells is dated by when it was read: on a busy machine later, never sooner.
            return self.span[0] - CLOCK_MS, self.span[1] + TOLERANCE_MS
        return (self.started_at - CLOCK_MS, self.ended_at + CLOCK_MS) if self.window else None

    def __str__(self) -> str:
        ending = f" exit={self.exit_code} signal={self.signal}" if self.kind in ("compile", "test") else ""
        what = f" [{self.label}]" if self.label else ""
        return f"{self.kind} {self.slug} {self.started_at}..{self.ended_at}{ending}{what}"


@dataclass
class Score:
    missed: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: What the agent says that it does not know, of a run that it saw.
    unknown: list[str] = field(default_factory=list)
    start_errors: list[int] = field(default_factory=list)
    end_errors: list[int] = field(default_factory=list)

    @property
    def is_perfect(self) -> bool:
        return not (self.missed or self.invented or self.wrong or self.unknown)

    def __str__(self) -> str:
        parts = {"missed": self.missed, "invented": self.invented, "wrong": self.wrong, "unknown": self.unknown}
        lines = [f"{title}:\n    " + "\n    ".join(rows) for title, rows in parts.items() if rows]
        worst = f"start errors up to {max(self.start_errors, default=0)} ms, end {max(self.end_errors, default=0)} ms"
        return "\n".join([*lines, worst])


def shown(event: EventRow, evidence: bool = True) -> str:
    parts = [f"#{event.get('number')} {event['event']} {event.get('step_slug')} at={event['at']}"]
    names = ("started_at", "ended_at", "exit_code", "signal", "origin", "command")
    parts += [f"{name}={event[name]}" for name in names if name in event]
    words = [one.get("words", "") if isinstance(one, dict) else str(one) for one in event.get("evidence") or []]
    return " ".join(parts) + (f" because {words}" if evidence else "")


def _start(event: EventRow) -> int:
    started = event.get("started_at")
    return int(event["at"] if started is None else started)


def _end(event: EventRow) -> int:
    ended = event.get("ended_at")
    return int(event["at"] if ended is None else ended)


def _distance(event: EventRow, truth: Truth, tolerance: int) -> int | None:
    """How far the event is from the truth, or None when it can't be it."""
    if event["event"] != truth.kind or event.get("step_slug") != truth.slug:
        return None
    start = _start(event)
    # A window holds one typed line, a span one action; the terminal waits between two lines, and LearnPack is asked
    # for one thing after the other: a small margin is enough.
    first, last = truth.bounds or (truth.started_at - tolerance, truth.ended_at + tolerance)
    if not truth.start_known:
        return abs(_end(event) - truth.ended_at) if first <= start <= last else None
    distance = abs(start - truth.started_at)
    is_near = first <= start <= last if truth.bounds else distance <= tolerance
    return distance if is_near else None


def _pair(events: Sequence[EventRow], truths: Sequence[Truth], tolerance: int) -> dict[int, int]:
    """Truth index → event index, nearest pairs first."""
    near = sorted(
        (distance, truth_at, event_at)
        for truth_at, truth in enumerate(truths)
        for event_at, event in enumerate(events)
        if (distance := _distance(event, truth, tolerance)) is not None
    )
    pairs: dict[int, int] = {}
    used: set[int] = set()
    for _, truth_at, event_at in near:
        if truth_at not in pairs and event_at not in used:
            pairs[truth_at] = event_at
            used.add(event_at)
    return pairs


def _compare_run(score: Score, truth: Truth, event: EventRow, tolerance: int) -> None:
    def expect(name: str, wanted: object) -> None:
        if event.get(name) is None and wanted is not None:
            score.unknown.append(f"{name} should be {wanted!r}: {truth} -- {shown(event)}")
        elif event.get(name) != wanted:
            score.wrong.append(f"{name} is {event.get(name)!r}, not {wanted!r}: {truth} -- {shown(event)}")

    expect("exit_code", truth.exit_code)
    expect("signal", truth.signal)
    if truth.origin is not None:
        expect("origin", truth.origin)
    if truth.source is not None:
        sources = truth.source if isinstance(truth.source, tuple) else (truth.source,)
        expect("source_code", event.get("source_code") if event.get("source_code") in sources else sources[0])
    if event.get("output") == "full":
        for name, text in (("stdout", truth.stdout), ("stderr", truth.stderr)):
            if text is not None:
                expect(name, text)
    end = event.get("ended_at")
    if end is None:
        score.wrong.append(f"no end: {truth} -- {shown(event)}")
        return
    ends = (truth.ended_at, truth.ended_at if truth.may_end_at is None else truth.may_end_at)
    off = min(abs(end - one) for one in ends)
    if truth.bounds and not truth.bounds[0] <= end <= truth.bounds[1]:
        score.wrong.append(f"ends outside the window: {truth} -- {shown(event)}")
    elif off > tolerance and (truth.bounds is None or (not truth.start_known and end < min(ends))):
        score.wrong.append(f"ends {end - truth.ended_at} ms off: {truth} -- {shown(event)}")
    if not truth.window:
        score.end_errors.append(off)
        if truth.start_known:
            score.start_errors.append(abs(_start(event) - truth.started_at))


def _is_explained(event: EventRow, truths: Iterable[Truth], tolerance: int) -> bool:
    """Whether work in the step explains that it was opened."""
    return any(
        truth.kind in ("compile", "test", "edit", "reset_step")
        and truth.slug == event.get("step_slug")
        and (truth.bounds or (truth.started_at,))[0] - tolerance <= event["at"]
        and event["at"] <= (truth.bounds or (truth.ended_at,))[-1] + tolerance
        for truth in truths
    )


def score(
    events: Sequence[EventRow],
    truths: Sequence[Truth],
    completed: Mapping[str, int | None] | None = None,
    tolerance: int = TOLERANCE_MS,
) -> Score:
    """Compares; `completed` is slug → the moment of completion (None: any), None as a whole: not compared."""
    result = Score()
    for kind in ("compile", "test", "open_step", "reset_step"):
        of_kind = [event for event in events if event["event"] == kind]
        wanted = [truth for truth in truths if truth.kind == kind]
        pairs = _pair(of_kind, wanted, tolerance)
        for at, truth in enumerate(wanted):
            if at in pairs:
                if kind in ("compile", "test") and not truth.optional:
                    _compare_run(result, truth, of_kind[pairs[at]], tolerance)
            elif not truth.optional:
                result.missed.append(str(truth))
        for at, event in enumerate(of_kind):
            if at not in pairs.values() and not (kind == "open_step" and _is_explained(event, truths, tolerance)):
                result.invented.append(shown(event))
    if completed is not None:
        _compare_completions(result, events, truths, completed, tolerance)
    _compare_form(result, events)
    return result


def _compare_completions(
    result: Score,
    events: Sequence[EventRow],
    truths: Sequence[Truth],
    completed: Mapping[str, int | None],
    tolerance: int,
) -> None:
    bounds = {at: truth.bounds for truth in truths if truth.span for at in (truth.started_at, truth.ended_at)}
    done: dict[str, EventRow] = {}
    for event in events:
        if event["event"] != "complete_step":
            continue
        if event["step_slug"] in done or event["step_slug"] not in completed:
            result.invented.append(shown(event))
        done.setdefault(event["step_slug"], event)
    for slug, at in completed.items():
        if slug not in done:
            result.missed.append(f"complete_step {slug} at {at}")
        elif at is not None and not _is_at(done[slug]["at"], at, bounds.get(at), tolerance):
            result.wrong.append(f"completed {done[slug]['at'] - at} ms off: {shown(done[slug])}")


def _is_at(found: int, at: int, bounds: tuple[int, int] | None, tolerance: int) -> bool:
    """Whether it is that moment, or, where the moment is one of an action, one of the same action."""
    return abs(found - at) <= tolerance if bounds is None else bounds[0] <= found <= bounds[1]


def _compare_form(result: Score, events: Sequence[EventRow]) -> None:
    numbers = [event["number"] for event in events]
    if numbers != sorted(set(numbers)):
        result.wrong.append(f"numbers do not ascend: {numbers}")
    if len({event["id"] for event in events}) != len(events):
        result.wrong.append("two events have the same id")
    for event in events:
        if not event.get("evidence"):
            result.wrong.append(f"no evidence: {shown(event)}")
        for name in ("at", "started_at", "ended_at"):
            if event.get(name) is not None and not isinstance(event[name], int):
                result.wrong.append(f"{name} is no integer: {shown(event)}")


def assert_perfect(
    events: Sequence[EventRow],
    truths: Sequence[Truth],
    completed: Mapping[str, int | None] | None = None,
    tolerance: int = TOLERANCE_MS,
    may_miss: float = 0.0,
) -> Score:
    """Fails with the difference in words.

    `may_miss` is the share of the compiles that may be missing.  Where some may, the agent may also say of others that
    it does not know how they ended or what ran; what it says has to be right all the same.
    """
    result = score(events, truths, completed, tolerance)
    compiles = [line for line in result.missed if line.startswith("compile ")]
    if may_miss and len(compiles) <= may_miss * sum(truth.kind == "compile" for truth in truths):
        result.missed = [line for line in result.missed if line not in compiles]
        result.unknown = [line for line in result.unknown if ": compile " not in line]
    rows = "\n    ".join(shown(event, evidence=False) for event in events)
    assert result.is_perfect, f"\n{result}\nall events:\n    {rows}"
    return result
