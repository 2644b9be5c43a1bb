"""What of a course is watched, and what a file looked like.

Rule 1: the tables of names live here, and nothing else decides what is ignored.  `Scope` answers which directories
are watched and which files in them are looked at; `look` reads one file as it is now.  Who is watching, and what
follows from a difference, lives in `files/`.

A file's content is remembered as Python's own 64-bit hash of its bytes: it costs no import (hashlib brings OpenSSL,
3.9 MB), and the picture never leaves this process, for which alone that hash holds.  Files of more than 1 MiB are
compared by size, time and inode only, so a `touch` of such a file counts as a change.

No symbolic link is followed, no lock is taken, nothing but regular files is opened.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import NamedTuple

#: Larger files are compared without reading them.
CONTENT_LIMIT = 1 << 20
#: LearnPack's own JSON is read whole up to this size; vscode_queue.json of a long session has some 10 kB.
LEARNPACK_LIMIT = 8 << 20

#: Where LearnPack builds what it shows in its preview window, in its own directory.
PREVIEWS = "dist"

#: A limit that no file keeps to, not even an empty one: it is compared by size, time and inode only.
UNREAD = -1

#: LearnPack's own directory; the first one that exists counts.
BASES = (".breathecode", ".learn")

#: Names of directories that hold nothing a student writes, at any depth.  Hidden ones are skipped besides, and
#: virtual environments by their `pyvenv.cfg`.
SKIPPED_DIRECTORIES = frozenset(
    ("node_modules", "bower_components", "__pycache__", "site-packages", "_app", "dist", "__MACOSX")
)

#: The file that makes a directory a Python virtual environment (PEP 405).
ENVIRONMENT_MARK = "pyvenv.cfg"

#: Files that editors and tools make for a moment, or keep beside the real one.
_TRANSIENT = re.compile(
    r"""
      .*~                                # vim, emacs, nano: the backup
    | 4913                               # vim tries whether it can write in the directory
    | .*\.(?:swp|swo|swx|tmp|temp|part|pyc|pyo|bak)   # vim, savers by rename, downloads, Python
    | .*\.(?:pyc|js|json|py|html|css|md|txt)\.\d+(?:\.\w+)?  # `app.py.1234`: written, then renamed to app.py
    | \.?\#.*\#? | .*\.kate-swp          # emacs's lock and autosave, kate
    | sed[A-Za-z0-9]{6}                  # sed -i
    | .*___jb_(?:tmp|old)___             # JetBrains
    | \.goutputstream-.* | \.nfs[0-9a-f]+ | \.fuse_hidden.*
    | \.watchman-cookie-.* | pytest-cache-files-.*
    | \.telemetry\.json\..* | \.DS_Store
    """,
    re.VERBOSE | re.DOTALL,
)

#: Files in the root (and learn.json in LearnPack's directory) that change what the course is.
COURSE_FILES = frozenset(
    (
        "learn.json",
        "bc.json",
        "package.json",
        "pytest.toml",
        ".pytest.toml",
        "pytest.ini",
        ".pytest.ini",
        "pyproject.toml",
        "tox.ini",
        "setup.cfg",
    )
)

#: Files of LearnPack's directory that are read.
LEARNPACK_FILES = frozenset(("config.json", "vscode_queue.json", "learn.json"))

#: LearnPack's own telemetry in its directory: only noticed here, `agent.store` reads and writes it.
DOCUMENT = "telemetry.json"


def is_transient(name: str) -> bool:
    """Whether a file of this name is a tool's own: a swap file, a backup, half of a save."""
    return _TRANSIENT.fullmatch(name) is not None


def is_course_file(name: str) -> bool:
    return name in COURSE_FILES or name.startswith("jest.config.")


def joined(directory: str, name: str) -> str:
    """Relative paths: "." is the root."""
    return name if directory == "." else f"{directory}/{name}"


def parent_of(path: str) -> str:
    """The directory of a relative path; "." for a name in the root."""
    return path.rpartition("/")[0] or "."


def is_below(path: str, top: str) -> bool:
    """Whether a relative path is `top` itself or lies in it."""
    return top == "." or path == top or path.startswith(top + "/")


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of a course is watched.  All paths are relative to its root."""

    exercises: str
    base: str

    def has_directory(self, path: str) -> bool:
        """Whether the directory of this path is watched (if it exists, and is no virtual environment)."""
        if path in (".", self.base, self.reports, self.resets, self.previews):
            return True
        if not is_below(path, self.exercises):
            return self.exercises.startswith(path + "/")
        if path == self.exercises:
            return True
        below = path if self.exercises == "." else path[len(self.exercises) + 1 :]
        parts = below.split("/")
        if self.exercises == "." and parts[0].startswith("_"):
            return False  # at the root these are no steps
        return not any(part.startswith(".") or part in SKIPPED_DIRECTORIES for part in parts)

    def has_file(self, directory: str, name: str) -> bool:
        """Whether a file of this name in this watched directory is looked at."""
        if directory == self.base:
            return name in LEARNPACK_FILES or name == DOCUMENT
        if directory == self.previews:
            return not (name.startswith(".") or is_transient(name))
        if directory == self.reports:
            return name.endswith(".json") and not name.startswith(".")
        if directory == ".":
            return is_course_file(name) or not (name.startswith(".") or is_transient(name))
        if directory == self.resets or not is_below(directory, self.exercises):
            return False
        return not (name.startswith(".") or is_transient(name))

    def is_learnpacks(self, directory: str) -> bool:
        """Whether the files of this directory are LearnPack's JSON rather than the student's."""
        return directory in (self.base, self.reports)

    @property
    def layout(self) -> tuple[str, ...]:
        """The directories that decide where the steps are, if they exist."""
        return ("exercises", f"{self.base}/exercises", *BASES)

    @property
    def reports(self) -> str:
        return f"{self.base}/reports"

    @property
    def resets(self) -> str:
        return f"{self.base}/resets"

    @property
    def previews(self) -> str:
        return f"{self.base}/{PREVIEWS}"

    def is_only_noticed(self, directory: str, name: str) -> bool:
        """Whether a file is never read: each write is a change, also one of the same content.

        LearnPack builds HTML and React by writing the preview, and nothing else tells of it.
        """
        return directory == self.previews or (directory == self.base and name == DOCUMENT)


class Seen(NamedTuple):
    """What is remembered of a file: two numbers.

    `stamp` stands for size, modification time and inode; 0 says that it proves nothing, because the file was
    younger than the clock of the file system can tell.  `digest` stands for the content.
    """

    stamp: int
    digest: int


class Look(NamedTuple):
    """A file as it is now.  `content` is None where it was not read: unchanged, too large or not permitted."""

    seen: Seen
    mtime_ns: int
    links: int
    content: bytes | None


#: A file written again so soon after a look can keep its time: file systems stamp in steps of up to 2 s (FAT, NFS).
_RACY_NS = 2_000_000_000


def look(path: str, *, known: Seen | None = None, limit: int = CONTENT_LIMIT) -> Look | None:
    """The regular file at this absolute path, or None where there is none.

    With `known`, the same stamp is taken for the same content and the file is not opened.
    Raises OSError for what is neither there nor absent: a directory that can't be searched, a failing disk.
    """
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    if known is not None and known.stamp and known.stamp == _stamp(info):
        return Look(known, info.st_mtime_ns, info.st_nlink, None)
    try:
        info, content = read_regular(path, limit)
    except FileNotFoundError:
        return None
    except PermissionError:
        content = None  # 0000, or of another user: its size and time have to do
    digest = hash((info.st_size, info.st_mtime_ns, info.st_ino)) if content is None else hash(content)
    is_racy = info.st_mtime_ns > time.time_ns() - _RACY_NS
    return Look(Seen(0 if is_racy else _stamp(info), digest), info.st_mtime_ns, info.st_nlink, content)


def read_regular(path: str, limit: int, *, follow: bool = False) -> tuple[os.stat_result, bytes | None]:
    """The file's status and content; the content is None where it is longer than `limit`.

    Raises OSError: ENOENT also where it is not a regular file (a device or a pipe must not be waited for).
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise FileNotFoundError(error.errno, "no regular file", path) from None
        raise
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise FileNotFoundError(0, "no regular file", path)
        if info.st_size > limit:
            return info, None
        content = os.read(descriptor, info.st_size + 1)
        while len(content) <= limit and (more := os.read(descriptor, limit + 1 - len(content))):
            content += more
        return info, content if len(content) <= limit else None
    finally:
        os.close(descriptor)


def _stamp(info: os.stat_result) -> int:
    return hash((info.st_size, info.st_mtime_ns, info.st_ino)) or 1


#: What opening something else than a regular file says.  ELOOP: a link.  ENXIO: a socket.  ENODEV: no driver.
_NOT_A_FILE = frozenset((errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENOTDIR))
