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
from .events import Captured, Interaction, TestResult


class Change(Enum):
    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The agent begins to watch: the first observation of each of its lives.  `away` is why there was none before."""

    at: int
    away: str = "the agent was not running"


@dataclass(frozen=True, slots=True)
class AgentStopped:
    """The agent was asked to stop: no observation follows in this life.  `is_end`: nor in another that begins at once,
    so the session is over as far as anybody can know."""

    at: int
    is_end: bool = False


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
    """One entry of `.learn/vscode_queue.json`; `slug` is its data where that is a text: a step, or a preview's URL.

    `stamp` is its `time` as text: no clock (LearnPack mixes units), but no two queues have the same.
    """

    name: str
    slug: str | None = None
    stamp: str = ""

    @property
    def is_preview(self) -> bool:
        """Whether LearnPack opens its preview window: a build of HTML or React ended.

        Only the plugins enqueue an `open_window` with a URL; the web UI's own message of that name carries an object.
        """
        return self.name == "open_window" and self.slug is not None and self.slug.endswith("/preview")


@dataclass(frozen=True, slots=True)
class FileText:
    """The text of a file at the moment at which something that uses it happened."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What LearnPack built to show it in its preview window (`.learn/dist`), as it is on the disk.

    `slug` is the step that it was built from: the one that webpack's bundle names or whose page is the same
    (`is_sure`), else the one that is open.  `failed`: the bundle throws where a module is missing or could not be
    built, which LearnPack shows all the same; None where the bundle can't be read.  `source` is the step's entry file.
    """

    slug: str | None = None
    failed: bool | None = None
    source: FileText | None = None
    is_sure: bool = False


@dataclass(frozen=True, slots=True)
class PreviewWritten:
    """LearnPack wrote a file of this name to its preview, also one that was there with the same text."""

    at: int
    name: str
    built: Preview


@dataclass(frozen=True, slots=True)
class QueueRead:
    """`.learn/vscode_queue.json`, whole: LearnPack appends to it, and begins anew at each start.

    `preview` is what lies there where one of the newest entries says that a build ended.
    """

    at: int
    entries: tuple[QueueEntry, ...]
    preview: Preview | None = None


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
    """`.learn/reports/<slug>.json` of a jest run: its counts (its `success` is always false).

    `message` is what jest says of the failures, for people; `results` are the single tests in jest's order.
    """

    at: int
    slug: str
    passed: int
    failed: int
    failed_suites: int
    message: str = ""
    results: tuple[TestResult, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparedTest:
    """A test file of a step, compared with the one that came with the course.

    `digest` stands for its content (the same content gives the same text in every life of the agent).  `differs` is
    None where the course's own could not be found; `compared_with` says in words which was: LearnPack's copy in
    `resets/`, or a commit in git.
    """

    path: str
    digest: str
    differs: bool | None
    compared_with: str


@dataclass(frozen=True, slots=True)
class TestsCompared:
    """Test files of steps were compared with those that came with the course.

    Comes soon after the start, with all of them, and then with those of which the answer is another than before.
    """

    at: int
    files: tuple[ComparedTest, ...]


@dataclass(frozen=True, slots=True)
class RunRecorded:
    """LearnPack's own telemetry.json tells of a run.  `event` is "compile" or "test".

    `was_seen`: the journal has that run already, and LearnPack may know more of it: how it ended.
    """

    at: int
    slug: str
    event: str
    started_at: int
    ended_at: int
    exit_code: int | None
    source_code: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    was_seen: bool = False


@dataclass(frozen=True, slots=True)
class InteractionRecorded:
    """LearnPack's own telemetry.json got a conversation with the AI tutor, and the student is logged in."""

    at: int
    slug: str
    interaction: Interaction


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
    didn't, and `exact` is False where `at` is only when the absence was noticed.  `stdout` and `stderr` are what it
    printed where that could be read.  `failed_tests` are the ids of the tests that failed, from a test runner's own
    cache, None where that can't be known for sure.
    """

    at: int
    pid: int
    born: int
    exit_code: int | None = None
    signal: int | None = None
    exact: bool = True
    stdout: Captured | None = None
    stderr: Captured | None = None
    failed_tests: tuple[str, ...] | None = None


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
    | PreviewWritten
    | QueueRead
    | ConfigRead
    | ResetCopyAppeared
    | ReportRead
    | TestsCompared
    | RunRecorded
    | InteractionRecorded
    | ProcessExecuted
    | ProcessExited
    | ProcessesListed
    | SensorChanged
    | EventsLost
    | ClockJumped
)
