"""Compares each test file of the course with the one that came with the course.

Promised: one answer for each test file soon after the start, and another when it changes, in one observation for all
that were compared together; no observation where no answer changed.  The comparing has a thread of its own, which
lives only while there is something to compare: git may take seconds, and a save must not wait for that.

Where the course's own is looked for, in this order:

1. `.learn/resets/<slug>/<name>`, LearnPack's copy from the first time that its UI showed a file of the step;
2. git (`git.py` says which commit is the course's own, and why that is not always HEAD), asked where the copy is
   missing, and where it differs: `git pull` may have brought newer tests, and those are no student's.

Where neither has it, `differs` is None, and the first digest of the file that was ever told is what is left to compare
with; that is up to the receiver.

What is not a change by the student is left out (`as_it_came`): line ends, and what LearnPack's node plugin does.

Known to be weak: a test that was changed before LearnPack made its copy, and before the agent saw it unchanged; tests
larger than 1 MiB are not compared.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from binascii import crc32
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...core.course import Course, Step, one_line
from ...core.observations import ComparedTest, Observation, TestsCompared
from ..clock import now_ms
from ..picture import CONTENT_LIMIT, read_regular
from .git import NoAnswerError, Versions, course_versions, repository_above

_log = logging.getLogger(__name__)

RESETS = "LearnPack's copy in resets/"

#: After the agent is ready, and before the first run of a student who was waiting for that.
_START_S = 0.1
#: `git pull` and editors write several files within a few ms: one question to git for all of them.
_CHANGE_S = 0.05
#: LearnPack makes the directory and then copies one file after the other into it, within some ms.
_COPY_S = 0.3
#: `git pull` writes the files first and moves HEAD then, and a copy may be slow: a bad answer is tried once more, and
#: again while they are at work.
AGAIN_S = 2.0
#: Nor later than this, however long git is at work.
_LONGEST_S = 60.0


def as_it_came(content: bytes) -> bytes:
    """A test file's content without what is not the student's doing, for comparing.

    Line ends: git may have turned them (`core.autocrlf`).  And LearnPack's node plugin (1.1.13, `src/test.js`), when
    app.js asks with `prompt(` and the test loads it with `rewire(`, replaces each "app.js" in the test file by
    "temporal.js", writes it as UTF-8, and never turns that round.
    """
    content = content.replace(b"\r\n", b"\n")
    if b"rewire(" in content:
        content = content.decode("utf-8", "replace").encode().replace(b"app.js", b"temporal.js")
    return content


def digest_of(content: bytes) -> str:
    """Stands for a content in every life of the agent: its size and checksum (hashlib would cost 3.9 MB)."""
    kept = as_it_came(content)
    return f"{len(kept):x}-{crc32(kept):08x}"


def _fingerprint(content: bytes) -> int:
    """Stands for a content in this process only, and is a hash that nobody can aim at."""
    return hash(as_it_came(content))


class _Test(NamedTuple):
    """A test file as it is now.  `fingerprints` are those that git may have of it: two where it is a link."""

    path: str
    digest: str
    fingerprints: tuple[int, ...]
    copy: int | None


class Originals:
    """`put` gets the observations, from a thread of this object; none any more once `stop` has returned.

    `versions` asks git: a fake in tests.  The other methods are for one thread, the sensor's.
    """

    def __init__(
        self,
        put: Callable[[Observation], None],
        *,
        versions: Callable[[str, list[str], Callable[[bytes], int]], Versions] = course_versions,
    ) -> None:
        self._put = put
        self._versions = versions
        self._condition = threading.Condition()
        self._course: Course | None = None
        #: When a file is to be compared, on the monotonic clock (s).
        self._due: dict[str, float] = {}
        self._answers: dict[str, ComparedTest] = {}
        #: What git said is another file than the course's: it may say otherwise when HEAD moves.
        self._suspects: frozenset[str] = frozenset()
        self._head: tuple[int, int] | None = None
        self._is_working = self._is_stopped = False
        self._trouble: str | None = None

    # --- for the sensor ---

    def compare(self, course: Course) -> None:
        """Compare all test files: at the start, when the course is back."""
        self._soon(course, [path for _, path in course.test_files()], _START_S)

    def course_read(self, course: Course) -> None:
        """Compare what is new in the course, and forget what is no longer in it."""
        paths = [path for _, path in course.test_files()]
        with self._condition:
            self._answers = {path: self._answers[path] for path in paths if path in self._answers}
            new = [path for path in paths if path not in self._answers]
        self._soon(course, new, _CHANGE_S)

    def file_changed(self, course: Course, path: str) -> None:
        """Compare this file, if it is a test; and what git found changed, if HEAD has moved since."""
        step = course.step_of(path)
        paths = {path} if step is not None and path in step.tests else set()
        if self._suspects and _head_of(course.root) != self._head:
            paths |= self._suspects
        self._soon(course, paths, _CHANGE_S)

    def copy_appeared(self, course: Course, name: str) -> None:
        """Compare the tests of the step of which LearnPack makes a copy just now."""
        self._soon(course, [path for step, path in course.test_files() if _copy_name(step) == name], _COPY_S)

    def stop(self) -> None:
        with self._condition:
            self._is_stopped = True
            self._condition.notify()

    # --- when ---

    def _soon(self, course: Course, paths: Iterable[str], seconds: float) -> None:
        due = time.monotonic() + seconds
        with self._condition:
            self._course = course
            for path in paths:
                self._due[path] = min(due, self._due.get(path, due))
            if not self._due or self._is_stopped:
                return
            if self._is_working:
                self._condition.notify()
                return
            try:
                threading.Thread(target=self._work, name="originals", daemon=True).start()
            except RuntimeError as error:  # no thread can be had now: what is due stays so for the next call
                _log.warning("the tests are compared later: %s", error)
            else:
                self._is_working = True

    def _work(self) -> None:
        while (due := self._wait()) is not None:
            course, paths = due
            try:
                self._compare(course, paths)
            except Exception as error:  # whatever it is, the next file is compared again
                _log.error("the tests could not be compared: %s: %s", type(error).__name__, error, exc_info=error)

    def _wait(self) -> tuple[Course, list[str]] | None:
        """What is due, when it is; None when nothing is left to do, and then another thread has to begin anew."""
        with self._condition:
            while self._due and self._course is not None and not self._is_stopped:
                now = time.monotonic()
                first = min(self._due.values())
                if first <= now:
                    # Together with what follows at once: git is asked once for all.
                    paths = [path for path, due in self._due.items() if due <= now + _CHANGE_S]
                    for path in paths:
                        del self._due[path]
                    return self._course, paths
                self._condition.wait(first - now)
            self._is_working = False
            return None

    # --- what ---

    def _compare(self, course: Course, paths: list[str]) -> None:
        at = now_ms()
        head = _head_of(course.root)  # before git is asked: it may move meanwhile
        steps = {path: step for step, path in course.test_files()}
        tests = [test for path in paths if path in steps and (test := _read(course, steps[path], path)) is not None]
        open_questions = [test.path for test in tests if test.copy != test.fingerprints[0]]
        versions = self._ask_git(course.root, open_questions) if open_questions else Versions("", sure=False)
        new = []
        again = []
        for test in tests:
            answer = self._judge(test, versions)
            is_new = answer != self._answers.get(test.path)
            if is_new:
                new.append(answer)
            if is_new and answer.differs:
                _log.info("%s is another file than the course's (%s)", one_line(test.path), answer.compared_with)
                again.append(test.path)
            elif (answer.differs and _is_git_at_work(course.root)) or (
                test.copy is None and _is_being_copied(course, steps[test.path])
            ):
                again.append(test.path)
        with self._condition:
            if self._is_stopped:
                return
            self._answers.update((answer.path, answer) for answer in new)
            self._suspects = frozenset(
                path for path, answer in self._answers.items() if answer.differs and answer.compared_with != RESETS
            )
            self._head = head
            for path in again:
                self._due.setdefault(path, time.monotonic() + AGAIN_S)
            if new:
                self._put(TestsCompared(at, tuple(new)))

    def _judge(self, test: _Test, versions: Versions) -> ComparedTest:
        path, digest, fingerprints, copy = test
        before = self._answers.get(path)
        theirs = versions.found.get(path)
        if copy == fingerprints[0]:
            if before is not None and before.differs and before.digest == digest and before.compared_with != RESETS:
                return before  # the copy was made of the changed file
            return ComparedTest(path, digest, False, RESETS)
        if theirs in fingerprints and (copy is None or versions.sure):
            return ComparedTest(path, digest, False, versions.source)
        if copy is not None:
            return ComparedTest(path, digest, True, RESETS)
        if theirs is not None or path in versions.unknown:
            return ComparedTest(path, digest, True, versions.source)
        return ComparedTest(path, digest, None, "")

    def _ask_git(self, root: str, paths: list[str]) -> Versions:
        try:
            versions = self._versions(root, paths, _fingerprint)
        except NoAnswerError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.info("the course's own tests are not known from git: %s", one_line(self._trouble))
            return Versions("", sure=False)
        self._trouble = None
        return versions


def _read(course: Course, step: Step, path: str) -> _Test | None:
    """The file as it is now; None where there is none that can be read and compared.  A link is followed, as test
    runners do."""
    absolute = f"{course.root}/{path}"
    try:
        _, content = read_regular(absolute, CONTENT_LIMIT, follow=True)
        target = os.readlink(os.fsencode(absolute)) if os.path.islink(absolute) else None
    except OSError:
        return None  # it is gone, or nobody may read it; its next change is another occasion
    if content is None:
        return None
    fingerprints = [_fingerprint(content)]
    if target is not None:
        fingerprints.append(_fingerprint(target))
    return _Test(path, digest_of(content), tuple(fingerprints), _copy_of(course, step, path))


def _copy_of(course: Course, step: Step, path: str) -> int | None:
    try:
        _, content = read_regular(f"{_copies(course, step)}/{os.path.basename(path)}", CONTENT_LIMIT)
    except OSError:
        return None
    return None if content is None else _fingerprint(content)


def _copies(course: Course, step: Step) -> str:
    return f"{course.root}/{course.base}/resets/{_copy_name(step)}"


def _copy_name(step: Step) -> str:
    """The name that LearnPack gives to the copies of a step: its slug, as the file system spells it."""
    return step.slug if step.path == "." else os.path.basename(step.path)


def _is_being_copied(course: Course, step: Step) -> bool:
    """Whether LearnPack may still be copying: the directory got its last file a moment ago."""
    try:
        return os.stat(_copies(course, step)).st_mtime > time.time() - AGAIN_S
    except OSError:
        return False


def _is_git_at_work(root: str) -> bool:
    """Whether git rewrites files just now, or did so a moment ago: a lock that is older was left by one that died."""
    repository = repository_above(root)
    if repository is None:
        return False
    try:
        return os.stat(os.path.join(repository, "index.lock")).st_mtime > time.time() - _LONGEST_S
    except OSError:
        return False


def _head_of(root: str) -> tuple[int, int] | None:
    """Changes when HEAD moves: git writes down each time that it does.  None where that can't be seen."""
    repository = repository_above(root)
    if repository is None:
        return None
    try:
        info = os.stat(os.path.join(repository, "logs", "HEAD"))
    except OSError:
        return None  # it keeps no log, or it is another's work tree
    return info.st_mtime_ns, info.st_size
