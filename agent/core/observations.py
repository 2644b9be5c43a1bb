"""What was seen: facts, frozen and stamped by the sensor, without interpretation.

All times (`at`, `started_at`, `since`) are integer milliseconds since the epoch.  A process is named by
(`pid`, `born`): `born` is its start time in whatever unit the sensor has (clock ticks on Linux), so a
reused pid is another process.  Paths of files are relative to the course's root, with `/` between names;
undecodable bytes are kept as surrogates (`os.fsdecode`).  `Observation` is a closed union: a new kind
makes the type checker write the list of places that have to know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .course import Course


class Change(Enum):
    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The agent begins to watch.  The first observation of each life of the agent."""

    at: int


@dataclass(frozen=True, slots=True)
class AgentStopped:
    """The agent was asked to stop: no observation follows."""

    at: int


@dataclass(frozen=True, slots=True)
class CourseRead:
    """The course as it is on the disk now: at the start, when its steps change, when it is back."""

    at: int
    course: Course


@dataclass(frozen=True, slots=True)
class CourseGone:
    """The course's directory was deleted, moved away or unmounted.  A `CourseRead` says that it is back."""

    at: int
    reason: str


@dataclass(frozen=True, slots=True)
class FileChanged:
    """The content of a watched file is another than before.  `touch` and a save of the same text are no change."""

    at: int
    path: str
    change: Change


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One entry of `.learn/vscode_queue.json`; `slug` is its data where that is a text.

    `stamp` is its `time` as text: no clock (LearnPack mixes units), but no two queues have the same.
    """

    name: str
    slug: str | None = None
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class QueueRead:
    """`.learn/vscode_queue.json`, whole: LearnPack appends to it, and begins anew at each start."""

    at: int
    entries: tuple[QueueEntry, ...]


@dataclass(frozen=True, slots=True)
class ConfigRead:
    """`.learn/config.json` was written; `current` is its `currentExercise`."""

    at: int
    current: str | None


@dataclass(frozen=True, slots=True)
class ResetCopyAppeared:
    """`.learn/resets/<slug>` came to be: LearnPack's UI fetched a file of that step for the first time ever."""

    at: int
    slug: str


@dataclass(frozen=True, slots=True)
class ReportRead:
    """`.learn/reports/<slug>.json` of a jest run: its counts (its `success` is always false)."""

    at: int
    slug: str
    passed: int
    failed: int
    failed_suites: int


@dataclass(frozen=True, slots=True)
class FileText:
    """The text of a file at the moment at which a process that uses it started."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class ProcessExecuted:
    """A process of the student executed a program, or was found running (`found`).

    One process can execute several programs one after the other (a pyenv shim: seven); the last one counts.
    `started_at` is when the process came to be, `at` when it executed this program.  `stdin` is the
    absolute path behind file descriptor 0 where that is a regular file.  `texts` are the files that
    `agent.core.commands` named as worth reading at once.  `copy_of` is set where a program's operand is a
    temporary copy that compile-run made: the paths of all step files whose text ends that copy.
    """

    at: int
    pid: int
    born: int
    parent: int
    argv: tuple[str, ...]
    cwd: str | None
    started_at: int
    on_terminal: bool = False
    stdin: str | None = None
    texts: tuple[FileText, ...] = ()
    copy_of: tuple[str, ...] = ()
    found: bool = False


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A process that had been reported is gone.

    Exactly one of `exit_code` and `signal` is set where the kernel told how it ended; both are None where it
    didn't, and `exact` is False where `at` is only when the absence was noticed.
    """

    at: int
    pid: int
    born: int
    exit_code: int | None = None
    signal: int | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class ProcessesListed:
    """All relevant processes that are alive, after each was reported as `ProcessExecuted(found=True)`.

    Comes at the start of a sensor and after events were lost: what is not in `alive` is over.
    """

    at: int
    alive: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SensorChanged:
    """A sensor works now, at this level.  `blind_to` says in words what it can't see."""

    at: int
    sensor: str
    level: str
    blind_to: str


@dataclass(frozen=True, slots=True)
class EventsLost:
    """A sensor knows that it missed something between `since` and `at`, and why, in words."""

    at: int
    since: int
    sensor: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """The wall clock was set by `by_ms` (negative: back).  A machine that slept has set nothing."""

    at: int
    by_ms: int


Observation = (
    AgentStarted
    | AgentStopped
    | CourseRead
    | CourseGone
    | FileChanged
    | QueueRead
    | ConfigRead
    | ResetCopyAppeared
    | ReportRead
    | ProcessExecuted
    | ProcessExited
    | ProcessesListed
    | SensorChanged
    | EventsLost
    | ClockJumped
)
