"""Asks git for files as they came with the course.

Promised: git is only asked, by a few short processes that together take 5 s at most.  They are plumbing that reads
commits and objects and (`tracking_of`) the index, no work tree, so no lock is taken and nothing is written, and of
what a student's configuration can make git start (hooks, filters, textconv, external diffs, fsmonitor, pagers, gpg)
nothing is.  An object that a partial clone doesn't hold is missing; it is not fetched.  A repository that git itself
refuses (another user's, `safe.directory`) is refused.

HEAD is not the course: it moves when the student commits.  What came with the course is looked for here:

1. Commits that no remote has are the student's, whoever they say they are from.  Below them,
2. the newest commit that is not from the student's address (`user.email`): so a fork to which the student pushed, or
   a copy that somebody else made for the student, is seen through.
3. Where all commits are the student's: the newest that a remote has; without a remote (`git init` in a course that
   was downloaded) the oldest version of each file.

Known to be weak: a student who commits under several addresses and pushes that; a file that the student changed before
the first commit; the author of a course who works in it, for whom the newest commit of somebody else counts; files
that a filter (git-crypt) stores in another form, which look changed (the pointers of git-lfs are known).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..child import ask

#: All of git's processes for one question together.
_PATIENCE_S = 5.0
#: 100 test files are some 200 kB; a course of 4Geeks' has 20 to 60 kB of them.
_LIMIT = 8 << 20
#: How far back the newest commit of somebody else is looked for: at first (it is the first one, as a rule), and then.
_HISTORY = (20, 5000)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class NoAnswerError(Exception):
    """git can't tell; the message says why, in words."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What git has of the files that were asked for.

    `found` holds what `fingerprint` made of the course's own version of each; `unknown` are files that the course
    doesn't have although it has a README beside them: somebody added them.  `source` says in words where this is from.
    Not `sure`: it may be the student's own commit.
    """

    source: str
    sure: bool
    found: Mapping[str, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()


def repository_above(root: str) -> str | None:
    """The `.git` of the nearest repository that this directory lies in, if any."""
    path = root
    while True:
        if os.path.lexists(found := os.path.join(path, ".git")):
            return found
        above = os.path.dirname(path)
        if above == path:
            return None
        path = above


def course_versions(root: str, paths: Sequence[str], fingerprint: Callable[[bytes], int]) -> Versions:
    """The course's own versions of these files (paths relative to `root`).  Raises NoAnswerError."""
    if repository_above(root) is None:
        raise NoAnswerError("the course is in no git repository")
    git = _Git(root, time.monotonic() + _PATIENCE_S)
    origin = _origin(git)
    asked = [path for path in paths if "\n" not in path]
    directories = list(dict.fromkeys(os.path.dirname(path) for path in asked))
    names = [origin.blobs.get(path, f"{origin.commit}:./{path}") for path in asked]
    names += [f"{origin.commit}:./{directory}" for directory in directories]
    # It dies at the first object that a partial clone doesn't hold; what it told before holds all the same.
    answers = _objects(
        git("cat-file", "--batch", given=b"".join(os.fsencode(name) + b"\n" for name in names), may_fail=True)
    )
    found: dict[str, int] = {}
    missing: list[str] = []
    for path in asked:
        one = next(answers, _CUT)
        if one is None:
            missing.append(path)
        elif one.kind == b"blob" and not one.content.startswith(_LFS_POINTER):
            found[path] = fingerprint(one.content)
    beside = {
        directory: _names(one)
        for directory in directories
        if (one := next(answers, _CUT)) is not None and one.kind == b"tree"
    }
    unknown = frozenset(path for path in missing if _is_added(path, beside.get(os.path.dirname(path), frozenset())))
    return Versions(origin.words, origin.is_sure, found, unknown)


@dataclass(frozen=True, slots=True)
class Tracking:
    """How git takes a file.  `pattern` in `exclude_file`, which is of this clone only, would have it ignored."""

    is_tracked: bool
    is_ignored: bool
    pattern: str
    exclude_file: str


def tracking_of(root: str, path: str) -> Tracking:
    """How git takes the file at this path, relative to `root`, whether it is there or not.  Raises NoAnswerError."""
    git = _Git(root, time.monotonic() + _PATIENCE_S)
    prefix, exclude_file = git("rev-parse", "--show-prefix", "--git-path", "info/exclude").split(b"\n")[:2]
    is_tracked = bool(git("ls-files", "-z", "--", f":(literal){path}"))
    is_ignored = bool(git("check-ignore", "--no-index", "-z", "--stdin", given=os.fsencode(path), may_fail=True))
    full = os.fsdecode(prefix) + path
    pattern = _SPECIAL.sub(r"\\\g<0>", full)
    exclude = os.path.normpath(os.path.join(root, os.fsdecode(exclude_file)))
    return Tracking(is_tracked, is_ignored, pattern, exclude)


#: What means something else in a line of an exclude file.  (A path with a slash is taken from the repository's top.)
_SPECIAL = re.compile(r"[\\*?\[\]]|^[#!]|\s\Z")


def _is_added(path: str, beside: frozenset[str]) -> bool:
    """Whether a file that is missing does not belong to the course, which has these names in its directory.  What has
    a name there and is missing all the same was lost."""
    return os.path.basename(path) not in beside and any(name.lower().startswith("readme") for name in beside)


# --- where the course's own files are ---


@dataclass(frozen=True, slots=True)
class _Origin:
    """The commit that holds the course as it came; `blobs` are objects of single files that are older."""

    commit: str
    words: str
    is_sure: bool
    blobs: Mapping[str, str] = field(default_factory=dict)


def _origin(git: _Git) -> _Origin:
    starts, is_published = _published(git)
    # Of several commits, none may come before its descendants, although many are of one second.  That takes longer.
    order = ["--date-order"] if len(starts) > 1 else []
    student = git("config", "--get", "user.email", may_fail=True).strip().lower()
    history: list[tuple[str, bytes]] = []
    for count in _HISTORY:
        history = list(_commits(git("rev-list", "--format=%ae", f"--max-count={count}", *order, *starts)))
        other = next((commit for commit, author in history if not student or author.lower() != student), None)
        if other is not None:
            return _Origin(other, f"git's commit {other[:10]}", is_sure=is_published or bool(student))
        if len(history) < count:
            break
    if not history:
        raise NoAnswerError("git lists no commit")
    newest = history[0][0]
    if is_published or len(history) == _HISTORY[-1]:
        return _Origin(newest, f"git's commit {newest[:10]}", is_sure=False)
    blobs = _oldest(git, [commit for commit, _ in history])
    return _Origin(newest, "the oldest version in git", is_sure=True, blobs=blobs)


def _published(git: _Git) -> tuple[list[str], bool]:
    """The newest commits of the work at hand that a remote has, and True; else HEAD, and False."""
    count = _HISTORY[-1]
    commits = list(
        _commits(git("rev-list", "--boundary", "--format=%ae", f"--max-count={count}", "HEAD", "--not", "--remotes"))
    )
    border = [commit[1:] for commit, _ in commits if commit.startswith("-")]
    if not commits:
        return ["HEAD"], True
    if not border or len(commits) - len(border) >= count:
        return ["HEAD"], False
    return border, True


def _commits(listed: bytes) -> Iterator[tuple[str, bytes]]:
    """`rev-list --format`: a line "commit <id>" (with a "-" before the id of a boundary), and one of the format."""
    lines = iter(listed.split(b"\n"))
    for line in lines:
        if line.startswith(b"commit "):
            yield line[7:].decode("ascii", "replace"), next(lines, b"")


def _oldest(git: _Git, commits: Sequence[str]) -> dict[str, str]:
    """The object of each file of the course as it first was, from commits in git's order (the newest first)."""
    listed = git(
        *("diff-tree", "--stdin", "--no-commit-id", "-r", "--root", "--raw", "-z", "--no-renames", "--diff-filter=A"),
        *("--no-ext-diff", "--no-textconv", "--relative"),
        given="".join(commit + "\n" for commit in commits).encode(),
    )
    oldest: dict[str, str] = {}
    fields = iter(listed.split(b"\0"))
    for change in fields:
        words = change.split(b" ")
        if change.startswith(b":") and len(words) == 5:
            oldest[os.fsdecode(next(fields, b""))] = words[3].decode("ascii", "replace")
    return oldest


# --- git itself ---


@dataclass(frozen=True, slots=True)
class _Git:
    """git in one directory, until a time on the monotonic clock (s)."""

    root: str
    until: float

    def __call__(self, *arguments: str, given: bytes = b"", may_fail: bool = False) -> bytes:
        """What it prints.  Raises NoAnswerError."""
        command = ["git", "-C", self.root, "-c", "core.fsmonitor=false", *arguments]
        try:
            answer = ask(command, _environment(), given, until=self.until, limit=_LIMIT)
        except OSError as error:
            raise NoAnswerError(f"git can't be started: {error.strerror}") from None
        if answer.code is None and len(answer.stdout) < _LIMIT:
            raise NoAnswerError(f"git {arguments[0]} did not answer within {_PATIENCE_S:.0f} s")
        if answer.code and not may_fail:
            words = answer.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
            raise NoAnswerError(f"git {arguments[0]} ended with {answer.code}: {words}")
        return answer.stdout


def _environment() -> dict[str, str]:
    """The student's, without what points git somewhere else or makes it write (GIT_DIR, GIT_TRACE)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(_KEPT)}
    return {**kept, **_QUIET}


_KEPT = ("GIT_CONFIG", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM")
_QUIET: Mapping[str, str] = {
    "LC_ALL": "C",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",  # git 2.39.4, 2.45; before, no transport is allowed by the next line
    "GIT_ALLOW_PROTOCOL": "none",
}


@dataclass(frozen=True, slots=True)
class _Object:
    kind: bytes
    content: bytes
    id_size: int = 20


#: Stands for what did not come: the answer was too long, or its form is not known.
_CUT = _Object(b"", b"")


def _objects(answer: bytes) -> Iterator[_Object | None]:
    """`cat-file --batch`, in the order of asking: `<id> <kind> <size>`, the content, a line break; None is missing."""
    at = 0
    while (end := answer.find(b"\n", at)) >= 0:
        header = answer[at:end].split(b" ")
        at = end + 1
        if header[-1] == b"missing":
            yield None
        elif len(header) == 3 and header[2].isdigit() and at + int(header[2]) < len(answer):
            size = int(header[2])
            yield _Object(header[1], answer[at : at + size], len(header[0]) // 2)
            at += size + 1
        else:
            return


def _names(tree: _Object) -> frozenset[str]:
    """A tree is `<mode> <name> NUL <id>`, again and again."""
    names = set()
    at = 0
    while (end := tree.content.find(b"\0", at)) >= 0:
        names.add(os.fsdecode(tree.content[at:end].partition(b" ")[2]))
        at = end + 1 + tree.id_size
    return frozenset(names)
