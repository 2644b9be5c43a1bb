"""Which step the student was in, and when: what the inference knows of openings."""

from __future__ import annotations

from dataclasses import dataclass, field

from .events import Evidence

_REMEMBERED = 64


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
