"""Does what a service manager's plan says, or shows it."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence

from .manager import Action, ManagerError, Remove, Run, Write

#: A manager that takes longer hangs.
PATIENCE_S = 120


def perform(actions: Iterable[Action]) -> None:
    """Do all of it in this order.  Raises ManagerError; what was done before stays."""
    umask = os.umask(0o022)  # who manages agents is no secret: students ask for theirs, whatever root's own umask is
    try:
        for action in actions:
            match action:
                case Write():
                    _write(action)
                case Remove():
                    _remove(action.path)
                case Run():
                    run(action.argv, may_fail=action.may_fail)
    finally:
        os.umask(umask)


def shown(actions: Iterable[Action]) -> Iterator[str]:
    """The same as a shell would be told it."""
    for action in actions:
        match action:
            case Write():
                yield f"# write {action.path} (mode {action.mode:04o})"
                yield from ("    " + line for line in action.content.decode(errors="replace").splitlines())
            case Remove():
                yield f"# remove {action.path}"
            case Run():
                yield shlex.join(action.argv) + (" || true" if action.may_fail else "")


def run(argv: Sequence[str], *, may_fail: bool = False) -> str:
    """What the command prints.  Raises ManagerError with its own words where it fails."""
    import subprocess

    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S)
    except OSError as error:
        if may_fail:
            return ""
        raise ManagerError(f"{argv[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ManagerError(f"{shlex.join(argv)}: no answer within {PATIENCE_S} s") from None
    if done.returncode and not may_fail:
        words = " ".join(done.stderr.decode(errors="replace").split()) or f"exit code {done.returncode}"
        raise ManagerError(f"{shlex.join(argv)}: {words}")
    return done.stdout.decode(errors="replace")


def _write(action: Write) -> None:
    """Whole or not at all, and never through a link that somebody put there."""
    try:
        with open(os.open(action.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
            if stream.read() == action.content and os.fstat(stream.fileno()).st_mode & 0o7777 == action.mode:
                return
    except OSError:
        pass  # not there, or not like this
    new = f"{action.path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(action.path), exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(action.content)
                stream.flush()
                os.fchmod(descriptor, action.mode)
                os.fsync(descriptor)
            os.replace(new, action.path)
        except BaseException:
            os.unlink(new)
            raise
    except OSError as error:
        raise ManagerError(f"{action.path}: {error.strerror}") from None


def _remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # with an admin's own settings in it, it stays
            raise ManagerError(f"{path}: {error.strerror}") from None
