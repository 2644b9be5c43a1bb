"""All agents of this machine, or of this user: what is installed, and how each fares.

A student sees the student's own.  Root sees everybody's, and asks each student's files as that student
(`hosting.owner`), so that nothing in them, a link, a pipe, a file server that is gone, harms or holds up more than that
one answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import orjson

from .config import Config, course_key
from .config.places import SYSTEM_STATE_DIRECTORY
from .core.codec import from_plain, to_plain
from .hosting import files
from .hosting.manager import Instance, Manager, ManagerError
from .hosting.owner import as_user, user_of
from .overview import CourseState, read_state, read_states
from .store.journal import dumped

#: So long one user's files may take to be read (s).
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A course with what its service manager says of its agent (None: none has it, somebody started it by hand) and
    what the agent recorded."""

    state: CourseState
    instance: Instance | None

    @property
    def words(self) -> str:
        """How the agent fares, in one word."""
        if self.state.is_running:
            return "paused" if self.state.silent else "running"
        return self.instance.state if self.instance is not None else "stopped"


def managers(*, program: str | None = None) -> list[Manager]:
    """The service managers of this machine in which the caller may have agents, the one for a new agent first; none
    where there is none.  `program` is only needed to install."""
    own = program or files.PACKAGED
    if sys.platform == "darwin":
        from .hosting.launchd import Launchd

        return [Launchd(is_user=is_user, program=own, key_of=_name_of) for is_user in _domains()]
    if not any(os.access(os.path.join(directory, "systemctl"), os.X_OK) for directory in ("/usr/bin", "/bin")):
        return []
    from .hosting.systemd import Systemd

    units = files.shared("systemd")
    return [Systemd(is_user=is_user, program=own, units=units, key_of=_name_of) for is_user in _domains()]


def _domains() -> tuple[bool, ...]:
    """Root has the system's manager, everybody else the own one and sees the system's."""
    return (False,) if os.geteuid() == 0 else (True, False)


def _name_of(course: str) -> str:
    """A name for managers: no student can make a course that has another's, as a checksum would let them."""
    from hashlib import sha256

    return f"{course_key(course)}-{sha256(os.fsencode(course)).hexdigest()[:16]}"


def all_watched(load: Callable[[], Config]) -> list[Watched]:
    """By user and course.  `load` reads the configuration of whoever calls it.  Raises ManagerError, ConfigError."""
    instances = [one for manager in managers() for one in manager.instances()]
    uid = os.geteuid()
    if uid != 0:
        mine = [one for one in instances if one.uid == uid]
        return _joined(_asked([one.course for one in mine], load), mine)
    # Root's own, too: in a container everybody is root.
    users = {one.uid for one in instances} | set(_recorded_users()) | {uid}
    states: list[CourseState] = []
    for user in sorted(users):
        states += _of_user(user, [one.course for one in instances if one.uid == user], load)
    return _joined(states, instances)


def _of_user(uid: int, courses: list[str], load: Callable[[], Config]) -> list[CourseState]:
    if uid == 0:
        return _asked(courses, load)
    try:
        answer = as_user(user_of(uid), lambda: dumped([*map(to_plain, _asked(courses, load))]), PATIENCE_S)
        states = (from_plain(CourseState, one) for one in orjson.loads(answer))
        by_key = {course_key(course): course for course in courses}  # JSON has no names that are not UTF-8
        return [replace(one, uid=uid, course=by_key.get(one.key, one.course)) for one in states]
    except (ManagerError, ValueError) as error:
        return [CourseState(course_key(course), uid, course, trouble=str(error)) for course in courses]


def _asked(courses: Iterable[str], load: Callable[[], Config]) -> list[CourseState]:
    """As the current user: what is recorded, and what is installed and has recorded nothing yet."""
    config = load()
    states = {one.key: one for one in read_states(config.state_dir, config)}
    for course in courses:
        states[course_key(course)] = read_state(course, config.state_dir, config)
    return list(states.values())


def _recorded_users() -> list[int]:
    """Whose journals the system's service keeps."""
    try:
        return [int(name) for name in os.listdir(SYSTEM_STATE_DIRECTORY) if name.isdigit()]
    except OSError:
        return []


def _joined(states: list[CourseState], instances: list[Instance]) -> list[Watched]:
    # Which course a journal is of is the word of the user whose it is, and says nothing about another's agent.
    theirs = {(one.uid, one.course): one for one in instances}
    watched = [Watched(state, theirs.get((state.uid, state.course or ""))) for state in states]
    return sorted(watched, key=lambda one: (one.state.uid, one.state.course or one.state.key))
