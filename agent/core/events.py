"""What was concluded.  The names that LearnPack has are LearnPack's.

All times are integer milliseconds since the epoch.  Every event carries its evidence: words that a teacher
can read, each with the number of the observation behind it in this life of the agent.  `Event` is a closed
union; `EVENT_TYPES` names each for the journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


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


@dataclass(frozen=True, slots=True)
class SessionStart:
    name: ClassVar[str] = "session_start"
    at: int
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class SessionEnd:
    name: ClassVar[str] = "session_end"
    at: int
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class OpenStep:
    name: ClassVar[str] = "open_step"
    at: int
    step: StepName
    evidence: tuple[Evidence, ...]


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
    at: int
    step: StepName
    run: Run
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class CompleteStep:
    name: ClassVar[str] = "complete_step"
    at: int
    step: StepName
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class ResetStep:
    name: ClassVar[str] = "reset_step"
    at: int
    step: StepName
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """Between `started_at` and `at` something may have been missed, for this reason."""

    name: ClassVar[str] = "gap"
    at: int
    started_at: int
    reason: str
    evidence: tuple[Evidence, ...]


Event = SessionStart | SessionEnd | OpenStep | Compile | Test | CompleteStep | ResetStep | Gap

EVENT_TYPES: Mapping[str, type[Event]] = {
    kind.name: kind for kind in (SessionStart, SessionEnd, OpenStep, Compile, Test, CompleteStep, ResetStep, Gap)
}
