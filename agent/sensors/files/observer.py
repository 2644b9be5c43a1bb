"""Notices from watchdog's `Observer`, for systems without inotify: FSEvents on macOS.

One recursive watch on the course's root; what lies outside of the watched directories is dropped here.  The fate of
the root itself is not told (`sees_root`); an emitter that ended, with the root or by a failure of its own, is.

Known to be weak: losses inside the Observer are not told by watchdog, and on FSEvents a file counts as written while
it still is, so half a save may be seen before the whole.  Run on Linux by its tests, with watchdog's other observers.
"""

from __future__ import annotations

import contextlib
import os
import queue

from watchdog.events import (
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_MODIFIED,
    EVENT_TYPE_OPENED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch

from .watches import Interest, Kind, Notice


class ObserverSource(FileSystemEventHandler):
    """See `watches.Source`.  Events come in the observer's thread and wait in a queue for `wait`."""

    level = "observer"
    sees_all = True
    sees_root = False

    def __init__(self, root: str, observer: BaseObserver | None = None) -> None:
        if observer is None:
            from watchdog.observers import Observer

            observer = Observer()
        self._prefix = root if root.endswith("/") else root + "/"
        self._root = root
        self._observer = observer
        self._observed: ObservedWatch | None = None
        self._interests: dict[str, Interest] = {}
        self._events: queue.SimpleQueue[FileSystemEvent | None] = queue.SimpleQueue()
        self._observer.start()

    def watch(self, key: str, path: str, interest: Interest) -> None:
        if key.startswith("/"):
            return  # above the course: not told
        os.scandir(path).close()  # raises what the promise says
        if key == "." and self._observed is None:
            self._observed = self._observer.schedule(self, path, recursive=True)
        self._interests[key] = interest

    def unwatch(self, key: str) -> None:
        self._interests.pop(key, None)
        if key == "." and self._observed is not None:
            observed, self._observed = self._observed, None
            self._observer.unschedule(observed)

    def watched(self) -> list[str]:
        return list(self._interests)

    def wait(self, timeout: float | None) -> list[Notice]:
        notices: list[Notice] = []
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=timeout)
            while True:
                if event is not None:
                    self._translate(event, notices)
                event = self._events.get_nowait()
        if self._observed is not None and not all(emitter.is_alive() for emitter in self._observer.emitters):
            notices.append(Notice(Kind.ENDED, "."))
        return notices

    def _translate(self, event: FileSystemEvent, notices: list[Notice]) -> None:
        kind = Kind.DIRECTORY if event.is_directory else Kind.LOOK
        if event.event_type == EVENT_TYPE_OPENED and not event.is_directory:
            kind = Kind.OPENED
        elif event.is_directory and event.event_type == EVENT_TYPE_MODIFIED:
            return  # something in it changed, and is told itself
        for path in (os.fsdecode(event.src_path), os.fsdecode(event.dest_path)):
            if path == self._root:
                notices.append(Notice(Kind.SELF, "."))
            elif path.startswith(self._prefix):
                directory, _, name = path[len(self._prefix) :].rpartition("/")
                interest = self._interests.get(directory or ".")
                if interest is not None and (kind is not Kind.OPENED or Interest.OPENS in interest):
                    notices.append(Notice(kind, directory or ".", name))

    def wake(self) -> None:
        self._events.put(None)

    def close(self) -> None:
        self._observer.stop()
        self._observer.join(2)

    # --- called by watchdog, in its thread ---

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type != EVENT_TYPE_CLOSED_NO_WRITE and not (
            event.is_directory and event.event_type == EVENT_TYPE_OPENED
        ):
            self._events.put(event)
