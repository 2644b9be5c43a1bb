"""What is concluded now: the events of one observation, and the evidence for each, under that observation's number."""

from __future__ import annotations

from .events import Event, Evidence, Gap


class Notes:
    """The page that every part of the inference writes on.

    `unsaved` is set when something changed that a restart must know; the owner of the inference clears it.
    """

    def __init__(self) -> None:
        self.number = 0
        self.unsaved = False
        self._events: list[Event] = []

    def evidence(self, at: int, words: str) -> Evidence:
        return Evidence(self.number, at, words)

    def conclude(self, event: Event) -> None:
        self._events.append(event)
        self.unsaved = True

    def gap(self, since: int, at: int, reason: str, words: str) -> None:
        """Something may have been missed between these times."""
        self.conclude(Gap(at, min(since, at), reason, (self.evidence(at, words),)))

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events
