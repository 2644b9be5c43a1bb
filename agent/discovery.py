"""Finds the courses below some directories, and says what has to change so that each is watched.

A course is a directory with a learn.json (or bc.json, or .learn/learn.json) that is a regular file.  Nothing is read
but directories, no link is followed, nothing below a course or in what is hidden or generated is looked at.  What a
student makes there is bounded: so many directories in each home, so deep, so many courses of each user; the rest is
said, not silently left out.  Only looking, as whoever calls: who becomes whose agent is decided by the owner of the
directory.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from .hosting.manager import Instance
from .sensors.picture import ENVIRONMENT_MARK, SKIPPED_DIRECTORIES

#: A home below the root, projects in it, courses in those, and two more.
DEPTH = 6
#: In each directory directly below a root (a home).
DIRECTORIES = 20_000
_MARKS = (("learn.json",), (".learn", "learn.json"), ("bc.json",))


@dataclass(frozen=True, slots=True)
class Found:
    """A course at its real, absolute path, whose directory belongs to `uid`."""

    path: str
    uid: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A place that was not looked at to the end, or a course that gets no agent, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What is to be done: courses without an agent, agents without a course, agents that run as another user than the
    course's, and courses that get none."""

    new: tuple[Found, ...]
    gone: tuple[Instance, ...]
    moved: tuple[Found, ...]
    skipped: tuple[Skipped, ...]


def find_courses(roots: Iterable[str]) -> Iterator[Found | Skipped]:
    """Each course below these directories once, in the order of their paths.  Never raises."""
    seen: set[str] = set()
    for root in roots:
        real = os.path.realpath(root)
        if not os.path.isdir(real):
            yield Skipped(root, "no such directory")
            continue
        for found in _below(real):
            if found.path not in seen:
                seen.add(found.path)
                yield found


def _below(root: str) -> Iterator[Found | Skipped]:
    own = _course_at(root)
    if own is not None:
        yield own
        return
    try:
        homes = _directories(root)
    except OSError as error:
        yield Skipped(root, error.strerror or "can't be read")
        return
    for home in homes:
        yield from _in_home(home)


def _in_home(home: str) -> Iterator[Found | Skipped]:
    left = DIRECTORIES
    waiting = [(home, 1)]
    while waiting:
        directory, depth = waiting.pop()
        if (found := _course_at(directory)) is not None:
            yield found
            continue
        if depth >= DEPTH:
            continue
        try:
            below = _directories(directory, left)
        except OSError:
            continue  # unreadable or gone: nobody's course for us
        left -= len(below)
        if not left:
            yield Skipped(home, f"{DIRECTORIES} directories or more: the rest was not looked at")
            return
        waiting += [(path, depth + 1) for path in reversed(below)]


def _directories(path: str, at_most: int | None = None) -> list[str]:
    """Those in which a course may lie, by name; where there are more, any so many of them."""
    with os.scandir(path) as entries:
        found = (entry.path for entry in entries if entry.is_dir(follow_symlinks=False) and _may_hold(entry))
        return sorted(islice(found, at_most))


def _may_hold(entry: os.DirEntry[str]) -> bool:
    return not (
        entry.name.startswith(".")
        or entry.name in SKIPPED_DIRECTORIES
        or os.path.lexists(os.path.join(entry.path, ENVIRONMENT_MARK))
    )


def _course_at(directory: str) -> Found | None:
    for mark in _MARKS:
        try:
            if stat.S_ISREG(os.lstat(os.path.join(directory, *mark)).st_mode):
                return Found(directory, os.lstat(directory).st_uid)
        except OSError:
            continue
    return None


def is_below(path: str, roots: Iterable[str]) -> bool:
    return any(os.path.commonpath((path, root)) == root for root in map(os.path.realpath, roots))


def was_deleted(course: str, roots: Iterable[str]) -> bool:
    """Whether there is nothing any more.  Not so where it was only not found: too deep, hidden, or behind so many
    others; nor while its home is missing or empty, because then the home may just not be mounted."""
    if _course_at(course) is not None:
        return False
    root = max((root for root in map(os.path.realpath, roots) if is_below(course, [root])), key=len, default="/")
    first, _, rest = os.path.relpath(course, root).partition("/")
    try:
        with os.scandir(os.path.join(root, first) if rest else root) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def difference(
    found: Iterable[Found | Skipped],
    instances: Sequence[Instance],
    roots: Sequence[str],
    *,
    per_user: int,
    users: Collection[int] | None = None,
) -> Difference:
    """`gone` are those that were not found (`was_deleted` knows more).  `users`: who may have agents here, None for
    everybody but root.  An agent whose user somebody chose stays as it
    is while its course is there, and one outside the roots is not touched."""
    courses = [one for one in found if isinstance(one, Found)]
    skipped = [one for one in found if isinstance(one, Skipped)]
    installed = {one.course: one for one in instances}
    there = {one.path for one in courses}
    counts = Counter(one.uid for one in instances if one.course in there)
    new: list[Found] = []
    moved: list[Found] = []
    for course in courses:
        instance = installed.get(course.path)
        if instance is not None:
            if not instance.is_chosen and instance.uid != course.uid and course.uid != 0:
                moved.append(course)
        elif users is not None and course.uid not in users:
            skipped.append(Skipped(course.path, "it is another user's"))
        elif users is None and course.uid == 0:
            skipped.append(Skipped(course.path, "it is root's, and no student's: `install --user NAME` names one"))
        elif counts[course.uid] >= per_user:
            skipped.append(Skipped(course.path, f"its user has {per_user} agents already (discover_per_user)"))
        else:
            counts[course.uid] += 1
            new.append(course)
    gone = [one for one in instances if one.course not in there and is_below(one.course, roots)]
    return Difference(tuple(new), tuple(gone), tuple(moved), tuple(skipped))
