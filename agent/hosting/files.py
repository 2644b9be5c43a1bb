"""Where the program and the files for service managers are installed."""

from __future__ import annotations

import os
import stat
import sysconfig

from .manager import ManagerError

#: Where the Debian package has the program: the name that unit files use as they stand.
PACKAGED = "/usr/bin/learnpack-agent"

#: Looked up before this process may become a user who can't read where Python is.
_SCRIPTS, _DATA = sysconfig.get_path("scripts"), sysconfig.get_path("data")


def program() -> str:
    """The absolute path of `learnpack-agent` as a service manager starts it.  Raises ManagerError."""
    own = os.path.join(_SCRIPTS, "learnpack-agent")
    if not os.path.exists(own):
        raise ManagerError(f"there is no {own}: install the agent (`pip install`), it was started from its sources")
    return PACKAGED if os.path.realpath(PACKAGED) == os.path.realpath(own) else own


def shared(kind: str) -> str:
    """The directory of the files for "systemd" or "launchd": as setup.cfg installs them, else those of the sources."""
    installed = os.path.join(_DATA, "share", "learnpack-agent", kind)
    if os.path.isdir(installed):
        return installed
    return os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), kind)


def content_of(path: str) -> bytes | None:
    """Of a unit or a property list; None where it can't be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(1 << 20)
    except OSError:
        return None


def names_in(directory: str) -> list[str]:
    """In their order; none where there is no such directory.  Raises ManagerError where it can't be read."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ManagerError(f"{directory}: {error.strerror}") from None


def why_not_for_all(path: str) -> str | None:
    """Why this program of root's is none for everybody: somebody else could make another of it, or can't run it.  None:
    it is one."""
    while True:
        status = os.lstat(path)
        is_link, is_directory = stat.S_ISLNK(status.st_mode), stat.S_ISDIR(status.st_mode)
        is_writable = status.st_mode & 0o022 and not is_link and not (is_directory and status.st_mode & stat.S_ISVTX)
        if status.st_uid != 0 or is_writable:
            return f"others than root can change {path}"
        if not status.st_mode & 0o001:
            return f"nobody but root gets to {path}" if is_directory else f"nobody but root can run {path}"
        if is_link and (why := why_not_for_all(os.path.realpath(path))) is not None:
            return why
        above = os.path.dirname(path)
        if above == path:
            return None
        path = above
