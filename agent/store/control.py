"""What was said to the agent of a course while it runs or before it starts: `control.json` in the state directory.

Written by the commands (`pause`, `resume`, `consent`, `send`, `forget`), read by the agent at its start and when it
gets SIGUSR1.  It holds wishes and states, no commands in a row, so what was said twice or while no agent ran has the
same effect.  What was done about `send_at` and `forget_at` is the agent's to remember.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import orjson

NAME = "control.json"

#: A pause without an end.
FOR_EVER = 0


@dataclass(frozen=True, slots=True)
class Control:
    """All times in ms.  From `silent_since` to `silent_until` nothing is recorded (None: there was never a pause; 0:
    until somebody resumes).  `consent` None: never asked.  `send_at`: when somebody last wanted what waits to be
    sent, with `send_to_all` also to servers that failed; `forget_at`: when to erase everything."""

    silent_since: int = 0
    silent_until: int | None = None
    consent: bool | None = None
    send_at: int = 0
    send_to_all: bool = False
    forget_at: int = 0

    def why_silent(self, now: int, *, needs_consent: bool) -> str | None:
        """Why nothing is recorded and sent now, in words; None: it is."""
        if self.consent is False:
            return "the student said no"
        if needs_consent and self.consent is None:
            return "the student was not asked yet (learnpack-agent consent yes)"
        if self.silent_until is not None and (self.silent_until == FOR_EVER or now < self.silent_until):
            return "paused"
        return None

    @property
    def silence(self) -> tuple[int, int] | None:
        """The last time in which nothing was to be recorded, when it is over."""
        return (self.silent_since, self.silent_until) if self.silent_until else None


def read_control(directory: str | os.PathLike[str]) -> Control:
    """What was said; nothing where there is no such file.  Raises OSError; ValueError where it is damaged: what it said
    is not known then, and it may have been "no"."""
    try:
        with open(os.path.join(directory, NAME), "rb", opener=_without_waiting) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ValueError(f"{NAME} is damaged: it is no regular file")
            found = orjson.loads(stream.read(65_536))
    except FileNotFoundError:
        return Control()
    except orjson.JSONDecodeError:
        raise ValueError(f"{NAME} is damaged: it is no JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"{NAME} is damaged: it is no object")
    known = {field.name: found[field.name] for field in fields(Control) if field.name in found}
    for key, value in known.items():
        if type(value) not in _TYPES.get(key, (int,)):
            raise ValueError(f"{NAME} is damaged: {key} is of a wrong kind")
    return Control(**known)


def _without_waiting(path: str, flags: int) -> int:
    """For the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


_TYPES: dict[str, tuple[type, ...]] = {
    "consent": (bool, type(None)),
    "silent_until": (int, type(None)),
    "send_to_all": (bool,),
}


def change_control(directory: str | os.PathLike[str], **changes: Any) -> Control:
    """Say something; what else was said stays, and where that can't be read any more the student said no.

    Returns all of it, which is durable then.  Raises OSError.
    """
    with _locked(directory) as locked:
        try:
            control = replace(read_control(directory), **changes)
        except ValueError:
            control = replace(Control(consent=False), **changes)
        path = os.path.join(directory, NAME)
        # Root writes here in a directory that is a student's: nothing that lies there is written to.
        with suppress(FileNotFoundError):
            os.unlink(f"{path}.tmp")
        descriptor = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            if os.geteuid() == 0:  # said by root, for the student's agent
                owner = os.stat(directory)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            stream.write(orjson.dumps(asdict(control)) + b"\n")
            stream.flush()
            os.fsync(descriptor)
        os.replace(f"{path}.tmp", path)
        os.fsync(locked)
    return control


@contextmanager
def _locked(directory: str | os.PathLike[str]) -> Iterator[int]:
    # Not through a link: see Lock.acquire.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
