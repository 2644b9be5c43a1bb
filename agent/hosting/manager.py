"""What a service manager does for agents, whichever it is: systemd's system or user manager, launchd.

A manager plans and another performs: what is asked of it comes back as actions, so that `--print` shows exactly what
would be done, and tests read it as data.  An instance is the agent of one course.  `hosting.systemd` and
`hosting.launchd` are managers, `hosting.actions` performs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Verb = Literal["start", "stop", "restart"]

#: `starting` and `failed` as systemd means them; `stopped`: by somebody's wish, or not started yet; `absent`: the
#: course was not there when its agent was to start.
State = Literal["running", "starting", "stopped", "absent", "failed"]


class ManagerError(Exception):
    """The service manager can't do it.  One line that says why, and what would help."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who an agent runs as."""

    uid: int
    gid: int
    name: str
    home: str


@dataclass(frozen=True, slots=True)
class Write:
    """A file with this content, whatever was there."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Remove:
    """No such file, or no such empty directory."""

    path: str


@dataclass(frozen=True, slots=True)
class Run:
    """A command; `may_fail`: it is no fault when it does."""

    argv: tuple[str, ...]
    may_fail: bool = False


Action = Write | Remove | Run


@dataclass(frozen=True, slots=True)
class Placement:
    """A course (a real, absolute path) and who watches it.  `is_chosen`: somebody named this owner, who need not be
    the directory's."""

    course: str
    owner: Owner
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class Instance:
    """The agent of one course, as its manager knows it.  `name` is the manager's (a unit, a label); `is_chosen` as in
    `Placement`."""

    course: str
    name: str
    uid: int
    state: State
    pid: int | None = None
    detail: str = ""
    is_chosen: bool = False


class Manager(Protocol):
    """One service manager.  Nothing is changed by asking; each may raise ManagerError."""

    @property
    def words(self) -> str:
        """What it is, for people: "systemd", "systemd of this user", "launchd"."""
        ...

    def install(self, placements: Sequence[Placement]) -> list[Action]:
        """Have an agent for each of these courses from now on, and start it.  Doing it again is well."""
        ...

    def uninstall(self, courses: Sequence[str]) -> list[Action]:
        """Have none; stops it.  A course need not exist any more.  What was recorded stays."""
        ...

    def control(self, verb: Verb, courses: Sequence[str] | None) -> list[Action]:
        """None: all that are installed."""
        ...

    def instances(self) -> list[Instance]:
        """All that are installed, by course."""
        ...

    def log_command(self, course: str | None, *, follow: bool, lines: int) -> list[str]:
        """The command that shows what the agent of this course (None: all) said last."""
        ...
