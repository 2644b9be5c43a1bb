"""Which step the student was in, when, and how long there was work in it.

`Visits` is what the inference knows of openings; `Presence` measures.  A visit begins with the opening of a step, or
with the first work in it after a session began anew.  It ends with the opening of another step or with the session:
`ended_at` is when it was left, however long nothing had been done before, because that was seen.  How long there was
work is `active_ms`: the time between two acts (an opening, a save, the start or the end of a run) counts where it is no
longer than the idle gap, and counts nothing where it is longer.  So a suspended machine, an agent that did not run and
a night are long gaps and nothing more, and reading for longer than the idle gap is not seen as work.

Known to be weak: what was done in a step that had been left already (a run that was overtaken by an opening, a run that
is told only at its end) shows that the student was there, and counts for the visit that goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .events import Evidence, Visit

_REMEMBERED = 64
#: So many stretches of work are kept apart: a late act may lie between two of the last 64, 5 hours at the least.
_STRETCHES = 64


@dataclass(frozen=True, slots=True)
class Hint:
    """A step opening that waits for something better, or for the time to be believed."""

    slug: str
    at: int
    deadline: int
    evidence: Evidence
    is_edit: bool = False


@dataclass(slots=True)
class Visits:
    """Which step was current when; (time of opening, slug), oldest first."""

    entries: list[tuple[int, str]] = field(default_factory=list)

    def at(self, time: int) -> str | None:
        return next((slug for opened, slug in reversed(self.entries) if opened <= time), None)

    def current(self) -> str | None:
        return self.entries[-1][1] if self.entries else None

    def since(self, time: int) -> list[tuple[int, str]]:
        """The visit that was current at this time, and all later ones."""
        first = max((n for n, (opened, _) in enumerate(self.entries) if opened <= time), default=0)
        return self.entries[first:]

    def next_after(self, time: int) -> str | None:
        return next((slug for opened, slug in self.entries if opened > time), None)

    def add(self, time: int, slug: str) -> bool:
        """Returns whether this is the newest opening, so that the step is current now."""
        newest = not self.entries or time >= self.entries[-1][0]
        self.entries.append((time, slug))
        self.entries.sort(key=lambda entry: entry[0])
        del self.entries[:-_REMEMBERED]
        return newest


@dataclass(frozen=True, slots=True)
class OpenVisit:
    """A visit that goes on.

    `stretches` are the times (from, to) of work in it, oldest first, with more than the idle gap between two of them;
    one act alone is as long as nothing.  `earlier_ms` is the length of those that are not kept any more.
    """

    slug: str
    started_at: int
    stretches: tuple[tuple[int, int], ...]
    earlier_ms: int = 0

    @property
    def active_ms(self) -> int:
        return self.earlier_ms + sum(until - since for since, until in self.stretches)

    @property
    def last_act_at(self) -> int:
        return self.stretches[-1][1]


class Presence:
    """The visit that goes on, fed with the student's acts.  Times never go backwards, whatever order acts come in.

    `visit` is all that a restart needs besides the end of the last session (`since`): a visit goes on across it.
    """

    def __init__(self, idle_ms: int, visit: OpenVisit | None = None, since: int | None = None) -> None:
        self._idle_ms = idle_ms
        self._since = since
        self.visit = visit

    def opened(self, slug: str, at: int) -> Visit | None:
        """A step was opened.  Returns the visit to another step that this ends.

        Opening the step again that is open already is an act in it.  An opening that is told late (a run in a terminal,
        at its end) cuts the visit that goes on where it was; one that is older than that visit changes nothing,
        because the visits of that time are told.
        """
        visit = self.visit
        if visit is None or visit.slug == slug or at < visit.started_at:
            self.active(slug, at)
            return None
        visit = self._with_act(visit, at)
        self.visit = OpenVisit(slug, at, _clipped(visit, since=at))
        return _ended(visit, at)

    def active(self, slug: str, at: int) -> None:
        """Something was done in this step, or for it.  Begins a visit to it where none is open.

        What is older than the visit that goes on, or than the end of the last session, is too late to count.
        """
        if self.visit is None:
            if self._since is not None and at <= self._since:
                return
            self.visit = OpenVisit(slug, at, ((at, at),))
        elif at >= self.visit.started_at:
            self.visit = self._with_act(self.visit, at)

    def session_ended(self, at: int) -> Visit | None:
        """The session is over at this time, which may have passed long ago.  Returns the visit that ends with it."""
        visit, self.visit = self.visit, None
        if visit is None:
            self._since = at
            return None
        self._since = max(at, visit.started_at)
        return _ended(self._with_act(visit, self._since), self._since)

    def shift(self, by_ms: int) -> None:
        """The clock was set: what is remembered moves with it."""
        if self._since is not None:
            self._since += by_ms
        if self.visit is not None:
            stretches = tuple((since + by_ms, until + by_ms) for since, until in self.visit.stretches)
            self.visit = replace(self.visit, started_at=self.visit.started_at + by_ms, stretches=stretches)

    def _with_act(self, visit: OpenVisit, at: int) -> OpenVisit:
        """The act joins the stretches that are no further from it than the idle gap, or is one of its own."""
        if at < visit.stretches[0][0]:
            return visit  # among those that are not kept any more
        near = [(at, at)]
        far: list[tuple[int, int]] = []
        for stretch in visit.stretches:
            is_near = stretch[0] - self._idle_ms <= at <= stretch[1] + self._idle_ms
            (near if is_near else far).append(stretch)
        stretches = sorted([*far, (min(since for since, _ in near), max(until for _, until in near))])
        dropped = stretches[:-_STRETCHES]
        earlier_ms = visit.earlier_ms + sum(until - since for since, until in dropped)
        return replace(visit, stretches=tuple(stretches[-_STRETCHES:]), earlier_ms=earlier_ms)


def _clipped(visit: OpenVisit, *, since: int | None = None, until: int | None = None) -> tuple[tuple[int, int], ...]:
    """The visit's stretches after or before a time; one that holds it is cut there."""
    clipped = (
        (first if since is None else max(first, since), last if until is None else min(last, until))
        for first, last in visit.stretches
    )
    return tuple((first, last) for first, last in clipped if first <= last)


def _ended(visit: OpenVisit, at: int) -> Visit:
    active_ms = replace(visit, stretches=_clipped(visit, until=at)).active_ms
    return Visit(visit.slug, visit.started_at, at, active_ms)
