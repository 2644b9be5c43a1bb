"""What was concluded.  The names that LearnPack has are LearnPack's.

All times are integer milliseconds since the epoch.  Every event carries its evidence: words that a teacher
can read, each with the number of the observation behind it in this life of the agent.  `Event` is a closed
union; `EVENT_TYPES` names each for the journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, get_args


class Origin(StrEnum):
    """Who started a run."""

    LEARNPACK = "learnpack"
    TERMINAL = "terminal"
    OTHER = "other"


class Output(StrEnum):
    """How much of a run's output was captured."""

    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Captured:
    """What a program printed on one stream.

    `size` is its length in bytes.  `text` is all of it where `whole`; else its head and its tail, with a line between
    them that says how much was left out.
    """

    text: str
    size: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of a test file: its name as the test runner writes it; `status` is "passed", "failed" or "skipped"."""

    __test__: ClassVar[bool] = False  # pytest would take it for a test case

    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Interaction:
    """One question to LearnPack's AI tutor and its answer, as LearnPack recorded them."""

    started_at: int
    ended_at: int | None
    student_message: str
    ai_response: str
    source_code: str | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay in a step, from its opening (or the first work in it in a session) to the next step or the end of
    the session.  `active_ms` leaves out the time in which nothing was done."""

    slug: str
    started_at: int
    ended_at: int
    active_ms: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason: the observation's number, its time, and what it says in words."""

    observation: int
    at: int
    words: str


@dataclass(frozen=True, slots=True)
class StepName:
    """Which step: LearnPack's slug and its position at that time."""

    slug: str
    position: int


@dataclass(frozen=True, slots=True)
class Run:
    """What `compile` and `test` share.

    `exit_code` is None where it is not known or where a `signal` ended the program.  `source_code` is the
    step's entry file as it was when the run began, None where it could not be read.  `ended_at` is None where
    the end was not seen.  `whole` says that the step's whole test file was run.

    `output` says what `stdout` and `stderr` are worth: all that was printed ("full"), a part of it or what LearnPack
    made of it ("partial"), nothing ("none").  `stdout_size` and `stderr_size` are the bytes that were printed, None
    where not known.  `results` are the single tests, as far as the test runner told them; `message` is
    what its report says of those that failed (jest in LearnPack prints nothing).  `tests_modified`: the test
    file is another one than came with the course; None where that is not known, or for a compile.
    """

    started_at: int
    ended_at: int | None
    exit_code: int | None
    signal: int | None
    command: tuple[str, ...]
    origin: Origin
    source_code: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    output: Output = Output.NONE
    whole: bool = False
    stdout_size: int | None = None
    stderr_size: int | None = None
    results: tuple[TestResult, ...] = ()
    message: str | None = None
    tests_modified: bool | None = None


@dataclass(frozen=True, slots=True)
class SessionStart:
    name: ClassVar[str] = "session_start"
    at: int
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """`left` is the visit that ends with the session."""

    name: ClassVar[str] = "session_end"
    at: int
    evidence: tuple[Evidence, ...]
    left: Visit | None = None


@dataclass(frozen=True, slots=True)
class OpenStep:
    """`left` is the visit to another step that ends with this opening."""

    name: ClassVar[str] = "open_step"
    at: int
    step: StepName
    evidence: tuple[Evidence, ...]
    left: Visit | None = None


@dataclass(frozen=True, slots=True)
class Compile:
    name: ClassVar[str] = "compile"
    at: int
    step: StepName
    run: Run
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Test:
    name: ClassVar[str] = "test"
    __test__: ClassVar[bool] = False
    at: int
    step: StepName
    run: Run
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class CompleteStep:
    """`tests_modified`: the tests that passed are not those that came with the course; None: not known, or no tests."""

    name: ClassVar[str] = "complete_step"
    at: int
    step: StepName
    evidence: tuple[Evidence, ...]
    tests_modified: bool | None = None


@dataclass(frozen=True, slots=True)
class ResetStep:
    name: ClassVar[str] = "reset_step"
    at: int
    step: StepName
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class AiInteraction:
    name: ClassVar[str] = "ai_interaction"
    at: int
    step: StepName
    interaction: Interaction
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """Between `started_at` and `at` something may have been missed, for this reason."""

    name: ClassVar[str] = "gap"
    at: int
    started_at: int
    reason: str
    evidence: tuple[Evidence, ...]


Event = SessionStart | SessionEnd | OpenStep | Compile | Test | CompleteStep | ResetStep | AiInteraction | Gap

EVENT_TYPES: Mapping[str, type[Event]] = {kind.name: kind for kind in get_args(Event)}
