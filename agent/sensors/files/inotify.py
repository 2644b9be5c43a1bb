"""Notices from Linux's inotify, by way of watchdog.

watchdog's `InotifyFD` is used without its thread and without its emitters: this project's own loop waits for
inotify, for the table of mounts and for `wake` in one poll, so there is one thread and no wake-up at rest.

What watchdog 7.1.0 leaves open and is put right here: its descriptor survives an exec; a directory that may not be
read is an error (watchdog swallows EACCES and files the watch under -1); two paths of one directory are told apart
(inotify has one watch for both, watchdog would warn and take the last one).

Known to be weak: of `InotifyFD`, `_create_inotify_fd`, `_inotify_fd` and `_is_reading` are not public.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from typing import NamedTuple

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from .mounts import MOUNTINFO
from .watches import Interest, Kind, Notice, SameDirectoryError

_In = InotifyConstants
_GONE = _In.IN_DELETE_SELF | _In.IN_MOVE_SELF | _In.IN_UNMOUNT
_NAMES = _In.IN_CREATE | _In.IN_MOVED_TO

#: What to ask the kernel for, by what is wanted.  Modified, attributes, accessed and closed-unwritten are not asked
#: for: with watchdog's own mask each read of a file costs a wake-up.
_MASKS = {
    Interest.NAMES: _NAMES,
    Interest.CONTENT: _NAMES | _In.IN_CLOSE_WRITE | _In.IN_MOVED_FROM | _In.IN_DELETE | _In.IN_EXCL_UNLINK,
    Interest.REMOVALS: _In.IN_DELETE,
    Interest.OPENS: _In.IN_OPEN,
    Interest.RIGHTS: _In.IN_ATTRIB,
}
_ALWAYS = _In.IN_DELETE_SELF | _In.IN_MOVE_SELF | _In.IN_ONLYDIR | _In.IN_DONT_FOLLOW


class _Inotify(InotifyFD):
    """watchdog's, never started as a thread."""

    def __init__(self) -> None:
        super().__init__()
        self._is_reading = False  # nobody blocks in `read_events`, so `close` has to close the descriptors itself

    @classmethod
    def _create_inotify_fd(cls) -> int:
        descriptor = super()._create_inotify_fd()
        os.set_inheritable(descriptor, False)
        return descriptor

    def fileno(self) -> int:
        return self._inotify_fd


class _Watch(NamedTuple):
    descriptor: WatchDescriptor
    callback: CallbackId
    path: str
    interest: Interest


class InotifySource:
    """See `watches.Source`.  Raises OSError where there can be no more inotify instances (EMFILE)."""

    level = "inotify"
    sees_all = True
    sees_root = True

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._keys: dict[int, str] = {}
        self._callbacks = 0
        self._notices: list[Notice] = []
        self._closed = False
        self._closing = threading.Lock()
        self._inotify = _Inotify()
        try:
            self._waking = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            self._inotify.close()
            raise
        try:
            self._mounts: int | None = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._mounts = None  # without /proc, what is mounted over the course is seen at the next event only
        self._poll = select.poll()
        self._poll.register(self._inotify.fileno(), select.POLLIN)
        self._poll.register(self._waking, select.POLLIN)
        if self._mounts is not None:
            # The kernel reports a change of the table as a condition of this file (proc(5)), once to each poll.
            self._poll.register(self._mounts, select.POLLPRI)

    def watch(self, key: str, path: str, interest: Interest) -> None:
        old = self._watches.get(key)
        # A new number each time: watchdog warns when one callback is added twice to one directory.
        self._callbacks += 1
        callback = CallbackId(self._callbacks)
        mask = _ALWAYS
        for part in interest:
            mask |= _MASKS[part]
        descriptor = self._inotify.add_callback(os.fsencode(path), Mask(mask), self, callback)
        if descriptor == -1:
            self._inotify.remove_callbacks([(descriptor, callback)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        other = self._keys.get(descriptor)
        if other is not None and other != key:
            self._give_up_old_name(other, path, callback)
        if old is not None:
            # The same directory with another interest, or another directory at the same path.
            self._remove(old)
        self._watches[key] = _Watch(descriptor, callback, path, interest)
        self._keys[descriptor] = key

    def _give_up_old_name(self, other: str, path: str, callback: CallbackId) -> None:
        """One directory under two keys: it was renamed and the notice of that still waits, or it has two paths."""
        watch = self._watches[other]
        if _is_same_directory(watch.path, path):
            self._inotify.remove_callbacks([(watch.descriptor, callback)])
            self.watch(other, watch.path, watch.interest)  # the kernel has taken over the newer interest
            raise SameDirectoryError(errno.ELOOP, f"the same directory as {watch.path}", path)
        del self._watches[other]
        self._inotify.remove_callbacks([(watch.descriptor, watch.callback)])

    def unwatch(self, key: str) -> None:
        if (watch := self._watches.pop(key, None)) is not None:
            self._remove(watch)

    def _remove(self, watch: _Watch) -> None:
        self._keys.pop(watch.descriptor, None)
        self._inotify.remove_callbacks([(watch.descriptor, watch.callback)])

    def watched(self) -> list[str]:
        return list(self._watches)

    def wait(self, timeout: float | None) -> list[Notice]:
        # Rounded up: a timeout of 0.4 ms must not become a busy loop.
        for descriptor, _ in self._poll.poll(None if timeout is None else int(timeout * 1000 + 0.999)):
            if descriptor == self._waking:
                os.eventfd_read(self._waking)
            elif descriptor == self._mounts:
                self._notices.append(Notice(Kind.MOUNTS))
            else:
                for event in self._inotify.read_events():
                    if event.is_queue_overflow:
                        self.on_queue_overflow()  # not by way of watchdog, which logs a warning for each one
                    else:
                        self._inotify.handle_event(event)
        notices, self._notices = self._notices, []
        return notices

    def wake(self) -> None:
        with self._closing:
            if not self._closed:
                os.eventfd_write(self._waking, 1)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._keys.clear()
        self._watches.clear()
        self._inotify.close()
        os.close(self._waking)
        if self._mounts is not None:
            os.close(self._mounts)

    # --- called by watchdog, in `wait` ---

    def on_event(self, event: InotifyEvent) -> None:
        key = self._keys.get(event.wd)
        if key is None:
            return  # of a watch that was given up while this waited in the queue
        mask = event.mask
        if mask & _GONE:
            self._notices.append(Notice(Kind.SELF, key))
            return
        is_directory = mask & _In.IN_ISDIR
        if mask & _In.IN_OPEN:
            kind = None if is_directory else Kind.OPENED
        elif is_directory:
            kind = Kind.DIRECTORY
        elif mask & _In.IN_ATTRIB:
            kind = None
        else:
            kind = Kind.CREATED if mask & _In.IN_CREATE else Kind.LOOK
        if kind is not None:
            self._notices.append(Notice(kind, key, os.fsdecode(event.name)))

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The kernel gave the watch up: the directory is gone, or its file system is unmounted."""
        if (key := self._keys.pop(wd, None)) is not None:
            self._watches.pop(key, None)
            self._notices.append(Notice(Kind.ENDED, key))

    def on_queue_overflow(self) -> None:
        self._notices.append(Notice(Kind.LOST))


def _is_same_directory(one: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False
