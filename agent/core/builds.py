"""Builds without a process: what LearnPack's HTML and React engines leave behind, and what it says of them.

LearnPack builds HTML with prettier and React with webpack inside its server.  Both write `.learn/dist`; the last trace
of a build that went well is an `open_window` with the preview's URL in the queue (plugins html 1.1.7, react 1.1.15).
An HTML build copies each file that it could parse, within 5 ms, and opens no window when one could not be: so copies
without a window are a failed build.  A React build with a syntax error leaves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .course import Step
from .events import Evidence

#: The window is opened within 5 ms of the last copy (measured); a loaded machine needs more.
NO_WINDOW_MS = 1_000
#: webpack writes its files one after the other, and a window belongs to writes of this age at most.
SAME_BUILD_MS = 5_000

_COPIED = (".html", ".css")


@dataclass(frozen=True, slots=True)
class Build:
    """One build that is over.  `exit_code` as LearnPack gives it: 0, or 1 where it failed."""

    slug: str
    started_at: int
    ended_at: int
    exit_code: int
    source: str | None
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class _Writing:
    """Files of the preview that were written and not accounted for yet."""

    slug: str
    started_at: int
    last_at: int
    can_fail: bool
    source: str | None
    evidence: Evidence


class Builds:
    """What was written to the preview, until a window is opened or none is."""

    def __init__(self) -> None:
        self._writing: _Writing | None = None

    def written(self, step: Step, name: str, at: int, source: str | None, evidence: Evidence) -> None:
        """A file of this name was written to the preview while this step was open; `source` is its entry file."""
        before = self._writing
        if before is not None and before.slug == step.slug and at - before.last_at <= SAME_BUILD_MS:
            self._writing = replace(before, last_at=at)
            return
        can_fail = step.language == "html" and name.endswith(_COPIED)
        if step.language == "react" or can_fail:
            self._writing = _Writing(step.slug, at, at, can_fail, source, evidence)

    def window_opened(self, slug: str, at: int, failed: bool, source: str | None, evidence: Evidence) -> Build:
        """The preview's window was opened: a build of this step ended."""
        before, self._writing = self._writing, None
        if before is None or before.slug != slug or at - before.last_at > SAME_BUILD_MS:
            return Build(slug, at, at, int(failed), source, (evidence,))
        return Build(slug, before.started_at, at, int(failed), source or before.source, (before.evidence, evidence))

    def next_deadline(self) -> int | None:
        waits = self._writing is not None and self._writing.can_fail
        return self._writing.last_at + NO_WINDOW_MS if self._writing is not None and waits else None

    def handle_deadline(self, now: int) -> Build | None:
        """The build that failed, if it is time to say so."""
        due, before = self.next_deadline(), self._writing
        if before is None or due is None or now < due:
            return None
        self._writing = None
        words = "no preview window was opened: a file of the step could not be parsed"
        end = Evidence(before.evidence.observation, before.last_at, words)
        return Build(before.slug, before.started_at, before.last_at, 1, before.source, (before.evidence, end))

    def shift(self, by_ms: int) -> None:
        """The clock was set."""
        if self._writing is not None:
            one = self._writing
            self._writing = replace(one, started_at=one.started_at + by_ms, last_at=one.last_at + by_ms)
