"""Whether the course's root is where it was, and how its return is noticed.

A directory is known by device and inode; what lies at its path may become another one (cloned again, mounted over).
The numbers prove only that it is another: ext4 gives a new directory the inode of the one deleted before.  That its
watch ended proves that it is no more, but comes late while somebody still works in the deleted directory; so its
removal is also asked of the directory above.

No watch on the root tells that a directory above was renamed, so those are watched too, only for their own fate: that
costs a watch each and never a needless wake-up.  While the root is absent, the nearest directory above that exists
tells what comes in it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from ..picture import is_below
from .watches import Interest, Kind, Notice, Source


def watch_above(source: Source, root: str, *, is_there: bool) -> str | None:
    """Watch the directories above the root; unless it is there, the nearest one also for what comes in it.

    Returns the path whose coming will be told (the root, or a directory above it), None if none will.
    """
    awaited = root
    is_told = is_there
    interest = Interest.REMOVALS if is_there else Interest.NAMES
    for path in _above(root):
        try:
            source.watch(path, path, interest)
            is_told = True
            interest = Interest.ITSELF
        except (FileNotFoundError, NotADirectoryError):
            awaited = path
        except OSError:  # no permission, or no watch to be had
            if not is_told:
                return None
    return awaited if source.sees_root else None


def _above(path: str) -> Iterator[str]:
    """The directories above an absolute path, the nearest first."""
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


def concerns_root(notice: Notice, root: str) -> bool:
    """Whether the root may be gone or back: not for what else is made and removed beside it."""
    if notice.kind in (Kind.SELF, Kind.ENDED):
        return notice.key == "." or notice.key.startswith("/")
    return notice.key.startswith("/") and is_below(root, f"{notice.key.rstrip('/')}/{notice.name}")


def identity_of(root: str) -> tuple[int, int] | None:
    """Device and inode of the directory at this path; None if there is none that can be reached."""
    try:
        info = os.lstat(root)
    except OSError:
        return None
    return (info.st_dev, info.st_ino) if stat.S_ISDIR(info.st_mode) else None


def why_gone(root: str, before: tuple[int, int] | None, now: tuple[int, int] | None) -> str:
    if now is None:
        try:
            os.lstat(root)
        except FileNotFoundError:
            return "the course's directory was deleted or moved away"
        except OSError as error:
            return f"the course's directory cannot be reached: {error.strerror}"
        return "the course's directory was replaced by something else"
    if before is None or before[0] != now[0]:
        return "a file system was mounted over the course, or the course's own was unmounted"
    return "the course's directory was replaced by another one"
