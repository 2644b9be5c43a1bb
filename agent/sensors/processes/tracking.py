"""Which processes have been reported, and what is said of them: the one memory of all process sensors.

Promised: a process is reported when it is relevant (`core.commands.is_relevant`) or its parent was reported;
an unknown parent is reported before its child if it matters too; each reported process exits once; the agent and
its own children are never reported.  A process that can't be looked at or understood (a hostile command line) is
skipped and counted; the others are seen as ever.  The memory outlives a change of level, so a process that one
level reported is ended by the next.  How processes are noticed lives in `proc_connector`, `pidfd` and `scan`; how one
is read in `procfs` and `scan`.

Known to be weak: a process that never executed a program (a fork) is only known once a child of it is reported, and
one whose parent was over by then not at all.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from ...core.commands import (
    compile_run_copy,
    files_to_read,
    is_relevant,
    maybe_elsewhere,
    parameter_file,
    unknown_step,
)
from ...core.course import Course, is_source_file
from ...core.observations import (
    CourseRead,
    EventsLost,
    FileText,
    Observation,
    ProcessesListed,
    ProcessExecuted,
    ProcessExited,
)
from ..clock import now_ms
from ..course import CourseError, read_course
from .capture import Captures
from .procfs import FOREIGN, Ended, Look, Words
from .pytest_cache import PytestCaches

#: A student's program is a few KB; nothing larger is worth the memory.
TEXT_BYTES = 256 * 1024

#: A process found within this time after its start is taken for just started.
JUST_STARTED_MS = 2_000

#: `started_at` is known to 5 ms and a file's time to 4 ms: so much later may a file seem to be than the process.
_START_MS = 5
_TEXT_SLACK_MS = 20

#: The shortest run that there is: an interpreter takes 10 ms to start (`python -S`: 13).
_RUN_MS = 5

#: The sensor's name in observations.
SENSOR = "processes"

#: How far up unknown parents are looked at.  A pyenv shim in npx in a task of an IDE is 8 deep.
_ANCESTORS = 16

#: How many other names of the course, and of what was asked whether it is a step, are remembered: whoever makes up
#: ever new ones must not make the agent grow.
MAX_LEARNED = 64


class Reader(Protocol):
    """Reads processes of our user.  See `procfs.Procfs` for the contracts."""

    def pids(self) -> Mapping[int, int]: ...
    def is_mine(self, pid: int) -> bool: ...
    def argv(self, pid: int) -> tuple[str, ...] | None: ...
    def words(self, pid: int) -> Words | None: ...
    def look(self, pid: int, words: Words | None = None) -> Look | None: ...
    def ended(self, pid: int, born: int) -> Ended | None: ...


@dataclass(frozen=True, slots=True)
class Tracked:
    """A process that was reported and has not exited.  `argv` is that of its last exec, whatever it shows now."""

    born: int
    started_at: int
    argv: tuple[str, ...]
    image: int

    def is_same(self, look: Look) -> bool:
        """Whether it is this process that was looked at, and not another one that got its pid."""
        return look.is_over or self.born == look.born

    def is_unchanged(self, look: Look) -> bool:
        """Whether the process has not executed another program since."""
        if not self.is_same(look):
            return False
        return self.argv == look.words.argv if look.image == 0 else self.image == look.image


@dataclass(frozen=True, slots=True)
class Unread:
    """A process that executed a program `at` (ms).  `look` is what could be read, without its parent; None: nothing,
    5 ms later or more."""

    at: int
    look: Look | None = None


class Tracker:
    """The reported processes by pid.  All methods belong to the sensor's thread.

    `skipped` counts how often a process was left out because looking at it failed; `log` gets one sentence for each
    kind of failure.  `captures` reads what LearnPack's launchers print.
    """

    def __init__(
        self,
        course: Course,
        put: Callable[[Observation], None],
        reader: Reader,
        log: Callable[[str], None] = lambda text: None,
        captures: Captures | None = None,
    ) -> None:
        self.course = course
        self.put = put
        self.reader = reader
        self.tracked: dict[int, Tracked] = {}
        #: Processes that told of an exec and were over before they were read whole, until their exit is told.
        self.unread: dict[int, Unread] = {}
        self.skipped = 0
        self._log = log
        self._captures = captures if captures is not None else Captures()
        self._pytest = PytestCaches()
        self._failures: set[str] = set()
        self._unknown: dict[str, None] = {}  # in the order of asking
        self._images: dict[int, int] = {}  # of the last processes that ended: image -> when (ms)
        self._me = os.getpid()

    def executed(self, pid: int, at: int) -> bool:
        """The process executed a program at `at`: look at it now, and report it if it matters.  Returns whether
        `tracked` or `unread` may hold another process since."""
        try:
            words = self.reader.words(pid)
            if words is None:  # over already
                if now_ms() - at < _RUN_MS or pid in self.tracked:
                    return False
                self.unread[pid] = Unread(at)
                return True
            self.unread.pop(pid, None)
            if words is FOREIGN:
                return False  # sudo, for one
            relevant = self._is_relevant(words)
            if not relevant and not self.tracked:
                return False  # no need to know its parent: an exec storm elsewhere costs half
            look = self.reader.look(pid, words)
            if look is not None and look.is_over and pid not in self.tracked:
                self.unread[pid] = Unread(at, look)
                return True
            if look is not None and self._matters(look, at, relevant):
                self._report(look, at, found=False, exact=True)
                return True
            return False
        except Exception as error:  # see _skip
            self._skip(error)
            return True

    def exited_unread(self, pid: int, parent: int, at: int, status: int) -> None:
        """A process ended that told of an exec but was not read whole.  What was read of it is reported, now that its
        parent is told.  If nothing was, it lived long enough to be a run, and was started by a process that works in
        the course, then something was missed, and that is said."""
        unread = self.unread.pop(pid)
        if unread.look is not None:
            self._report_late(unread.at, unread.look, parent)
            self.exited(pid, at, status)
            return
        if at - unread.at < _RUN_MS or parent == self._me:
            return
        words = self._words(parent)
        if parent in self.tracked or (words is not None and words.cwd and self.course.relative(words.cwd) is not None):
            reason = f"a program that lived {at - unread.at} ms was over before it could be read: the machine is busy"
            self.put(EventsLost(at, unread.at, SENSOR, reason))

    def _report_late(self, at: int, look: Look, parent: int) -> None:
        """Report a process that is over, if it matters.  Its terminal is that of its parent, as far as is known."""
        above = self._looked(parent)
        whole = replace(look, parent=parent, on_terminal=above is not None and above.on_terminal, is_over=False)
        try:
            if self._matters(whole, at, self._is_relevant(whole.words)):
                self._report(whole, at, found=False, exact=False)
        except Exception as error:  # see _skip
            self._skip(error)

    def _words(self, pid: int) -> Words | None:
        try:
            return self.reader.words(pid)
        except Exception as error:  # see _skip
            self._skip(error)
            return None

    def noticed(self, pid: int) -> tuple[str, ...] | None:
        """A process was found that had not been there at the last look.  Returns its command line, if it could be
        read."""
        look = self._looked(pid)
        if look is None:
            return None
        known = self.tracked.get(pid)
        if known is None or not known.is_unchanged(look):
            try:
                self._found_new(look)
            except Exception as error:  # see _skip
                self._skip(error)
        return look.words.argv

    def _found_new(self, look: Look) -> None:
        now = now_ms()
        if not self._is_fork(look) and self._matters(look, now, self._is_relevant(look.words)):
            # When exactly it executed its program isn't known.  A fork and its exec are 1 ms apart, so the start
            # is nearer to the truth than the moment of finding it.
            young = look.started_at > now - JUST_STARTED_MS
            self._report(look, min(look.started_at, now) if young else now, found=not young, exact=False)

    def renamed(self, pid: int) -> None:
        """The command line of a process is another than before: report what it executed, if it did."""
        known, look = self.tracked.get(pid), self._looked(pid)
        if look is None or (known is not None and known.is_unchanged(look)):
            return
        now = now_ms()
        try:
            if self._matters(look, now, self._is_relevant(look.words)):
                self._report(look, now, found=False, exact=True)
        except Exception as error:  # see _skip
            self._skip(error)

    def exited(self, pid: int, at: int, status: int | None, *, exact: bool = True) -> None:
        """A process ended with this wait status, or with an unknown one; nothing happens if it wasn't reported."""
        known = self.tracked.pop(pid, None)
        if known is None:
            return
        if known.image:
            self._images[known.image] = at
            if len(self._images) > MAX_LEARNED:
                del self._images[next(iter(self._images))]
        exit_code = signal = None
        if status is not None:
            signal = status & 0x7F or None
            exit_code = None if signal else status >> 8 & 0xFF
        stdout = stderr = failed_tests = None
        try:
            stdout, stderr = self._captures.end(pid, is_cut_off=signal is not None)
            failed_tests = self._pytest.end(pid, exit_code)
        except Exception as error:  # see _skip; that it ended is told all the same
            self._skip(error)
        self.put(ProcessExited(at, pid, known.born, exit_code, signal, exact, stdout, stderr, failed_tests))

    def is_over(self, pid: int) -> bool:
        """Whether a process is over whose end was not told: it is tracked, or could not be read."""
        known = self.tracked.get(pid)
        return pid in self.unread if known is None else self.reader.ended(pid, known.born) is not None

    def close(self) -> None:
        """Nothing more will be asked of this tracker."""
        self._captures.close()

    def end_if_gone(self, pid: int, at: int) -> bool:
        """Report the exit of a tracked process if it is over; only a zombie's status can still be had."""
        ended = self.reader.ended(pid, self.tracked[pid].born)
        if ended is None:
            return False
        self.exited(pid, at, ended.status, exact=False)
        return True

    def survey(self) -> None:
        """Report all relevant living processes, parents first, the end of those that are gone, and the list."""
        now = now_ms()
        looks: dict[int, Look] = {}
        for pid in self.reader.pids():
            look = self._looked(pid)
            if look is not None and not look.is_over and pid != self._me and look.parent != self._me:
                looks[pid] = look
        for pid, known in list(self.tracked.items()):
            if self.end_if_gone(pid, now) and pid in looks and known.is_same(looks[pid]):
                del looks[pid]  # it ended since it was looked at
        verdicts: dict[int, bool] = {}

        def matters(look: Look) -> bool:
            verdict = verdicts.get(look.pid)
            if verdict is None:
                verdicts[look.pid] = False  # a pid that was reused meanwhile could close a circle
                parent = looks.get(look.parent)
                try:  # a thousand nested shells are too deep, too
                    by_parent = parent is not None and matters(parent)
                    verdict = by_parent or look.pid in self.tracked or self._is_relevant(look.words)
                except Exception as error:  # see _skip
                    self._skip(error)
                    verdict = False
                verdicts[look.pid] = verdict
            return verdict

        reported = set[int]()

        def report(look: Look) -> None:
            if look.pid not in reported:
                reported.add(look.pid)
                parent = looks.get(look.parent)
                try:
                    if parent is not None and verdicts[parent.pid]:
                        report(parent)
                    self._report(look, now, found=True, exact=False)
                except Exception as error:  # see _skip
                    self._skip(error)

        for look in [look for look in looks.values() if matters(look)]:
            parent = looks.get(look.parent)
            is_fork = (parent is not None and parent.words.argv == look.words.argv) or self._is_left_behind(look)
            if not is_fork or look.pid in self.tracked:
                report(look)
        self.put(ProcessesListed(now_ms(), frozenset((pid, one.born) for pid, one in self.tracked.items())))

    def replace_course(self, course: Course) -> None:
        """From now on this is the course.  Another place makes other processes relevant."""
        moved = (course.root, course.aliases) != (self.course.root, self.course.aliases)
        self.course = course
        if moved:
            self.survey()

    def argv(self, pid: int) -> tuple[str, ...] | None:
        """The command line of a process, as the reader reads it."""
        try:
            return self.reader.argv(pid)
        except Exception as error:  # see _skip
            self._skip(error)
            return None

    def _looked(self, pid: int) -> Look | None:
        """What the reader says of a process; None also where reading it fails in an unforeseen way."""
        try:
            return self.reader.look(pid)
        except Exception as error:  # see _skip
            self._skip(error)
            return None

    def _skip(self, error: Exception) -> None:
        """One process could not be looked at.  Anybody may name a program as he likes: whatever a command line makes
        our own code raise (RecursionError, OverflowError, a mistake of ours) must not end a level, because the
        next level would meet the same process."""
        self.skipped += 1
        kind = type(error).__name__
        if kind not in self._failures:
            self._failures.add(kind)
            self._log(f"A process is left out, its command could not be understood: {kind}: {str(error)[:200]!a}.")

    def _is_relevant(self, words: Words) -> bool:
        if self._learn_alias(words.argv):
            return True
        if not is_relevant(self.course, words.argv, words.cwd, words.stdin):
            return False
        self._learn_step(words)
        return True

    def _learn_step(self, words: Words) -> None:
        """A command in a step that the course's picture doesn't have: look whether there is one by now.  (The file
        sensor notices it too, but takes its time: measured, a run 20 ms after the `mkdir` came first.)"""
        place = unknown_step(self.course, words.argv, words.cwd)
        if place is None or place in self._unknown or not os.path.isdir(posixpath.join(self.course.root, place)):
            return
        self._unknown[place] = None  # asked once: what is no step now is none for LearnPack either
        if len(self._unknown) > MAX_LEARNED:
            del self._unknown[next(iter(self._unknown))]
        with contextlib.suppress(CourseError):
            course = read_course(self.course.root)
            self._tell_course(replace(course, aliases=self.course.aliases), posixpath.join(self.course.root, place))

    def _learn_alias(self, argv: tuple[str, ...]) -> bool:
        """Whether a command names the course by another path, through a symbolic link.  That name is then known, and
        told as a `CourseRead`, because the observations that follow speak of it."""
        for word in maybe_elsewhere(self.course, argv):
            path = word.partition("::")[0]  # pytest's file::test
            real = os.path.realpath(path)
            inside = self.course.relative(real)
            alias = path.removesuffix(f"/{inside}") if inside is not None else path
            if alias == path:
                continue
            aliases = self.course.aliases
            if len(aliases) >= MAX_LEARNED:
                aliases = aliases[:1] + aliases[2:]  # the first may be the name that the agent was started with
            if self._tell_course(replace(self.course, aliases=(*aliases, alias)), real):
                return True
        return False

    def _tell_course(self, course: Course, path: str) -> bool:
        """From now on this is the course, if its root is there and holds this path.  A `CourseRead` means that the
        course is there, and `realpath` also follows a link to one that is gone."""
        if not os.path.isdir(course.root) or not os.path.lexists(path):
            return False
        self.course = course
        self.put(CourseRead(now_ms(), course))
        return True

    def _is_fork(self, look: Look) -> bool:
        """Whether a new process still looks like its parent: it has not executed its program yet.  Reported now, a
        child of the LearnPack server would be taken for a second server."""
        parent = self.tracked.get(look.parent)
        looks_alike = parent is not None and parent.argv == look.words.argv
        return (looks_alike or self._is_left_behind(look)) and look.pid not in self.tracked

    def _is_left_behind(self, look: Look) -> bool:
        """Whether a process that is over had forked this one, as daemons are made: it is no run of its own."""
        ended_at = self._images.get(look.image)
        return ended_at is not None and look.started_at <= ended_at + _START_MS

    def _matters(self, look: Look, at: int, relevant: bool) -> bool:
        if look.pid == self._me or look.parent == self._me:
            return False
        known = self.tracked.get(look.pid)
        if known is not None:
            if known.is_same(look):
                return True
            self.exited(look.pid, at, None, exact=False)  # the pid was used again; its exit was not seen
        if look.is_over:
            return False  # whose child it was, nobody can say: it may be a part of a run
        if look.parent in self.tracked:
            return True
        if not relevant:
            return False
        self._find(look.parent, _ANCESTORS)
        return True

    def _find(self, pid: int, depth: int) -> None:
        """Report an unknown parent, and before it its own, if they matter."""
        if pid <= 1 or pid in self.tracked or pid == self._me or depth == 0:
            return
        look = self._looked(pid)
        if look is None or look.is_over or look.parent == self._me or self._is_left_behind(look):
            return
        self._find(look.parent, depth - 1)
        try:
            if look.parent in self.tracked or self._is_relevant(look.words):
                self._report(look, now_ms(), found=True, exact=False)
        except Exception as error:  # its child is reported all the same
            self._skip(error)

    def _report(self, look: Look, at: int, *, found: bool, exact: bool) -> None:
        known, words = self.tracked.get(look.pid), look.words
        born = known.born if known is not None and known.is_same(look) else look.born
        started_at = known.started_at if known is not None else min(look.started_at, at)
        if found and known is not None and known.is_unchanged(look):
            words = replace(words, argv=known.argv)
        # Right after an exec a file is what the program will read.  Later it may have been saved again.
        not_after = None if exact else started_at + _TEXT_SLACK_MS
        copied = self._copied(words.argv)
        executed = ProcessExecuted(
            at=at,
            pid=look.pid,
            born=born,
            parent=look.parent,
            argv=words.argv,
            cwd=words.cwd,
            started_at=started_at,
            on_terminal=look.on_terminal,
            stdin=words.stdin,
            texts=copied or self._texts(words, not_after),
            copy_of=tuple(text.path for text in copied),
            found=found,
        )
        # Last: what fails before is skipped whole, and no end is told of what was never reported.
        self.tracked[look.pid] = Tracked(born, started_at, words.argv, look.image)
        self.put(executed)
        self._follow(executed)

    def _follow(self, executed: ProcessExecuted) -> None:
        """What a process prints and its tests' results lie in files that are gone or rewritten soon after its end."""
        path = parameter_file(executed.argv)
        if path is not None and executed.cwd is not None and self.course.relative(executed.cwd) is not None:
            self._captures.begin(executed.pid, path)
        else:
            self._captures.look()
            self._pytest.begin(self.course, executed)

    def _texts(self, words: Words, not_after: int | None) -> tuple[FileText, ...]:
        texts = []
        for path in files_to_read(self.course, words.argv, words.cwd, words.stdin):
            data = read_file(posixpath.join(self.course.root, path), not_after)
            if data is not None:
                texts.append(FileText(path, data.decode("utf-8", "replace")))
        return tuple(texts)

    def _copied(self, argv: tuple[str, ...]) -> tuple[FileText, ...]:
        """The step files whose text ends the temporary copy that this command runs: the longest, often one, but
        all where several steps have the same text.  LearnPack puts its own lines before the student's.  The text
        is what is run, whenever the files were saved: it was found in the copy."""
        path = compile_run_copy(argv)
        copy = read_file(path) if path is not None else None
        if path is None or not copy:
            return ()
        ending = posixpath.splitext(path)[1].lower()
        longest, paths = b"", list[str]()
        for candidate in self._source_files():
            if not candidate.lower().endswith(ending):
                continue
            text = read_file(posixpath.join(self.course.root, candidate))
            if text is None or not text.strip() or len(text) < len(longest) or not copy.endswith(text):
                continue
            if len(text) > len(longest):
                longest, paths = text, []
            paths.append(candidate)
        text_of_all = longest.decode("utf-8", "replace")
        return tuple(FileText(path, text_of_all) for path in paths)

    def _source_files(self) -> Iterator[str]:
        """What LearnPack may run: the steps' own files, and where code lies in the root (incremental) those there."""
        for step in self.course.steps:
            yield from (file.path for file in step.files if is_source_file(file.name))
        if self.course.at_root:
            with contextlib.suppress(OSError):
                yield from filter(is_source_file, os.listdir(self.course.root))


class Finder:
    """Finds processes that began, and programs that were executed, by comparing the process table with the last
    time.  New processes are watched for another program for 2 s, reported ones always.

    `before_look` is called with the pid of each new process of ours before it is read.
    """

    def __init__(self, tracker: Tracker, before_look: Callable[[int], None] = lambda pid: None) -> None:
        self._tracker = tracker
        self._before_look = before_look
        self._known: Mapping[int, int] = {}
        self._young: dict[int, tuple[float, tuple[str, ...] | None]] = {}
        self._shown: dict[int, tuple[str, ...]] = {}

    def find(self) -> Mapping[int, int]:
        """Compare, report what is new, and return the process table as it was at the beginning."""
        tracker, reader = self._tracker, self._tracker.reader
        known, self._known = self._known, reader.pids()
        now = time.monotonic()
        new = [pid for pid, identity in self._known.items() if known.get(pid) != identity]
        for pid in new:
            if reader.is_mine(pid):
                self._before_look(pid)
                self._young[pid] = (now, tracker.noticed(pid))
        just_looked = set(new)
        for pid, (since, argv) in list(self._young.items()):
            if pid not in self._known or now - since > JUST_STARTED_MS / 1000:
                del self._young[pid]
            elif pid not in just_looked and pid not in tracker.tracked:
                current = tracker.argv(pid)
                if current != argv:
                    self._young[pid] = (since, current)
                    tracker.renamed(pid)
        shown, self._shown = self._shown, {}
        for pid, one in list(tracker.tracked.items()):
            if pid in just_looked or pid not in self._known:
                continue
            current = tracker.argv(pid)
            if current is not None:
                self._shown[pid] = current
                if current != shown.get(pid, one.argv):
                    tracker.renamed(pid)
        return self._known

    def expects_more(self) -> bool:
        """Whether a reported process is so young that it may yet execute another program."""
        return any(pid in self._tracker.tracked for pid in self._young)


def read_file(path: str, not_after: int | None = None) -> bytes | None:
    """A regular file's first TEXT_BYTES; None if there is none, or if it was changed after `not_after` (ms).

    O_NONBLOCK: a named pipe must not hold the sensor up."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                return None
            if not_after is not None and found.st_mtime_ns // 1_000_000 > not_after:
                return None
            # One byte more than the size, so that the usual file takes one read; one that grows is cut off.
            return os.read(handle, min(found.st_size + 1, TEXT_BYTES))
        finally:
            os.close(handle)
    except (OSError, ValueError):  # deleted, unreadable; a NUL in the name
        return None
