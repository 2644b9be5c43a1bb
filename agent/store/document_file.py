"""`.learn/telemetry.json` on the disk: replaced whole or not at all, and never before what was there is taken over.

The document is streamed to `.learn/.telemetry.json.tmp`, synced and renamed, so that whoever opens the file finds
JSON, before or after.  Everything goes through a descriptor of `.learn` itself: a symbolic link in its place, or in
the file's, is refused and never written through.  On any failure the old file stays and the temporary one goes.

A document that this file did not write is foreign: LearnPack's own, or one that came with git.  `adopt` takes it
over into the journal; `write` does so too before it replaces one.  A foreign document that can't be read is copied
into the state directory first.

Known to be weak: LearnPack must not be writing while `write` runs (the caller knows whether its server is alive).  A
change between the last look and the rename, some microseconds, would be lost; one before is noticed.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..core.course import Course
from .adoption import Adoption, adopt
from .fold import LIMIT, chunks, plan
from .journal import Journal
from .json_pieces import Unreadable

DIRECTORY = ".learn"
NAME = "telemetry.json"
TEMPORARY = ".telemetry.json.tmp"

#: A file this young may be written again within the same tick of the file system's clock (4 ms on older kernels).
_TICK_MS = 50

#: What identifies the content of a file: inode, size, time of the last change in nanoseconds.
Identity = tuple[int, int, int]


class DocumentError(Exception):
    """The document could not be written or read; what was there is still there.  One line that says why."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What `adopt` did.  `seconds` is what it cost; `problem` says in words why nothing was taken, else None."""

    seconds: float
    new: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What `write` did.

    `seconds` is what it cost: the next one is due no sooner than 50 times that.  `size` is in bytes, `omitted` counts
    the runs whose texts were left out.  `adopted` counts attempts that were found in a foreign document, `aside` is
    where an unreadable one was copied to and `problem` why.
    """

    seconds: float
    size: int
    omitted: int
    adopted: int = 0
    aside: Path | None = None
    problem: str | None = None


class DocumentFile:
    """The document of one course, folded from one journal."""

    def __init__(self, root: str | os.PathLike[str], journal: Journal, *, limit: int = LIMIT) -> None:
        """`root` is the course's directory; `limit` the document's size in bytes above which texts are left out."""
        self.root = os.fspath(root)
        self.journal = journal
        self.limit = limit

    @property
    def path(self) -> str:
        return os.path.join(self.root, DIRECTORY, NAME)

    def foreign(self) -> bool:
        """Whether a document lies there that was neither written here nor adopted.  Raises DocumentError."""
        with self._directory(create=False) as directory:
            identity = None if directory is None else _identity(directory)
        return identity is not None and list(identity) not in self._known()

    def foreign_since(self, since: int) -> bool:
        """Whether somebody else wrote the document at or after `since` (ms): LearnPack, if its server began then.

        A document that can't be looked at is nobody's: `write` will say what is wrong with it.
        """
        try:
            with self._directory(create=False) as directory:
                identity = None if directory is None else _identity(directory)
                if identity is None or identity[2] // 1_000_000 < since:
                    return False
                return list(identity) != (self.journal.fact("document") or {}).get("written")
        except DocumentError:
            return False

    def adopt(self, course: Course) -> Adopted:
        """Takes over a foreign document; without one it does nothing.  Changes nothing in the course.

        A document that can't be read is no error here, because LearnPack may just be writing it: `problem` says so,
        and the next call reads it again.  Raises DocumentError, JournalError.
        """
        began = time.perf_counter()
        with self._directory(create=False) as directory:
            identity = None if directory is None else _identity(directory)
            if directory is None or identity is None or list(identity) in self._known():
                return Adopted(time.perf_counter() - began)
            try:
                adoption = self._adopt(directory, course)
            except Unreadable as error:
                return Adopted(time.perf_counter() - began, problem=str(error))
        return Adopted(time.perf_counter() - began, adoption.new)

    def write(self, course: Course, at: int) -> Written:
        """Replaces the document by the present one.  `at` is now, in milliseconds; it also names a copy set aside.

        A foreign document is adopted first, an unreadable one copied into the journal's directory.  Raises
        DocumentError, JournalError; then the old document is untouched.
        """
        began = time.perf_counter()
        adopted, aside, problem = 0, None, None
        with self._directory(create=True) as directory:
            assert directory is not None
            for _ in range(3):
                before = _identity(directory)
                if before is not None and list(before) not in self._known():
                    try:
                        adopted += self._adopt(directory, course).new
                    except Unreadable as error:
                        problem = str(error)
                        aside = self._copy_aside(directory, at) or aside
                        # So that a write that fails afterwards, again and again, leaves one copy.
                        self._note("aside", before)
                written = self._write(directory, course, at, before)
                if written is not None:
                    size, omitted = written
                    return Written(time.perf_counter() - began, size, omitted, adopted, aside, problem)
        raise DocumentError(f"{self.path}: somebody else keeps writing it")

    def _write(self, directory: int, course: Course, at: int, before: Identity | None) -> tuple[int, int] | None:
        """Size and number of runs without texts; None when the old document changed while the new one was made."""
        with suppress(FileNotFoundError):
            os.unlink(TEMPORARY, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(TEMPORARY, flags, 0o600, dir_fd=directory)
        try:
            with open(descriptor, "wb", buffering=1 << 16) as file, self.journal.snapshot():
                os.fchmod(descriptor, 0o600)
                wanted = plan(self.journal, course, at, self.limit)
                for chunk in chunks(self.journal, wanted):
                    file.write(chunk)
                file.flush()
                os.fsync(descriptor)
                made = os.fstat(descriptor)
            if _identity(directory) != before:
                os.unlink(TEMPORARY, dir_fd=directory)
                return None
            # Noted before the rename.  After a crash in between, the old document looks foreign, and adopting what
            # we wrote ourselves brings nothing new; the other way round LearnPack's could be taken for ours.
            self._note("written", (made.st_ino, made.st_size, made.st_mtime_ns))
            os.rename(TEMPORARY, NAME, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(TEMPORARY, dir_fd=directory)
            raise
        os.fsync(directory)
        return made.st_size, wanted.omitted

    def _adopt(self, directory: int, course: Course) -> Adoption:
        descriptor = _open(directory)
        try:
            identity = _identity_of(os.fstat(descriptor))
            young = time.time_ns() - identity[2] < _TICK_MS * 1_000_000
            adoption = adopt(self.journal, course, lambda offset, size: os.pread(descriptor, size, offset))
            if not young and _identity_of(os.fstat(descriptor)) == identity:
                self._note("adopted", identity)
        finally:
            os.close(descriptor)
        return adoption

    def _copy_aside(self, directory: int, at: int) -> Path | None:
        """Copies the present document into the state directory, durably.  None for an empty one: nothing to keep."""
        source = _open(directory)
        try:
            size = os.fstat(source).st_size
            if size == 0:
                return None
            for count in range(1, 1000):
                path = self.journal.path.with_name(f"telemetry-{at}{'' if count == 1 else f'-{count}'}.json")
                try:
                    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                    break
                except FileExistsError:
                    continue
            else:
                raise DocumentError(f"{self.path}: no name is left for a copy")
            try:
                while data := os.read(source, 1 << 16):
                    os.write(target, data)
                os.fsync(target)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(target)
        finally:
            os.close(source)
        return path

    def _known(self) -> list[list[int]]:
        """The identities of what was written here and of what was adopted last."""
        noted = self.journal.fact("document") or {}
        return [identity for identity in noted.values() if identity]

    def _note(self, what: str, identity: Identity) -> None:
        noted = self.journal.fact("document") or {}
        noted[what] = list(identity)
        self.journal.put_fact("document", noted)

    @contextmanager
    def _directory(self, *, create: bool) -> Iterator[int | None]:
        """A descriptor of `.learn`, None where it is missing and not to be made; OSErrors inside become ours."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = None
        try:
            root = os.open(self.root, flags)
            try:
                try:
                    descriptor = os.open(DIRECTORY, flags | os.O_NOFOLLOW, dir_fd=root)
                except FileNotFoundError:
                    if create:
                        with suppress(FileExistsError):
                            os.mkdir(DIRECTORY, dir_fd=root)
                        descriptor = os.open(DIRECTORY, flags | os.O_NOFOLLOW, dir_fd=root)
            finally:
                os.close(root)
            yield descriptor
        except OSError as error:
            raise DocumentError(f"{self.path}: {_reason(error)}") from error
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return "not a directory and file of their own (a symbolic link is not followed)"
    return error.strerror or str(error)


def _open(directory: int) -> int:
    """The document for reading.  Not blocking: a pipe of that name must not hold the agent."""
    return os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)


def _identity(directory: int) -> Identity | None:
    """What lies there, None for nothing.  Raises OSError when it is no regular file."""
    try:
        status = os.stat(NAME, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return _identity_of(status)


def _identity_of(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns
