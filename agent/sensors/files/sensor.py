"""The file sensor: what changes in the course's files, and whether the course is there at all.

Promised: the last state of every watched file is always seen, whatever was lost on the way; a loss is told
(`EventsLost`), and then everything is compared.  A change is told within a millisecond or two of the close.  Nothing
wakes up while nothing happens, unless something has to be polled, and then `health` says so.  No exception ends the
thread.

What the files mean lives elsewhere: `tree.py` compares (and explains what counts as a change), `learnpack.py` reads
LearnPack's own files, `course.py` the course, `inotify.py` and `observer.py` tell where to look, `originals.py` says
whether a test is the one that came with the course.  This file holds the thread, the fate of the root, and what is
done when:

- PRESENT: the course is watched.
- GONE: the root is absent or another one; the nearest directory above is watched for its return.
- SETTLING: a directory is there again (a `git clone` at work, perhaps); when it holds a readable course and nothing
  has changed for half a second, a new picture is taken without a word and the course is PRESENT.

Known to be weak: without inotify the root is looked after every 3 s; a directory above the course that may not be
read hides its own renaming; changes while the course is settling are not told one by one (the core has a gap there).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from ...core.course import Course, one_line, printable
from ...core.observations import (
    Change,
    ConfigRead,
    CourseGone,
    CourseRead,
    EventsLost,
    FileChanged,
    Observation,
    PreviewWritten,
    QueueRead,
    ResetCopyAppeared,
)
from ..clock import now_ms
from ..course import CourseError, read_course
from ..learnpack import parse_learnpack_file
from ..picture import DOCUMENT, Look, Scope, is_course_file, joined, parent_of
from ..preview import BUILT, built, with_preview
from .mounts import Mount, mounts_within, read_mounts, remote_kind
from .originals import Originals
from .root import concerns_root, identity_of, watch_above, why_gone
from .tree import RootLostError, Tree
from .watches import Kind, NoSource, Notice, Source

_log = logging.getLogger(__name__)

SENSOR = "files"

#: How often is compared what can't be watched, and looked for a root whose return is not told.
POLL_S = 3.0
#: The same where nothing can be watched, on a network file system.
REMOTE_POLL_S = 2.0
#: Comparing may take this share of the time, however large the course: the next one no sooner than 20 times the last.
#: Of a poll the shorter of the last two counts: one that a busy machine held up for 1.6 s (6 ms of work, measured)
#: would put the next one off by half a minute.
_DUTY = 20
#: How long names have to be quiet before the course is read again (a `cp -r` of a step makes one reading), and how
#: long that is waited for.
_COURSE_DELAY_S = 0.1
_COURSE_LIMIT_S = 1.0
#: How long after a loss everything is compared: the burst that caused it goes on, as a rule.
_RESCAN_DELAY_S = 0.05
#: `git clone` writes its files within a few ms of one another.
SETTLE_S = 0.5
_SETTLE_LIMIT_S = 10.0


class _State(Enum):
    PRESENT = auto()
    GONE = auto()
    SETTLING = auto()


@dataclass(frozen=True, slots=True)
class FilesHealth:
    """For `status`.  `skipped` are directories that are left out or polled, each with the reason in words."""

    level: str
    watches: int
    files: int
    skipped: tuple[tuple[str, str], ...] = ()


def open_source(root: str) -> Source:
    """The best source of this system, imported only now: watchdog costs 7 MB.

    Raises OSError where it can't be had now: EMFILE, ENFILE, ENOMEM.
    """
    if sys.platform == "linux":
        from .inotify import InotifySource

        return InotifySource()
    from .observer import ObserverSource

    return ObserverSource(root)


class FileSensor:
    """Puts observations, from its own thread (and `Originals` from another), until it is stopped.

    `put` must not block for long.  `on_document` is called in that thread when LearnPack's telemetry.json was written,
    by whomever.  `on_open` is called in that thread, once for each batch of notices in which a file
    of a step was opened, before anything else is done with the batch; only while `watch_opens` is on.  The agent's own
    reads (one after each save) count as well: to leave them out could hide the open of a program that starts just then,
    because the kernel makes one notice of two.
    """

    def __init__(
        self,
        course: Course,
        put: Callable[[Observation], None],
        *,
        watch_opens: bool = False,
        on_open: Callable[[], None] | None = None,
        on_document: Callable[[], None] | None = None,
        source: Callable[[str], Source] = open_source,
    ) -> None:
        self._course = course
        self._put = put
        self._originals = Originals(put)
        self._on_open = on_open
        self._on_document = on_document
        self._opens_wanted = watch_opens
        self._opens_placed = False
        self._open_source = source
        self._source: Source = NoSource()
        self._source_trouble: str | None = None
        self._tree = Tree(course.root, _scope_of(course), self._source, self)
        self._tree.opens = self._is_opening_told
        self._state = _State.GONE
        self._identity: tuple[int, int] | None = None
        self._mounts: list[Mount] = []
        self._is_lost = False
        self._remote: str | None = None
        self._told: set[str] = set()
        self._is_course_unreadable = False
        self._failures = 0
        self._read_at = now_ms()
        self._current: str | None = None  # LearnPack's current step, as its config.json says
        self._settle_limit = self._course_limit = 0.0
        self._costs = {"course": 0.0, "rescan": 0.0, "poll": 0.0}
        #: What has to be done when, on the monotonic clock (s).
        self._due: dict[str, float] = {}
        self._tasks: dict[str, Callable[[int], None]] = {
            "rescan": self._rescan,
            "course": self._read_course_again,
            "poll": self._poll,
            "root": self._check_root,
            "settle": self._settle,
        }
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=SENSOR, daemon=True)

    # --- for the service ---

    def start(self) -> None:
        """Returns after all watches are placed and the first picture is taken.

        Puts what LearnPack's queue and configuration say now, stamped with the files' own times.
        """
        self._source = self._tree.source = self._opened_source()
        try:
            self._opens_placed = self._opens_wanted
            if self._arm():
                self._present()
            else:
                self._gone(now_ms(), "the course's directory is not there")
            self._tell_troubles(now_ms())
            self._plan_polling()
            self._thread.start()
        except BaseException:
            self._source.close()
            raise

    def stop(self) -> None:
        """Ends the thread and closes what it holds; nothing is put any more.  Again is fine.

        A thread that hangs (in a dead network file system, say) is left behind after 1 s."""
        self._stopping.set()
        self._originals.stop()
        for _ in range(4):  # woken again: the source may have been renewed since
            self._source.wake()
            if self._thread.is_alive():
                self._thread.join(0.25)

    def watch_opens(self, wanted: bool) -> None:
        """From now on (a moment later) tell, or don't, that files of steps are opened."""
        self._opens_wanted = wanted
        self._source.wake()

    @property
    def health(self) -> FilesHealth:
        tree = self._tree
        skipped = {**tree.skipped, **{path: trouble.reason for path, trouble in tree.troubles.copy().items()}}
        if self._source_trouble is not None:
            skipped["."] = self._source_trouble
        if self._remote is not None:
            skipped.setdefault(".", f"on a network file system ({self._remote}): compared every {REMOTE_POLL_S:.0f} s")
        return FilesHealth(
            level=self._source.level,
            watches=len(self._source.watched()),
            files=sum(len(names) for names in tree.files.copy().values()),
            skipped=tuple((printable(path), reason) for path, reason in sorted(skipped.items())),
        )

    # --- the thread ---

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    notices = self._source.wait(self._timeout())
                    if not self._stopping.is_set():
                        self._handle(notices, now_ms())
                        self._run_due()
                except Exception as error:  # whatever it is, the sensor goes on and says so
                    self._recover(error)
        finally:
            self._source.close()

    def _timeout(self) -> float | None:
        times = list(self._due.values())
        if (doubt := self._tree.next_doubt()) is not None:
            times.append(doubt)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _handle(self, notices: list[Notice], at: int) -> None:
        since, self._read_at = self._read_at, at
        if any(notice.kind is Kind.OPENED for notice in notices) and self._on_open is not None:
            self._on_open()
        if self._opens_wanted != self._opens_placed:
            self._opens_placed = self._opens_wanted
            self._tree.renew_interest()
        if not notices:
            return
        kinds = {notice.kind for notice in notices}
        if Kind.MOUNTS in kinds:
            self._mounts_changed(at, since)
        if any(concerns_root(notice, self._course.root) for notice in notices):
            self._check_root(at, is_ended=Notice(Kind.ENDED, ".") in notices)
            if self._state is not _State.GONE:
                watch_above(self._source, self._course.root, is_there=True)
        if self._state is _State.GONE:
            return
        if Kind.LOST in kinds:
            self._lost(at, since, "the kernel's queue of file events overflowed")
        try:
            # The last of several equal notices counts: a file that was made and then closed needs no second look.
            for notice in reversed(dict.fromkeys(reversed(notices))):
                self._follow(notice, at)
        except RootLostError:
            self._root_lost(at)
        if self._state is _State.SETTLING:
            self._wait_for_quiet()
        self._tell_troubles(at)
        self._plan_polling()

    def _follow(self, notice: Notice, at: int) -> None:
        kind, key, name = notice
        if key.startswith("/"):
            return
        if kind is Kind.LOOK:
            self._tree.look(key, name, at)
        elif kind is Kind.CREATED:
            self._tree.created(key, name, at)
        elif kind is Kind.DIRECTORY:
            self._tree.directory(key, name, at)
        elif kind in (Kind.SELF, Kind.ENDED) and key != ".":
            self._tree.directory(parent_of(key), key.rpartition("/")[2], at)

    def _run_due(self) -> None:
        if self._state is _State.PRESENT:
            self._tree.settle_doubts()
        now = time.monotonic()
        for name in [name for name, due in self._due.items() if due <= now]:
            if self._due.pop(name, None) is None:
                continue  # an earlier task of this round made it needless
            at = now_ms()
            try:
                self._tasks[name](at)
            except RootLostError:
                self._root_lost(at)
            self._tell_troubles(at)
            self._plan_polling()

    def _in(self, name: str, seconds: float) -> None:
        """Do this task in so many seconds, or at the time that is set already."""
        self._due.setdefault(name, time.monotonic() + seconds)

    def _recover(self, error: Exception) -> None:
        """One line, then everything is compared; slower and slower while it keeps failing."""
        reason = one_line(f"the file sensor failed: {type(error).__name__}: {error}")
        self._failures += 1
        if self._failures == 1:
            _log.error(reason, exc_info=error)
        delay = min(60.0, _RESCAN_DELAY_S * 2**self._failures)
        try:
            self._lost(now_ms(), self._read_at, reason)
            self._due["rescan"] = time.monotonic() + delay
            if self._failures > 2:
                self._stopping.wait(delay)  # `wait` itself may be what fails
                self._renew_source()
        except Exception as other:  # the receiver or the source fails: nothing is left but to try again
            _log.error("%s; and then %s: %s", reason, type(other).__name__, one_line(str(other)))
            self._stopping.wait(delay)

    # --- losses ---

    def _lost(self, at: int, since: int, reason: str) -> None:
        """Tell a loss, once until everything was compared, and see that it is."""
        self._in("rescan", max(_RESCAN_DELAY_S, 2 * self._costs["rescan"]))
        if not self._is_lost:
            self._is_lost = True
            _log.warning("file events were lost: %s", reason)
            if self._state is _State.PRESENT:
                self._put(EventsLost(at, since, SENSOR, reason))

    def _tell_troubles(self, at: int) -> None:
        """Tell what can't be watched: once when it begins."""
        if self._state is not _State.PRESENT:
            return
        troubles = self._tree.troubles.values()
        if not troubles and not self._told and self._source_trouble is None:
            return
        now = {trouble.reason: trouble.polled for trouble in troubles}
        if self._source_trouble is not None:
            now[self._source_trouble] = True
        for reason in now.keys() - self._told:
            words = f"{reason}; compared every {POLL_S:.0f} s instead" if now[reason] else reason
            _log.warning("%s", words)
            self._put(EventsLost(at, at, SENSOR, words))
        for reason in self._told - now.keys():
            _log.info("no longer: %s", reason)
        self._told = set(now)

    # --- tasks ---

    def _rescan(self, at: int) -> None:
        if self._state is _State.GONE:
            return
        started = time.monotonic()
        self._tree.rescan(at)
        self._costs["rescan"] = time.monotonic() - started
        self._is_lost = False
        self._failures = 0
        self.layout_changed()

    def _poll(self, at: int) -> None:
        started = time.monotonic()
        self._check_root(at)
        if self._state is _State.GONE:
            return
        was_blind = self._source_trouble is not None
        if was_blind:
            self._renew_source()
        if was_blind or self._remote is not None or not self._source.sees_all:
            self._tree.rescan(at)
        else:
            self._tree.compare_polled(at)
        cost, last = time.monotonic() - started, self._costs["poll"]
        self._costs["poll"] = cost
        self._in("poll", max(POLL_S if self._remote is None else REMOTE_POLL_S, _DUTY * min(cost, last)))

    def _plan_polling(self) -> None:
        if self._state is not _State.GONE and (
            self._remote is not None
            or not self._source.sees_all
            or not self._source.sees_root
            or any(trouble.polled for trouble in self._tree.troubles.values())
        ):
            self._in("poll", POLL_S if self._remote is None else REMOTE_POLL_S)
        else:
            self._due.pop("poll", None)

    def _read_course_again(self, _: int) -> None:
        if self._state is not _State.PRESENT:
            return
        started = time.monotonic()
        course = self._maybe_course()
        self._costs["course"] = time.monotonic() - started
        if course is None or course == self._course:
            return
        old, self._course = self._course, course
        self._put(CourseRead(now_ms(), course))
        self._originals.course_read(course)
        if _scope_of(course) != _scope_of(old):
            self._tree.change_scope(_scope_of(course))
            if course.base != old.base:
                self._put_learnpack()
        if self._opens_placed:
            self._tree.renew_interest()

    def _maybe_course(self) -> Course | None:
        """The course as it is now; None if it can't be read, which is told once."""
        try:
            course = read_course(self._course.root)
        except CourseError as error:
            if not self._is_course_unreadable:
                self._is_course_unreadable = True
                words = "kept as it was" if self._state is _State.PRESENT else "waited for"
                _log.warning("the course is %s: %s", words, error)
            return None
        self._is_course_unreadable = False
        return replace(course, aliases=self._course.aliases)

    def _put_learnpack(self) -> None:
        """What LearnPack's files say now."""
        base = self._course.base
        if base not in self._tree.directories:
            return
        for name in ("vscode_queue.json", "config.json"):
            found = self._tree.read(base, name)
            if found is not None and found.content is not None:
                seen = parse_learnpack_file(
                    self._course, joined(base, name), found.content, found.mtime_ns // 1_000_000
                )
                if isinstance(seen, ConfigRead):
                    self._current = seen.current
                if seen is not None:
                    self._put(seen)

    # --- the root ---

    def _arm(self) -> bool:
        """Watch the course and take its picture without a word; False if there is no such directory now."""
        self._tree.forget()
        self._tree.quiet = True
        self._identity = identity_of(self._course.root)
        if self._identity is None:
            return False
        watch_above(self._source, self._course.root, is_there=True)
        try:
            self._tree.arm(".", now_ms())
        except RootLostError:
            return False
        self._look_at_mounts()
        return identity_of(self._course.root) == self._identity

    def _present(self) -> None:
        self._state = _State.PRESENT
        self._put_learnpack()
        self._tree.quiet = False
        self._originals.compare(self._course)

    def _check_root(self, at: int, *, is_ended: bool = False) -> None:
        """Whether the root is still, or again, the directory that is watched; `is_ended`: that one is no more."""
        identity = identity_of(self._course.root)
        if self._state is _State.GONE:
            self._look_for_course()
        elif identity != self._identity or is_ended:
            self._gone(at, why_gone(self._course.root, self._identity, identity))

    def _root_lost(self, at: int) -> None:
        self._check_root(at)
        if self._state is not _State.GONE:
            self._in("rescan", _RESCAN_DELAY_S)  # it was away for a moment, or the disk failed for one

    def _gone(self, at: int, reason: str) -> None:
        if self._state is not _State.SETTLING:
            _log.warning("%s: %s", one_line(self._course.root), reason)
            self._put(CourseGone(at, reason))
        self._state = _State.GONE
        self._told.clear()
        self._due.clear()
        self._is_lost = self._is_course_unreadable = False
        self._look_for_course()

    def _look_for_course(self) -> None:
        """Watch for the root's return; if it is there, begin to settle."""
        for _ in range(10):  # a directory can come while the watch for it is placed
            root = self._course.root
            if self._arm():
                self._state = _State.SETTLING
                self._settle_limit = time.monotonic() + _SETTLE_LIMIT_S
                self._wait_for_quiet()
                return
            self._tree.forget()
            awaited = watch_above(self._source, root, is_there=False)
            if awaited is None:
                break
            if not os.path.lexists(awaited):
                return
        self._in("root", REMOTE_POLL_S)  # its return is not told here, or it comes and goes

    def _wait_for_quiet(self) -> None:
        self._due["settle"] = min(time.monotonic() + SETTLE_S, self._settle_limit)

    def _settle(self, at: int) -> None:
        """The course is back if it can be read; else the next change is waited for."""
        self._settle_limit = time.monotonic() + _SETTLE_LIMIT_S
        identity = self._identity
        self._check_root(at)
        if self._state is not _State.SETTLING or self._identity != identity:
            return
        course = self._maybe_course()
        if course is None:
            if self._remote is not None or not self._source.sees_all or not os.access(self._course.root, os.R_OK):
                self._in("settle", REMOTE_POLL_S)
            return
        self._course = course
        self._tree.change_scope(_scope_of(course))
        _log.info("%s: the course is there again", one_line(course.root))
        self._put(CourseRead(now_ms(), course))
        self._present()

    def _look_at_mounts(self) -> None:
        mounts = read_mounts()
        self._mounts = mounts_within(self._course.root, mounts)
        self._remote = remote_kind(self._course.root, mounts)

    def _mounts_changed(self, at: int, since: int) -> None:
        self._check_root(at)
        if self._state is _State.GONE:
            return
        before = self._mounts
        self._look_at_mounts()
        if self._mounts != before:
            self._lost(at, since, "something was mounted or unmounted within the course")

    # --- the source ---

    def _opened_source(self) -> Source:
        try:
            source = self._open_source(self._course.root)
        except OSError as error:
            self._source_trouble = f"files can't be watched: {error.strerror}"
            return NoSource()
        self._source_trouble = None
        return source

    def _renew_source(self) -> None:
        """Try again to get the best source; what there is to watch is watched by the next comparison."""
        source = self._opened_source()
        old, self._source = self._source, source
        self._tree.source = source
        old.close()
        watch_above(source, self._course.root, is_there=True)

    def _is_opening_told(self, path: str) -> bool:
        if not self._opens_placed or self._tree.scope.is_learnpacks(path) or path == self._tree.scope.resets:
            return False
        return self._course.step_of(path) is not None or (path == "." and self._course.at_root)

    # --- called by the tree ---

    def file_changed(self, directory: str, name: str, change: Change, at: int, found: Look | None) -> bool:
        path = joined(directory, name)
        if self._tree.scope.is_learnpacks(directory):
            return self._learnpack_file_changed(path, at, found)
        if directory == self._tree.scope.previews:
            # LearnPack deletes there when a step is opened, and keeps a copy of a Python program there for its test.
            if change is not Change.DELETED and name.endswith(BUILT):
                self._put(PreviewWritten(at, name, built(self._course, self._current, name)))
            return True
        self._put(FileChanged(at, path, change))
        self._originals.file_changed(self._course, path)
        is_step_file = change is not Change.MODIFIED and self._is_step(directory)
        if is_step_file or (directory == "." and is_course_file(name)):
            self.layout_changed()
        return True

    def _learnpack_file_changed(self, path: str, at: int, found: Look | None) -> bool:
        name = path.rpartition("/")[2]
        if is_course_file(name):
            self.layout_changed()
            return True
        if name == DOCUMENT:
            if self._on_document is not None:
                self._on_document()
            return True
        if found is None:
            return True  # deleted: LearnPack's `clean` says nothing about the student
        if found.content is None:
            _log.warning("%s: not read: larger than 8 MiB, or no permission", one_line(path))
            return True
        seen = parse_learnpack_file(self._course, path, found.content, at)
        if seen is None:
            return False
        if isinstance(seen, ConfigRead):
            self._current = seen.current
        self._put(with_preview(self._course, seen, self._current) if isinstance(seen, QueueRead) else seen)
        return True

    def copy_appeared(self, name: str, at: int) -> None:
        self._put(ResetCopyAppeared(at, printable(name)))
        self._originals.copy_appeared(self._course, name)

    def layout_changed(self) -> None:
        """The course is read again when this has not been called for a moment: a checkout, a deletion at work."""
        if self._state is _State.PRESENT:
            now = time.monotonic()
            if "course" not in self._due:
                self._course_limit = now + _COURSE_LIMIT_S
            delay = max(_COURSE_DELAY_S, _DUTY * self._costs["course"])
            self._due["course"] = max(self._due.get("course", 0.0), min(now + delay, self._course_limit))

    def _is_step(self, directory: str) -> bool:
        step = self._course.step_of(directory)
        return step is not None and step.path == directory


def _scope_of(course: Course) -> Scope:
    return Scope(course.exercises, course.base)
