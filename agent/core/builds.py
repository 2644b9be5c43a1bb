"""Builds without a process: what LearnPack's HTML, vanillajs and React engines leave behind, and what it says of them.

LearnPack builds HTML with prettier, the others with webpack, inside its server (plugins html 1.1.7, dom 1.1.7, react
1.1.15).  All write `.learn/dist`, and the last trace of a build is an `open_window` with the preview's URL in the queue.

- HTML: each file that could be parsed is copied, within 80 ms; the window is opened only if all were.  So copies without
  a window are a failed build; where the only page can't be parsed, nothing is left.
- webpack: 0.2 to 12 s, overlapping everything else.  Only what differs is written, 20 to 160 ms before the window, which
  is opened also where modules are missing or broken (then the bundle throws: `sensors/preview.py`).  A page or a React
  source that can't be parsed at all leaves nothing that tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .course import Step
from .events import Evidence

#: The window is opened within 5 ms of the last copy (measured); a loaded machine needs more.
NO_WINDOW_MS = 1_000
#: A window belongs to writes of this age at most.
SAME_BUILD_MS = 3_000

#: The languages that webpack builds.
BUNDLED = frozenset(("react", "vanillajs"))

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
        if step.language in BUNDLED or can_fail:
            self._writing = _Writing(step.slug, at, at, can_fail, source, evidence)

    def window_opened(self, slug: str, at: int, failed: bool, source: str | None, evidence: Evidence) -> Build:
        """The preview's window was opened: a build of this step ended."""
        before, self._writing = self._writing, None
        if before is None or before.slug != slug or at - before.last_at > SAME_BUILD_MS:
            return Build(slug, at, at, int(failed), source, (evidence,))
        # webpack's last file is the end for LearnPack too (11 ms off at most); what it writes about it comes after that.
        ended_at = at if before.can_fail else before.last_at
        evidence_of_both = (before.evidence, evidence)
        return Build(slug, before.started_at, ended_at, int(failed), source or before.source, evidence_of_both)

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
