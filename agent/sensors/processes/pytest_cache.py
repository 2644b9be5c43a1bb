"""Which tests of a pytest run failed, read from pytest's own cache when the run is over.

Promised: an answer only where it is sure.  pytest's cache lies in its rootdir, which depends on configuration files
that nobody reads here: the course's root, the working directory and the directories of the test files are looked at,
and the one whose `nodeids` was written during the run is the one.  What an entry means is decided in
`core.pytest_results`.  The cache is only read; a process that runs no pytest costs nothing.

Known to be weak: a rootdir elsewhere (`--rootdir`, a pytest.ini above the course) or a `cache_dir` of its own is not
found, and then nothing is said; two sessions that end in one rootdir at once may overwrite each other's cache.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass

import orjson

from ...core.course import Course
from ...core.observations import ProcessExecuted
from ...core.pytest_results import PytestRun, pytest_run, surely_failed
from ..picture import read_regular

#: A course of 200 steps with 10 tests each has 200 KB of ids.
_CACHE_BYTES = 4 << 20

#: Directories of test files that are looked at; a run of more is none of one step.
_MOST_DIRECTORIES = 4


@dataclass(frozen=True, slots=True)
class _Cache:
    """A directory that may be pytest's rootdir, as it was when the run began.  `written_ns` is when its `nodeids` was
    written, None where there was none; `failed` are the ids in its `lastfailed`."""

    directory: str
    written_ns: int | None
    failed: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Run:
    course: Course
    run: PytestRun
    texts: dict[str, str]
    caches: tuple[_Cache, ...]


class PytestCaches:
    """The living runs of pytest, by pid.  All methods belong to the sensor's thread."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}

    def begin(self, course: Course, executed: ProcessExecuted) -> None:
        """A process executed a program: if that is pytest, look at its cache as it is before the run.

        The session takes 150 ms to its end; where this comes too late, `nodeids` will seem not to have been written."""
        run = pytest_run(course, executed.argv, executed.cwd)
        if run is None:
            return
        texts = {text.path: text.text for text in executed.texts}
        known = self._runs.get(executed.pid)
        if known is not None and known.run.targets == run.targets:
            # A shim that has become pytest: the first look is the best.
            self._runs[executed.pid] = _Run(course, run, known.texts | texts, known.caches)
            return
        files = [posixpath.join(course.root, target) for target in run.targets]
        places = [course.root, executed.cwd, *map(posixpath.dirname, files[:_MOST_DIRECTORIES])]
        caches = []
        for place in dict.fromkeys(place for place in places if place is not None):
            written_ns, failed = _written_ns(place), _ids(place, "lastfailed")
            if failed is not None:
                caches.append(_Cache(place, written_ns, frozenset(failed)))
        self._runs[executed.pid] = _Run(course, run, texts, tuple(caches))

    def end(self, pid: int, exit_code: int | None) -> tuple[str, ...] | None:
        """A process is over: the ids of the tests that failed, with paths relative to the course's root, if it was
        pytest.  None: it was not, or what failed is not known.  Exit code 1 means that a test failed; not each that
        did is always told."""
        known = self._runs.pop(pid, None)
        if known is None or exit_code not in (0, 1):
            return None
        if exit_code == 0:
            return ()
        written = [cache for cache in known.caches if _written_ns(cache.directory) not in (None, cache.written_ns)]
        if len(written) != 1:
            return None
        (cache,) = written
        after, collected = _ids(cache.directory, "lastfailed"), _ids(cache.directory, "nodeids")
        if after is None or collected is None:
            return None
        root, run = known.course.root, known.run
        paths = {posixpath.relpath(posixpath.join(root, target), cache.directory): target for target in run.targets}
        return surely_failed(paths, cache.failed, after, collected, known.texts, all_run=run.all_run) or None


def _path_of(directory: str, name: str) -> str:
    return posixpath.join(directory, ".pytest_cache/v/cache", name)


def _written_ns(directory: str) -> int | None:
    try:
        return os.lstat(_path_of(directory, "nodeids")).st_mtime_ns
    except OSError:  # no cache
        return None


def _ids(directory: str, name: str) -> list[str] | None:
    """The ids in a file of the cache, in its order; none where it is absent, None where it can't be understood."""
    try:
        _, content = read_regular(_path_of(directory, name), _CACHE_BYTES)
        ids = orjson.loads(content) if content is not None else None
    except OSError:
        return []
    except orjson.JSONDecodeError:  # just being written
        return None
    return [one for one in ids if isinstance(one, str)] if isinstance(ids, list | dict) else None
