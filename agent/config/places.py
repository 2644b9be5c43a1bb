"""Where configurations and journals lie on this machine, for this user.

Known to be weak: a course that is moved gets another directory, because its key is made of its path.
"""

from __future__ import annotations

import binascii
import os
import stat
import sys
from collections.abc import Mapping

from ..core.course import printable
from .settings import Config

#: The admin's: config.toml in it, and config.d/*.toml.
SYSTEM_DIRECTORY = "/etc/learnpack-agent"
#: Here a system-wide service keeps the journals of each user in a directory of that user's (`StateDirectory=`).
SYSTEM_STATE_DIRECTORY = (
    "/Library/Application Support/learnpack-agent" if sys.platform == "darwin" else "/var/lib/learnpack-agent"
)


def user_file(environment: Mapping[str, str]) -> str:
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(_home(environment), ".config")
    return os.path.join(base, "learnpack-agent", "config.toml")


def default_state_dir(environment: Mapping[str, str]) -> str:
    """Where journals are kept if nobody says it."""
    # systemd names the directory of `StateDirectory=` in $STATE_DIRECTORY (several are separated by ":").
    if environment.get("STATE_DIRECTORY"):
        return environment["STATE_DIRECTORY"].split(":")[0]
    # What the system's service recorded for this user: so the student's own `status` finds it.
    ours = os.path.join(SYSTEM_STATE_DIRECTORY, str(os.geteuid()))
    if _is_our_directory(ours):
        return ours
    base = environment.get("XDG_STATE_HOME") or os.path.join(_home(environment), ".local", "state")
    return os.path.join(base, "learnpack-agent")


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")


def _is_our_directory(path: str) -> bool:
    """A symbolic link is none: nobody else is to choose where we write."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def course_key(root: str) -> str:
    """The name of a course's directory in the state directory: readable, and one per absolute path."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in printable(os.path.basename(root)))
    # A checksum tells courses of one name apart; hashlib would cost 3.4 MB of OpenSSL in every agent.
    return f"{name[:48] or 'course'}-{binascii.crc32(os.fsencode(root)):08x}"


def course_state_dir(config: Config, root: str) -> str:
    return os.path.join(config.state_dir, course_key(root))
