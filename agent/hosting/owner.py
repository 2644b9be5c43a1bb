"""Whose course it is, and root working for that user.

In a student's directories root does nothing as root: what lies there may be a link to anywhere, and what root makes
there the student's agent could not open.  So root becomes that user, for good (`become`) or in a child (`as_user`).
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from ..core.course import one_line
from .manager import ManagerError, Owner

#: More than this no question has to say (bytes).
_ANSWER_LIMIT = 16 << 20


def user_of(uid: int) -> Owner:
    """Raises ManagerError where nobody has this number: the user was deleted, or the directory service is not there."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ManagerError(f"nobody has the user number {uid}") from None
    return Owner(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir)


def whoever_has(uid: int) -> Owner:
    """The same, with neither name nor home where nobody is known by this number: a container sees directories from
    outside, or the directory service is not there."""
    try:
        return user_of(uid)
    except ManagerError:
        return Owner(uid, uid, str(uid), "/")


def user_named(name: str) -> Owner:
    """By name or number.  Raises ManagerError."""
    try:
        return user_of(pwd.getpwnam(name).pw_uid)
    except KeyError:
        if name.isascii() and name.isdigit():
            return user_of(int(name))
        raise ManagerError(f"there is no user {name}") from None


def owner_of(directory: str) -> Owner:
    """Whose directory this is.  Raises ManagerError (it is a link, no directory, or nobody's), OSError."""
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise ManagerError(f"{directory}: not a directory")
    return user_of(status.st_uid)


def become(user: Owner) -> None:
    """From now on this process is that user, with that home, and root's own places are not in its environment.  Raises
    OSError: it may be half done."""
    _import_what_others_can_not_read()
    os.initgroups(user.name, user.gid)
    os.setgid(user.gid)
    os.setuid(user.uid)
    for name in [name for name in os.environ if name.startswith(("XDG_", "DBUS_SESSION_"))]:
        del os.environ[name]
    os.environ.update(HOME=user.home, USER=user.name, LOGNAME=user.name)


@cache
def _import_what_others_can_not_read() -> None:
    """A program in root's home (`pipx install` by root) is out of reach once its process is somebody else's."""
    package = Path(__file__).parent.parent
    paths = [package, *map(Path, sys.path)]
    directories = {directory for path in paths for directory in (path, *path.parents) if directory.exists()}
    if all(directory.stat().st_mode & stat.S_IXOTH for directory in directories):
        return
    for module in walk_packages([str(package)], f"{package.name}."):
        import_module(module.name)


def as_user(user: Owner, question: Callable[[], bytes], timeout_s: float) -> bytes:
    """What `question` answers, asked by that user in a child process.

    Raises ManagerError where it fails (with its words) or takes longer: what is asked are the user's files, and they
    may be anything.
    """
    _import_what_others_can_not_read()  # once, and not in each child
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as stream:
                try:
                    become(user)
                    stream.write(question())
                    code = 0
                except Exception as error:
                    stream.write(str(error).encode(errors="replace"))
        finally:
            os._exit(code)
    os.close(writing)
    try:
        answer = _read(reading, time.monotonic() + timeout_s)
    finally:
        os.close(reading)
        _, status = _ended(child)
    if answer is None:
        raise ManagerError(f"no answer within {timeout_s:.0f} s")
    if status != 0:
        raise ManagerError(f"asking failed: {one_line(answer.decode(errors='replace')) or 'it was killed'}")
    return answer


def _read(descriptor: int, end: float) -> bytes | None:
    """All that comes until the other side closes; None when the time is over or it is endless."""
    parts: list[bytes] = []
    size = 0
    while (left := end - time.monotonic()) > 0 and size <= _ANSWER_LIMIT:
        if not select.select([descriptor], [], [], left)[0]:
            break
        part = os.read(descriptor, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
    return None


def _ended(child: int) -> tuple[int, int]:
    """The child is over, killed if it is not: it has said all that is wanted of it."""
    found = os.waitpid(child, os.WNOHANG)
    for _ in range(20):
        if found != (0, 0):
            return found
        time.sleep(0.01)
        found = os.waitpid(child, os.WNOHANG)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)
