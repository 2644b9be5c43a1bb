"""One agent per course: a lock on the file `lock` in the state directory.

The kernel holds the lock (flock), so it ends with the process, however that ends, and a stale file means nothing.
The file is never deleted: whoever waits on a deleted file would hold a lock that nobody else sees.  A child made by
fork shares the lock; a program started by exec does not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

NAME = "lock"


class AlreadyRunning(Exception):
    """Another agent holds the lock; `pid` is its process, 0 where it could not be read."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"an agent is already running for this course (process {pid or 'unknown'})")
        self.pid = pid


class Lock:
    """Held from `acquire` to `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, directory: str | os.PathLike[str]) -> Lock:
        """Takes the lock in this directory, which must exist.

        Raises AlreadyRunning, or OSError: also where the directory is a link, because what is in it is the agent's
        alone, to move and to erase.
        """
        if os.path.islink(directory):
            raise NotADirectoryError(errno.ENOTDIR, "it is a link, and no directory", os.fspath(directory))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(os.path.join(directory, NAME), flags, 0o600)
        try:
            if not _locked(descriptor):
                raise AlreadyRunning(_pid_in(descriptor))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _locked(descriptor: int) -> bool:
    """Takes the exclusive lock.  Tries for 50 ms, because `holder` has a shared one for some microseconds."""
    for attempt in range(6):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if attempt < 5:
                time.sleep(0.01)
    return False


def _pid_in(descriptor: int) -> int:
    pid = os.pread(descriptor, 20, 0).strip()
    return int(pid) if pid.isdigit() else 0


def holder(directory: str | os.PathLike[str]) -> int | None:
    """The process that holds the lock, 0 where it could not be read; None when nobody does.  Changes nothing."""
    try:
        # O_NONBLOCK: where it is a pipe nobody waits for its other end.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(os.path.join(directory, NAME), flags)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(descriptor)
    finally:
        os.close(descriptor)
    return None
