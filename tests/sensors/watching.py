"""What the tests of the file sensor share: a small course on the disk, a watcher of its observations, and a source
of notices that does what a test wants."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.core.course import Course
from agent.core.observations import (
    Change,
    CourseGone,
    CourseRead,
    EventsLost,
    FileChanged,
    Observation,
    TestsCompared,
)
from agent.sensors.course import read_course
from agent.sensors.files.sensor import FileSensor, _State, open_source
from agent.sensors.files.watches import Notice, Source

CREATED, MODIFIED, DELETED = Change.CREATED, Change.MODIFIED, Change.DELETED

Seen = TypeVar("Seen", bound=Observation)

STEPS = ("00-hello", "01-add", "02-loop")


def make_course(root: Path, *, steps: tuple[str, ...] = STEPS) -> Path:
    """A python course with LearnPack's directory, in which LearnPack has run."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "learn.json").write_text('{"slug": "small", "grading": "isolated"}')
    for slug in steps:
        make_step(root, slug)
    (root / ".learn" / "resets").mkdir(parents=True)
    (root / ".learn" / "reports").mkdir()
    write_queue(root, ("initializing", None))
    write_config(root, None)
    return root


def make_step(root: Path, slug: str) -> Path:
    step = root / "exercises" / slug
    step.mkdir(parents=True)
    (step / "README.md").write_text(f"# {slug}\n")
    (step / "app.py").write_text("# your code here\n")
    (step / "test.py").write_text("def test_it(): pass\n")
    return step


def write_queue(root: Path, *entries: tuple[str, str | None]) -> None:
    written = [{"name": name, "time": number, "data": slug} for number, (name, slug) in enumerate(entries)]
    (root / ".learn" / "vscode_queue.json").write_text(json.dumps(written))


def write_config(root: Path, current: str | None, **more: object) -> None:
    (root / ".learn" / "config.json").write_text(json.dumps({"currentExercise": current, **more}, indent=4))


def replace_file(path: Path, text: str) -> None:
    """An atomic save."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


class Watcher:
    """A sensor on a course, and everything that it put.  A context: started, and stopped at the end."""

    def __init__(
        self,
        root: Path,
        *,
        watch_opens: bool = False,
        source: Callable[[str], Source] = open_source,
        put: Callable[[Observation], None] | None = None,
    ) -> None:
        self.root = root
        self.course = read_course(str(root))
        self.opened = 0
        self._put = put
        self._seen: list[Observation] = []
        self._changed = threading.Condition()
        self._fences = itertools.count()
        self.sensor = FileSensor(
            self.course, self.put, watch_opens=watch_opens, on_open=self._count_open, source=source
        )

    def __enter__(self) -> Watcher:
        self.sensor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.sensor.stop()

    def put(self, observation: Observation) -> None:
        if self._put is not None:
            self._put(observation)
        with self._changed:
            self._seen.append(observation)
            self._changed.notify_all()

    def _count_open(self) -> None:
        self.opened += 1

    # --- what was seen ---

    def wait_for(
        self, kind: type[Seen], is_it: Callable[[Seen], bool] = lambda _: True, *, timeout: float = 50
    ) -> Seen:
        """The first observation of this kind that fits."""
        end = time.monotonic() + timeout
        looked_at = 0
        with self._changed:
            while True:
                for observation in itertools.islice(self._seen, looked_at, None):
                    if isinstance(observation, kind) and is_it(observation):
                        return observation
                looked_at = len(self._seen)
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no {kind.__name__} came; these did: {self._seen[-20:]}")
                self._changed.wait(left)

    def wait_for_change(self, path: str, change: Change, *, timeout: float = 50) -> FileChanged:
        return self.wait_for(FileChanged, lambda seen: (seen.path, seen.change) == (path, change), timeout=timeout)

    def all(self, kind: type[Seen]) -> list[Seen]:
        with self._changed:
            return [observation for observation in self._seen if isinstance(observation, kind)]

    def everything(self) -> list[Observation]:
        """All but the fences and what is told of the tests (`test_originals.py`), which comes when it is ready."""
        with self._changed:
            return [
                seen
                for seen in self._seen
                if not isinstance(seen, TestsCompared) and not (isinstance(seen, FileChanged) and "fence-" in seen.path)
            ]

    def changes(self) -> list[tuple[str, Change]]:
        return [(seen.path, seen.change) for seen in self.everything() if isinstance(seen, FileChanged)]

    def changes_of(self, path: str) -> list[Change]:
        return [change for changed, change in self.changes() if changed == path]

    def changes_of_files(self) -> list[str]:
        return [path for path, _ in self.changes()]

    def wait_for_course(self, is_it: Callable[[Course], bool]) -> Course:
        return self.wait_for(CourseRead, lambda seen: is_it(seen.course)).course

    def wait_for_gone(self) -> CourseGone:
        return self.wait_for(CourseGone)

    def forget(self) -> None:
        with self._changed:
            self._seen.clear()

    def fence(self) -> None:
        """Returns when everything that happened before was handled, held deletions too.

        Notices come in order, and so do deletions: a file that is made and deleted now is the last of both.
        """
        name = f"fence-{next(self._fences)}.txt"
        path = self.root / name
        path.write_text("fence")
        self.wait_for_change(name, CREATED)
        path.unlink()
        self.wait_for_change(name, DELETED)

    # --- of the sensor ---

    @property
    def is_present(self) -> bool:
        return self.sensor._state is _State.PRESENT

    @property
    def losses(self) -> list[str]:
        return [lost.reason for lost in self.all(EventsLost)]

    def courses(self) -> list[CourseRead]:
        return self.all(CourseRead)

    @property
    def thread_id(self) -> int:
        native = self.sensor._thread.native_id
        assert native is not None
        return native


def picture_of(watcher: Watcher) -> set[str]:
    """The paths in the sensor's picture."""
    files = watcher.sensor._tree.files
    return {name if directory == "." else f"{directory}/{name}" for directory, names in files.items() for name in names}


class SpiedSource:
    """The real source.  It tells how often it was waited for and how often it woke up, and `turn` turns what it says:
    forgets some of it, or says more, or fails."""

    def __init__(self, root: str) -> None:
        self._source = open_source(root)
        self.level = self._source.level
        self.sees_all, self.sees_root = self._source.sees_all, self._source.sees_root
        self.watch, self.unwatch = self._source.watch, self._source.unwatch
        self.watched, self.wake, self.close = self._source.watched, self._source.wake, self._source.close
        self.turn: Callable[[list[Notice]], list[Notice]] = lambda notices: notices
        self.waits = self.wakes = 0
        self.timeout: float | None = 0.0

    def wait(self, timeout: float | None) -> list[Notice]:
        self.timeout = timeout
        self.waits += 1
        notices = self._source.wait(timeout)
        self.wakes += 1
        return self.turn(notices)

    @property
    def is_at_rest(self) -> bool:
        """Whether it waits for notices alone, however long; then only they can let `wakes` grow."""
        wakes = self.wakes
        return self.timeout is None and self.waits == wakes + 1


def spied(sources: list[SpiedSource]) -> Callable[[str], Source]:
    """Opens such sources, and keeps them in the list."""

    def opened(root: str) -> Source:
        sources.append(SpiedSource(root))
        return sources[-1]

    return opened


def is_comparing() -> bool:
    """Whether a thread compares tests (`originals.py`)."""
    return any(thread.name == "originals" for thread in threading.enumerate())


def unchanged_for(thread: int, seconds: float) -> bool:
    """Whether this thread sleeps through so long a time."""
    before = switches_of(thread)
    time.sleep(seconds)
    return switches_of(thread) == before


def switches_of(thread: int) -> int:
    """How often a thread of this process went to sleep of its own will (each time it woke up before)."""
    status = Path(f"/proc/self/task/{thread}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary_ctxt"))
