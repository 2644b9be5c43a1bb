"""`telemetry.json` as a file in LearnPack's directory: looked at, replaced whole or not at all, copied aside.

LearnPack's directory is `.learn`, in older courses `.breathecode`: `base` of the course.

Promised: a replacement is streamed to `.telemetry.json.tmp` in it, synced and renamed, so that whoever opens the file
finds JSON, before or after; on any failure the old file stays and the temporary one goes.  Everything goes through a
descriptor of that directory itself: a symbolic link in its place, or in the file's, is refused, never written through.
What replaces a file of another user's (root repairs a student's course) belongs to that user again.

Known to be weak: a change between the last look and the rename, some microseconds, would be lost; one before is
noticed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "telemetry.json"
TEMPORARY = ".telemetry.json.tmp"

#: What identifies the content of a file: inode, size, time of the last change in nanoseconds.
Identity = tuple[int, int, int]


class DocumentError(Exception):
    """The document could not be written or read; what was there is still there.  One line that says why.

    Where the system refused, the OSError is its `__cause__`.
    """


def path_in(root: str, base: str) -> str:
    return os.path.join(root, base, NAME)


@contextmanager
def directory_of(root: str, base: str, *, create: bool) -> Iterator[int | None]:
    """A descriptor of LearnPack's directory, None where it is missing and not to be made; OSErrors inside become
    ours."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = None
    try:
        above = os.open(root, flags | os.O_NOFOLLOW)  # it is a real path
        try:
            try:
                descriptor = os.open(base, flags | os.O_NOFOLLOW, dir_fd=above)
            except FileNotFoundError:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(base, dir_fd=above)
                    descriptor = os.open(base, flags | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
        yield descriptor
    except OSError as error:
        raise DocumentError(f"{path_in(root, base)}: {_reason(error)}") from error
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return "not a directory and file of their own (a symbolic link is not followed)"
    return error.strerror or str(error)


def opened(directory: int) -> int:
    """The document for reading.  Not blocking: a pipe of that name must not hold the agent."""
    return os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)


def identity_in(directory: int) -> Identity | None:
    """What lies there, None for nothing.  Raises OSError when it is no regular file."""
    try:
        status = os.stat(NAME, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return identity_of(status)


def identity_of(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns


def content_of(descriptor: int, limit: int) -> bytes | None:
    """All bytes of an open file; None where there are more than `limit`."""
    parts: list[bytes] = []
    size = 0
    while data := os.pread(descriptor, 1 << 22, size):
        size += len(data)
        if size > limit:
            return None
        parts.append(data)
    return b"".join(parts)


def replaced(
    directory: int, chunks: Iterable[bytes], before: Identity | None, note: Callable[[Identity], None]
) -> int | None:
    """The new size; None, and nothing is changed, when what lies there is not `before` any more.

    `note` is told what the new file will be known by, just before it takes the place of the old one.
    """
    with suppress(FileNotFoundError):
        os.unlink(TEMPORARY, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(TEMPORARY, flags, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb", buffering=1 << 16) as file:
            os.fchmod(descriptor, 0o600)
            _give_to_the_owner(directory, descriptor)
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(descriptor)
            made = os.fstat(descriptor)
        if identity_in(directory) != before:
            os.unlink(TEMPORARY, dir_fd=directory)
            return None
        note(identity_of(made))
        os.rename(TEMPORARY, NAME, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(TEMPORARY, dir_fd=directory)
        raise
    os.fsync(directory)
    return made.st_size


def _give_to_the_owner(directory: int, descriptor: int) -> None:
    """Only root can, and only root has to: a file of root's with mode 0600 would stop LearnPack's telemetry."""
    if os.geteuid() == 0:
        try:
            status = os.stat(NAME, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            status = os.fstat(directory)
        os.fchown(descriptor, status.st_uid, status.st_gid)


def copied_aside(directory: int, state: Path, at: int) -> Path | None:
    """Copies the present document into the state directory, durably.  None for an empty one: nothing to keep."""
    source = opened(directory)
    try:
        if os.fstat(source).st_size == 0:
            return None
        for count in range(1, 1000):
            path = state / f"telemetry-{at}{'' if count == 1 else f'-{count}'}.json"
            try:
                target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
            except FileExistsError:
                continue
        else:
            raise DocumentError(f"{state}: no name is left for a copy of the document")
        try:
            with open(target, "wb", buffering=0) as file:
                while data := os.read(source, 1 << 16):
                    while data:  # the last room of a disk takes a part
                        data = data[file.write(data) :]
                os.fsync(target)
        except BaseException:
            os.unlink(path)
            raise
    finally:
        os.close(source)
    return path
