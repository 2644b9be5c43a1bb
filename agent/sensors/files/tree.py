"""The watched part of a course: its directories, the picture of its files, and what differs from it.

Rule 1: what a notice said is never believed.  The disk is looked at again and compared with the picture, and only
another content is a change.  So notices may come twice, late or in any order, and the end is always right.

- A new directory is watched first and listed then, so nothing made in between is missed.
- A file that is gone is waited for, 200 ms: vim moves the old one away and writes a new one.  So is one that came
  and was not closed (a hard link, a file made whole and then given its name).
- A directory that can't be watched or listed is a `Trouble`, never skipped in silence.

Who waits for notices, when what is done, and what becomes of a change: `sensor.py`.  One thread at a time.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ...core.course import one_line
from ...core.observations import Change
from ..clock import now_ms
from ..picture import (
    CONTENT_LIMIT,
    ENVIRONMENT_MARK,
    LEARNPACK_LIMIT,
    UNREAD,
    Look,
    Scope,
    Seen,
    is_below,
    joined,
    look,
    parent_of,
)
from .watches import Interest, SameDirectoryError, Source

#: How long a file may be absent before it counts as deleted.  vim's new file comes within 5 ms; with a slow disk
#: under it, its fsync can take 100.
HOLD_S = 0.2
#: A change that a comparison found is stamped with the file's own time if that is not older than this.
_RECENT_MS = 5_000


class RootLostError(Exception):
    """The course's root is not where it was."""


class Trouble(NamedTuple):
    """Why a directory is not watched, or not known.

    `polled` says that it is compared from time to time instead, `listed` that at least what is in it is known.
    """

    reason: str
    polled: bool
    listed: bool = False


class _Doubt(NamedTuple):
    """A file that is absent, or came without being written: to be looked at when due."""

    directory: str
    name: str
    at: int
    due: float


class Listener(Protocol):
    def file_changed(self, directory: str, name: str, change: Change, at: int, found: Look | None) -> bool:
        """Returns False if the content says nothing yet, and the file is to be taken for unchanged."""

    def copy_appeared(self, name: str, at: int) -> None:
        """A new directory in LearnPack's resets/."""

    def layout_changed(self) -> None:
        """A directory that may be a step, or holds them, came or went."""


class Tree:
    """`quiet` while differences are only taken into the picture: at the start, when the course is back."""

    def __init__(self, root: str, scope: Scope, source: Source, listener: Listener) -> None:
        self.root = root
        self.scope = scope
        self.source = source
        self.quiet = True
        self.opens: Callable[[str], bool] = lambda _: False
        #: The directories that are known to be there, watched or in trouble.
        self.directories: set[str] = set()
        self.files: dict[str, dict[str, Seen]] = {}
        self.troubles: dict[str, Trouble] = {}
        #: What is left out on purpose, and why.
        self.skipped: dict[str, str] = {}
        self._copies: set[str] = set()
        #: While the scope changes: the directories that were watched before, whose changes are told.
        self._loud: set[str] | None = None
        #: Directories of which a subdirectory may not be read.
        self._with_denied: set[str] = set()
        self._doubts: dict[str, _Doubt] = {}
        self._listener = listener

    # --- directories ---

    def arm(self, top: str, at: int) -> None:
        """Watch this directory and all below it, and compare what is in them.  Raises RootLostError."""
        was_known = top in self.directories
        seen: set[str] = set()
        stack = [top]
        while stack:
            path = stack.pop()
            children = self._visit(path, at)
            if path in self.directories:
                seen.add(path)
            stack.extend(reversed(children))
        if was_known:
            for path in self.directories - seen:
                if is_below(path, top) and not self._is_unreadable_above(path):
                    self._directory_gone(path, at)

    def rescan(self, at: int) -> None:
        """Compare everything.  Raises RootLostError."""
        self.arm(".", at)

    def compare_polled(self, at: int) -> None:
        """Compare the directories that can't be watched, and try again to watch them.  Raises RootLostError."""
        for path in [path for path, trouble in self.troubles.items() if trouble.polled]:
            children = self._visit(path, at)
            for child in self.directories - set(children):
                if parent_of(child) == path and child != ".":
                    self._directory_gone(child, at)
            for child in children:
                if child not in self.directories:
                    self.arm(child, at)

    def directory(self, key: str, name: str, at: int) -> None:
        """Look at the subdirectory `name` of `key`, which came or went."""
        path = joined(key, name)
        is_there = self._is_directory(path)
        if key == self.scope.resets:
            self._copy(name, at, is_there=is_there)
        elif self.scope.has_directory(path):
            if is_there:
                self.skipped.pop(path, None)
                self.arm(path, at)
            else:
                self._directory_gone(path, at)
        if path in self.scope.layout:
            self._listener.layout_changed()

    def forget(self) -> None:
        """Nothing is watched and nothing known."""
        for key in self.source.watched():
            self.source.unwatch(key)
        for known in (self.directories, self._copies, self._with_denied):
            known.clear()
        for pictured in (self.files, self.troubles, self.skipped, self._doubts):
            pictured.clear()

    def change_scope(self, scope: Scope) -> None:
        """Watch another part.  What lies in it and was not watched before is taken into the picture without a word."""
        self.scope = scope
        for path in [path for path in self.directories if not scope.has_directory(path)]:
            self._drop(path)
        self._loud = set(self.directories)
        try:
            self.arm(".", now_ms())
        finally:
            self._loud = None

    def renew_interest(self) -> None:
        """Place the watches again where `opens` may answer otherwise now."""
        for path in self.directories:
            self._watch_again(path)

    def _visit(self, path: str, at: int) -> list[str]:
        """Watch and compare one directory; returns the subdirectories that are to be visited."""
        absolute = self._absolute(path)
        try:
            trouble = self._watch(path, absolute)
            entries = self._list(absolute)
        except (FileNotFoundError, NotADirectoryError):
            if path == ".":
                raise RootLostError from None
            self._directory_gone(path, at)
            return []
        except SameDirectoryError as error:
            self._skip(path, error.strerror or "the same directory as another")
            return []
        except OSError as error:
            self._set_trouble(path, self._trouble_of(path, error))
            return []
        if path != "." and any(entry.name == ENVIRONMENT_MARK for entry in entries):
            self._skip(path, "a virtual environment")
            return []
        if path not in self.directories:
            self.directories.add(path)
            self._maybe_layout(path)
        self._set_trouble(path, trouble)
        return self._compare(path, entries, at)

    def _watch(self, path: str, absolute: str) -> Trouble | None:
        """Raises OSError where there is no such directory, or none that can be listed either."""
        try:
            self.source.watch(path, absolute, self._interest(path))
        except OSError as error:
            if error.errno not in _NO_WATCH:
                raise
            return Trouble(_NO_WATCH[error.errno], polled=True, listed=True)
        return None

    def _list(self, absolute: str) -> list[os.DirEntry[str]]:
        with os.scandir(absolute) as entries:
            return list(entries)

    def _compare(self, path: str, entries: list[os.DirEntry[str]], at: int) -> list[str]:
        children = []
        present = set()
        copies = set()
        for entry in entries:
            name = entry.name
            inner = joined(path, name)
            if entry.is_symlink():
                self._maybe_skip_link(inner)
            elif entry.is_dir(follow_symlinks=False):
                if path == self.scope.resets:
                    copies.add(name)
                elif self.scope.has_directory(inner):
                    children.append(inner)
            elif self.scope.has_file(path, name):
                present.add(name)
                self.look(path, name, at, is_scan=True)
        for name in self.files.get(path, {}).keys() - present:
            self.look(path, name, at, is_scan=True)
        if path == self.scope.resets:
            for name in copies ^ self._copies:
                self._copy(name, at, is_there=name in copies)
        return children

    def _copy(self, name: str, at: int, *, is_there: bool) -> None:
        if not is_there:
            self._copies.discard(name)
        elif name not in self._copies:
            self._copies.add(name)
            if not self._is_quiet(self.scope.resets):
                self._listener.copy_appeared(name, at)

    def _directory_gone(self, top: str, at: int) -> None:
        for path in [path for path in self.directories if is_below(path, top)]:
            self.source.unwatch(path)
            self.directories.discard(path)
            self._maybe_layout(path)
            self._set_trouble(path, None)
            for name in list(self.files.get(path, ())):
                self.look(path, name, at, is_scan=True)
        self.skipped = {path: reason for path, reason in self.skipped.items() if not is_below(path, top)}
        if is_below(self.scope.resets, top):
            self._copies.clear()

    def _maybe_layout(self, path: str) -> None:
        """A directory came or went: a step, or one that holds them?"""
        if not self.quiet and (path in self.scope.layout or parent_of(path) == self.scope.exercises):
            self._listener.layout_changed()

    def _skip(self, path: str, reason: str) -> None:
        self._drop(path)
        self.skipped[path] = reason

    def _drop(self, top: str) -> None:
        """Forget a directory that is there but not ours, without a word."""
        for path in [path for path in (*self.directories, *self.files) if is_below(path, top)]:
            self.source.unwatch(path)
            self.directories.discard(path)
            self._set_trouble(path, None)
            for name in self.files.pop(path, ()):
                self._doubts.pop(joined(path, name), None)
        self.source.unwatch(top)

    def _maybe_skip_link(self, path: str) -> None:
        """A link is no directory of ours.  Where one stands for a directory that matters, that is told."""
        if path in (self.scope.base, self.scope.exercises, self.scope.reports, self.scope.resets) or (
            parent_of(path) == self.scope.exercises
            and self.scope.has_directory(path)
            and os.path.isdir(self._absolute(path))
        ):
            self.skipped[path] = "a symbolic link is not followed"

    def _set_trouble(self, path: str, trouble: Trouble | None) -> None:
        old = self.troubles.get(path)
        if trouble is not None:
            self.troubles[path] = trouble
            self.directories.add(path)
        elif old is not None:
            del self.troubles[path]
        if any(which is not None and not which.polled for which in (old, trouble)) and old != trouble:
            denied = (inner for inner, which in self.troubles.items() if not which.polled)
            self._with_denied = {parent_of(inner) for inner in denied}
            self._watch_again(parent_of(path))

    def _watch_again(self, path: str) -> None:
        """Renew the interest in a directory; what is wrong with it shows when it is visited next."""
        if path in self.directories and path not in self.troubles:
            try:
                self.source.watch(path, self._absolute(path), self._interest(path))
            except OSError as error:
                if error.errno in _NO_WATCH:
                    self.troubles[path] = Trouble(_NO_WATCH[error.errno], polled=True, listed=True)

    def _interest(self, path: str) -> Interest:
        interest = Interest.CONTENT
        if self.opens(path):
            interest |= Interest.OPENS
        if path in self._with_denied:
            interest |= Interest.RIGHTS
        return interest

    def _is_unreadable_above(self, path: str) -> bool:
        """Whether a directory above can't be listed, so that not to have seen this one proves nothing."""
        while path != ".":
            path = parent_of(path)
            if path in self.troubles and not self.troubles[path].listed:
                return True
        return False

    # --- files ---

    def look(self, directory: str, name: str, at: int, *, is_scan: bool = False, is_settled: bool = False) -> None:
        """Compare one file with the picture.  In a scan, an unchanged time and size are proof enough.

        `is_settled` says that it was in doubt, and waited for.
        """
        if not self.scope.has_file(directory, name):
            if self.skipped and not os.path.lexists(self._absolute(directory, name)):
                self.skipped.pop(joined(directory, name), None)
            return
        known = self.files.get(directory, {}).get(name)
        try:
            found = look(
                self._absolute(directory, name), known=known if is_scan else None, limit=self._limit(directory, name)
            )
        except OSError as error:
            self._set_trouble(directory, self._trouble_of(directory, error))
            return
        if found is None:
            if known is not None:
                self._file_missing(directory, name, at)
            return
        self._doubts.pop(joined(directory, name), None)
        if name == ENVIRONMENT_MARK and directory != ".":
            self._skip(directory, "a virtual environment")
            return
        if known is not None and known.digest == found.seen.digest:
            self._remember(directory, name, found.seen)
            return
        is_quiet = self._is_quiet(directory)
        if found.content == b"" and (known is not None or is_scan) and not is_settled and not is_quiet:
            # Emptied, or the first half of a save that is at work now: its close will tell.
            self._doubt(directory, name, at)
            return
        change = Change.CREATED if known is None else Change.MODIFIED
        when = _time_of(found, at) if is_scan else at
        if is_quiet or self._listener.file_changed(directory, name, change, when, found):
            self._remember(directory, name, found.seen)
        elif known is not None:
            self._remember(directory, name, Seen(0, known.digest))

    def created(self, directory: str, name: str, at: int) -> None:
        """A name appeared.  Who writes it will close it, which is told; where nobody does, it is looked at later."""
        if self.scope.has_file(directory, name):
            if self.quiet:
                self.look(directory, name, at)
            else:
                self._doubt(directory, name, at)
        elif self.scope.has_directory(path := joined(directory, name)) and os.path.islink(self._absolute(path)):
            self._maybe_skip_link(path)

    def read(self, directory: str, name: str) -> Look | None:
        """The file as it is, taken into the picture without a word; None if there is none that can be read."""
        try:
            found = look(self._absolute(directory, name), limit=self._limit(directory, name))
        except OSError:
            return None
        if found is not None:
            self._remember(directory, name, found.seen)
        return found

    def next_doubt(self) -> float | None:
        """When `settle_doubts` has something to do, on the monotonic clock (s)."""
        return next((doubt.due for doubt in self._doubts.values()), None)

    def settle_doubts(self) -> None:
        """What has been absent for long enough is deleted; what came and was not written is looked at."""
        now = time.monotonic()
        while self._doubts:
            path, doubt = next(iter(self._doubts.items()))
            if doubt.due > now:
                return
            del self._doubts[path]
            self._settle(doubt)

    def _settle(self, doubt: _Doubt) -> None:
        directory, name = doubt.directory, doubt.name
        try:
            is_there = look(self._absolute(directory, name), limit=0) is not None
        except OSError:
            return  # it can't be known; when it can, the directory is compared
        if is_there:
            self.look(directory, name, doubt.at, is_settled=True)
        elif self._remove(directory, name):
            self._listener.file_changed(directory, name, Change.DELETED, doubt.at, None)

    def _file_missing(self, directory: str, name: str, at: int) -> None:
        path = joined(directory, name)
        if self._is_quiet(directory):
            self._doubts.pop(path, None)
            self._remove(directory, name)
        else:
            self._doubt(directory, name, at)

    def _doubt(self, directory: str, name: str, at: int) -> None:
        path = joined(directory, name)
        if path not in self._doubts:
            self._doubts[path] = _Doubt(directory, name, at, time.monotonic() + HOLD_S)

    def _is_quiet(self, directory: str) -> bool:
        return self.quiet or (self._loud is not None and directory not in self._loud)

    def _remember(self, directory: str, name: str, seen: Seen) -> None:
        self.files.setdefault(directory, {})[name] = seen

    def _remove(self, directory: str, name: str) -> bool:
        names = self.files.get(directory)
        if names is None or names.pop(name, None) is None:
            return False
        if not names:
            del self.files[directory]
        return True

    def _limit(self, directory: str, name: str) -> int:
        if self.scope.is_only_noticed(directory, name):
            return UNREAD
        return LEARNPACK_LIMIT if self.scope.is_learnpacks(directory) else CONTENT_LIMIT

    def _trouble_of(self, path: str, error: OSError) -> Trouble:
        """A right that lacks is told by the parent's watch when it is given; anything else has to be tried again."""
        if isinstance(error, PermissionError):
            is_told = path != "." and self.source.sees_root
            return Trouble(f"{one_line(path)}: no permission to read it", polled=not is_told)
        return Trouble(f"{one_line(path)}: cannot be read: {error.strerror}", polled=True)

    # --- paths ---

    def _absolute(self, path: str, name: str = "") -> str:
        directory = self.root if path == "." else f"{self.root}/{path}"
        return f"{directory}/{name}" if name else directory

    def _is_directory(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(self._absolute(path)).st_mode)
        except OSError:
            return False


#: What the kernel says when it has no more watches to give; the directory can still be read.
_NO_WATCH = {
    errno.ENOSPC: "the limit of inotify watches is reached (fs.inotify.max_user_watches)",
    errno.ENOMEM: "the kernel has no memory for another inotify watch",
}


def _time_of(found: Look, at: int) -> int:
    """When a change that a comparison found was made, as far as the file tells; else now."""
    written = found.mtime_ns // 1_000_000
    return written if at - _RECENT_MS <= written <= at else at
