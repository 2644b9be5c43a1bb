"""Builds without a process: what LearnPack's HTML, vanillajs and React engines leave behind, and what it says of them.

LearnPack builds HTML with prettier, the others with webpack, inside its server (plugins html 1.1.7, dom 1.1.7, react
1.1.15).  All write `.learn/dist`; the last trace of a build is an `open_window` with the preview's URL in the queue.

- HTML: each file that could be parsed is copied, within 80 ms; the window is opened only if all were.  So copies
  without a window are a failed build; where the only page can't be parsed, nothing is left.
- webpack: 0.2 to 12 s, overlapping everything else.  Only what differs is written, 20 to 160 ms before the window,
  which is opened also where modules are missing or broken (then the bundle throws: `sensors/preview.py`).  Scripts
  without a window are a build whose page could not be parsed; a React source that can't be parsed leaves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .course import Step
from .events import Evidence
from .observations import Preview

#: An HTML build copies all its files in one go and opens the window within 5 ms of the last (measured); a loaded
#: machine needs more.  What comes later than this is another build's.
NO_WINDOW_MS = 1_000
#: webpack's window belongs to writes of this age at most, and its page to scripts of this age.
BUNDLE_MS = 5_000
_PAGE_MS = 300

#: The languages that webpack builds.
BUNDLED = frozenset(("react", "vanillajs"))

_SCRIPTS = (".js", ".map")


@dataclass(frozen=True, slots=True)
class Build:
    """One build that is over.  `exit_code` as LearnPack gives it: 0, or 1 where it failed; None where not known."""

    slug: str
    started_at: int
    ended_at: int
    exit_code: int | None
    source: str | None
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class _Writing:
    """Files of the preview that one build wrote, and that no window followed yet.  `failed` is None where no bundle
    was read."""

    slug: str
    is_sure: bool
    started_at: int
    last_at: int
    names: frozenset[str]
    failed: bool | None
    source: str | None
    evidence: Evidence

    def may_go_on_with(self, other: _Writing, within_ms: int) -> bool:
        is_one_step = self.slug == other.slug or not (self.is_sure and other.is_sure)
        return is_one_step and other.last_at - self.last_at <= within_ms

    def with_one(self, name: str, other: _Writing) -> _Writing:
        """And this file; it may tell for sure which step it is."""
        failed = self.failed if other.failed is None else other.failed  # the bundle as it was read last
        whole = replace(self, last_at=other.last_at, names=self.names | {name}, failed=failed)
        if self.is_sure or not other.is_sure:
            return whole
        return replace(whole, slug=other.slug, is_sure=True, source=other.source)

    def over(self, ended_at: int, exit_code: int | None, last: Evidence, built: Preview | None = None) -> Build:
        """`built` is what lies in the preview at the end: its source is newer, if it is of this step."""
        slug = self.slug
        if built is not None and built.slug and built.is_sure and not self.is_sure:
            slug = built.slug
        source = _text(built) if built is not None and built.slug == slug else None
        return Build(slug, self.started_at, ended_at, exit_code, source or self.source, (self.evidence, last))

    def without_window(self, why: str, exit_code: int | None) -> Build:
        words = f"no preview window was opened: {why}"
        return self.over(self.last_at, exit_code, Evidence(self.evidence.observation, self.last_at, words))


class Builds:
    """What was written to the preview, until a window is opened or none is.  Each method returns the builds that are
    over by then."""

    def __init__(self) -> None:
        #: Since when (ms) somebody looks.
        self.since = 0
        self._ended_at = 0
        self._copies: _Writing | None = None  # by prettier
        self._bundles: list[_Writing] = []  # by webpack, oldest first

    def written(self, step: Step | None, name: str, at: int, built: Preview, evidence: Evidence) -> list[Build]:
        """A file of this name was written to the preview; `built` is what it was made of, `step` the step of that."""
        slug, names = built.slug or "", frozenset((name,))
        failed = built.failed if name.endswith(_SCRIPTS) else None
        new = _Writing(slug, built.is_sure, at, at, names, failed, _text(built), evidence)
        newest = self._bundles[-1] if self._bundles else None
        language = step.language if step is not None else None
        within_ms = BUNDLE_MS if name.endswith(_SCRIPTS) else _PAGE_MS
        if newest is not None and name not in newest.names and newest.may_go_on_with(new, within_ms):
            self._bundles[-1] = newest.with_one(name, new)
        elif name.endswith(_SCRIPTS) or language in BUNDLED:
            self._bundles.append(new)
        elif language == "html":
            before = self._copies
            if before is not None and new.slug == before.slug and name not in before.names:
                self._copies = before.with_one(name, new)
            else:  # prettier writes each file once
                failures = self._no_window()
                self._copies = new
                return failures
        return []

    def step_opened(self) -> list[Build]:
        """LearnPack opened a step: nothing comes between prettier's copies and their window, so none will come."""
        return self._no_window()

    def server_ended(self, at: int) -> None:
        """Of what it wrote last, no window may come; one that was opened may still be told."""
        self._ended_at = at

    def _no_window(self) -> list[Build]:
        copies, self._copies = self._copies, None
        return self._failed([copies] if copies is not None else [])

    def _failed(self, written: list[_Writing]) -> list[Build]:
        """What no window followed.  Nothing is said of the first second: its windows may have been opened before
        somebody looked, or told before the files."""
        sure = (one for one in written if one.started_at >= self.since + NO_WINDOW_MS)
        return [
            one.without_window("LearnPack ended", None)
            if one.last_at <= self._ended_at
            else one.without_window("a file of the step could not be parsed", 1)
            for one in sure
        ]

    def window_opened(self, at: int, built: Preview, evidence: Evidence) -> list[Build]:
        """The preview's window was opened: a build ended.  `built` is what lies there now."""
        over = self._overdue(at)
        copies, bundle = self._copies, self._bundles[0] if self._bundles else None
        if copies is not None and (bundle is None or copies.last_at > self._bundles[-1].last_at):
            self._copies = None
            over.append(copies.over(at, 0, evidence, built))
        elif bundle is not None:
            # webpack's last file is the end for LearnPack too (11 ms off at most); what it says of it comes after that.
            del self._bundles[0]
            is_same = not self._bundles and (built.slug == bundle.slug or not bundle.is_sure)
            failed = bundle.failed is True or (is_same and built.failed is True)
            over.append(bundle.over(bundle.last_at, int(failed), evidence, built))
        elif built.slug:  # a build that wrote nothing new
            exit_code = None if built.failed is None else int(built.failed)
            over.append(Build(built.slug, at, at, exit_code, _text(built), (evidence,)))
        return over

    def next_deadline(self) -> int | None:
        dues = [bundle.last_at + BUNDLE_MS for bundle in self._bundles]
        if self._copies is not None:
            dues.append(self._copies.last_at + NO_WINDOW_MS)
        return min(dues, default=None)

    def handle_deadline(self, now: int) -> list[Build]:
        """The builds that failed, if it is time to say so."""
        return self._overdue(now)

    def _overdue(self, now: int) -> list[Build]:
        over = [bundle for bundle in self._bundles if now >= bundle.last_at + BUNDLE_MS]
        self._bundles = [bundle for bundle in self._bundles if bundle not in over]
        if self._copies is not None and now >= self._copies.last_at + NO_WINDOW_MS:
            over.append(self._copies)
            self._copies = None
        return self._failed(over)

    def shift(self, by_ms: int) -> None:
        """The clock was set."""

        def shifted(one: _Writing) -> _Writing:
            return replace(one, started_at=one.started_at + by_ms, last_at=one.last_at + by_ms)

        self._bundles = [shifted(bundle) for bundle in self._bundles]
        self._copies = shifted(self._copies) if self._copies is not None else None
        self.since += by_ms
        self._ended_at += by_ms


def _text(built: Preview) -> str | None:
    return built.source.text if built.source is not None else None
