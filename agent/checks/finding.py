"""The words of a check: where it looks, what it found, and how bad that is."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ..config import Config, Fault, course_state_dir
from ..core.course import Course
from ..hosting.manager import Manager
from ..sensors.child import Answer, ask


class Level(IntEnum):
    """How bad it is.  A note is worth knowing; with a warning the agent works, but sees or sends less than it could;
    with a fault it does not work."""

    OK = 0
    NOTE = 1
    WARNING = 2
    FAULT = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: one line, and the command that mends it, "" where there is none."""

    level: Level
    words: str
    mend: str = ""


def ok(words: str) -> Finding:
    return Finding(Level.OK, words)


def note(words: str, mend: str = "") -> Finding:
    return Finding(Level.NOTE, words, mend)


def warning(words: str, mend: str = "") -> Finding:
    return Finding(Level.WARNING, words, mend)


def fault(words: str, mend: str = "") -> Finding:
    return Finding(Level.FAULT, words, mend)


def worst(findings: Sequence[Finding]) -> Finding:
    """Several in one: what is bad, or all where nothing is."""
    level = max(one.level for one in findings)
    told = [one for one in findings if one.level is not Level.OK] or findings
    mend = next((one.mend for one in sorted(findings, key=lambda one: -one.level) if one.mend), "")
    return Finding(level, "; ".join(one.words for one in told), mend)


@dataclass(frozen=True, slots=True)
class Place:
    """What is looked at: this machine with this configuration (without what is at fault in it), a course, if any, and
    the service managers that may have agents here."""

    config: Config
    course: Course | None = None
    faults: tuple[Fault, ...] = ()
    managers: tuple[Manager, ...] = ()

    @property
    def directory(self) -> str:
        """Where what is recorded lies: of the course, else of all."""
        return course_state_dir(self.config, self.course.root) if self.course else self.config.state_dir

    @property
    def root(self) -> str:
        assert self.course is not None, "a check of the machine has no course"
        return self.course.root


def command(*words: str) -> str:
    """A command line that a shell takes as it is."""
    return shlex.join(words)


def asked(*words: str, within_s: float = 2.0, environment: Mapping[str, str] | None = None) -> Answer | None:
    """What a program of the system answers; None where it is not there, or does not answer in time."""
    environment = {**(os.environ if environment is None else environment), "LC_ALL": "C"}
    try:
        answer = ask(list(words), environment, until=time.monotonic() + within_s, limit=1 << 16)
    except OSError:
        return None
    return None if answer.code is None else answer


def existing(path: str) -> str:
    """This path, or the nearest one above it that is there."""
    while not os.path.exists(path) and (above := os.path.dirname(path)) != path:
        path = above
    return path
