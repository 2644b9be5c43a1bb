"""When the student was at work: as long as a LearnPack server lives, else until half an hour of silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .events import SessionEnd, SessionStart
from .notes import Notes
from .processes import Key, Process
from .visits import Presence

#: Without a LearnPack server, work after a longer silence is another session, where nobody configured another.
SILENCE_MS = 30 * 60_000


@dataclass(frozen=True, slots=True)
class Session:
    """An open session; `server` is the LearnPack server that keeps it open, None for work without one."""

    started_at: int
    last_activity: int
    server: Key | None = None


class Sessions:
    """`servers` gives the LearnPack servers that live; `presence` ends its visit with the session."""

    def __init__(self, notes: Notes, presence: Presence, silence_ms: int, servers: Callable[[], list[Process]]) -> None:
        self._notes = notes
        self._presence = presence
        self._silence_ms = silence_ms
        self._servers = servers
        self.open: Session | None = None
        self.ended_at: int | None = None

    def active(self, at: int, words: str, slug: str | None = None) -> None:
        """The student did something at this time, in this step: a session is open."""
        if self.open is None and self.ended_at is not None and at <= self.ended_at:
            pass  # told late: the session that it belongs to is over
        elif self.open is None:
            self.open = Session(at, at)
            self._notes.conclude(SessionStart(at, (self._notes.evidence(at, f"first work: {words}"),)))
        elif at > self.open.last_activity:
            self.open = replace(self.open, last_activity=at)
        if slug is not None:
            self._presence.active(slug, at)
        self._notes.unsaved = True

    def server_up(self, server: Process) -> None:
        # A server may outlive a session (its agent was stopped, or it was another server's): the next one begins then.
        at = max(server.started_at, self.ended_at or 0)
        if self.open is None:
            self.open = Session(at, at, server.key)
            self._notes.conclude(SessionStart(at, tuple(server.evidence)))
        elif self.open.server is None:
            self.open = replace(self.open, server=server.key)
        self._notes.unsaved = True

    def server_down(self, server: Process, at: int) -> None:
        if self.open is None or self.open.server != server.key:
            return
        others = self._servers()
        words = server.evidence[-1].words
        if others and server.exit_seen:
            self.open = replace(self.open, server=others[0].key)
        elif server.exit_seen:
            self.end(at, words)
        else:
            # Its end was not seen: the last work is what is known.  (Another server by now is another session.)
            self.end(self.open.last_activity, words)
            if others:
                self.server_up(others[0])

    def agent_ended(self, at: int) -> None:
        """Nobody watches any more: with a server the session lasts until now, else until the last work."""
        if self.open is not None:
            self.end(at if self.open.server is not None else self.open.last_activity, "the agent was stopped")

    def end(self, at: int, words: str) -> None:
        if self.open is None:
            return
        self.ended_at = max(at, self.open.started_at)
        self.open = None
        left = self._presence.session_ended(at)  # the clock may have been set back since the session began
        self._notes.conclude(SessionEnd(self.ended_at, (self._notes.evidence(at, words),), left))
        self.ended_at = at  # of the clock as it is now: the next session does not begin in the future

    def next_deadline(self) -> int | None:
        waits = self.open is not None and self.open.server is None
        return self.open.last_activity + self._silence_ms if self.open is not None and waits else None

    def handle_deadline(self, now: int) -> None:
        due = self.next_deadline()
        if self.open is not None and due is not None and now >= due:
            minutes = self._silence_ms // 60_000
            self.end(self.open.last_activity, f"no work for {minutes} minutes, and no LearnPack server")

    def shift(self, by_ms: int) -> None:
        """The clock was set.  When the session began is told already."""
        if self.ended_at is not None:
            self.ended_at += by_ms
        if self.open is not None:
            self.open = replace(self.open, last_activity=self.open.last_activity + by_ms)
