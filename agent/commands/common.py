"""What all commands share: exit codes, the one error with words, and finding course, configuration and journal."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..config import Config, ConfigError, course_state_dir, load_config
from ..core.course import one_line

if TYPE_CHECKING:
    import logging

    from ..config.loading import Loaded
    from ..core.course import Course
    from ..store.journal import Journal

FAILURE, USAGE, UNAVAILABLE, CANNOT_CREATE, ALREADY_RUNNING, PERMISSION, CONFIGURATION = 1, 2, 69, 73, 75, 77, 78
#: Of what nobody expected: the interpreter's own.
UNEXPLAINED = FAILURE


class Failed(Exception):
    """An error that the user can do something about: exit code and one line."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(line)
        self.code = code


def config_of(arguments: argparse.Namespace, course: str | None = None) -> Config:
    """As it is now, for the course with this real path (None: for none in particular).  Raises ConfigError."""
    return load_config(**_sources(arguments), course=course)


def loaded_of(arguments: argparse.Namespace, course: str | None = None) -> Loaded:
    """The same with its faults and with where everything is from."""
    from ..config.loading import load

    return load(**_sources(arguments), course=course)


def _sources(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(arguments, name, None) for name in ("state_dir", "log_level")}
    return {"file": getattr(arguments, "config", None), "environment": os.environ, "arguments": given}


def course_root(directory: str) -> str:
    """The real path of the course that holds this directory; 77 or 78 with one line where there is none."""
    from ..sensors.course import CourseError, find_course, true_path

    try:
        return true_path(find_course(directory))
    except CourseError as error:
        raise Failed(PERMISSION if error.permission else CONFIGURATION, str(error)) from None


def become_owner(arguments: argparse.Namespace) -> None:
    """Root, asked about one course, works as the user whose records those are, else as the one whose course it is:
    what lies in a student's directories may be a link to anywhere, and what root made there the student's agent could
    not open.  Only `run` stays root's, which is what somebody has who works as root on files of another (a container).
    """
    if arguments.command not in _AS_ROOT:
        become_owner_of(arguments)


def become_owner_of(arguments: argparse.Namespace) -> None:
    """The same, whatever the command; nothing where it names no course."""
    from ..hosting.owner import become, whoever_has

    course = getattr(arguments, "course", None)
    if not isinstance(course, str) or getattr(arguments, "all", False):
        return
    try:
        root = course_root(course)
    except Failed:
        root = os.path.realpath(course)
    directories = [root]
    with suppress(ConfigError):  # the command says it
        directories.insert(0, course_state_dir(config_of(arguments, root), root))
    uid = next((one for one in map(_uid_of, directories) if one is not None), 0)
    if uid == 0 and not os.path.isdir(directories[0]):
        uid = _uid_of_agent(root)
    if uid != 0:
        become(whoever_has(uid))


def _uid_of(directory: str) -> int | None:
    try:
        return os.lstat(directory).st_uid
    except OSError:
        return None


def _uid_of_agent(root: str) -> int:
    """Who watches this course of root's (`install --user`); root where nobody does."""
    from ..hosting.manager import ManagerError
    from ..machine import managers

    with suppress(ManagerError):
        return next((one.uid for manager in managers() for one in manager.instances() if one.course == root), 0)
    return 0


#: Commands that name a course and don't work in its owner's directories, or do it in a child, or later.
_AS_ROOT = ("run", "start", "stop", "restart", "install", "uninstall", "logs", "replay", "support-bundle")


def course_of(directory: str) -> Course:
    """The course that holds this directory; 77 or 78 with one line where there is none."""
    from ..sensors.course import CourseError, find_course, read_course

    try:
        return read_course(find_course(directory))
    except CourseError as error:
        raise Failed(PERMISSION if error.permission else CONFIGURATION, str(error)) from None


def recorded(arguments: argparse.Namespace) -> tuple[Course, Journal, str]:
    """The course, its journal and the directory of that; 69 where nothing is recorded.

    What was recorded can be read whatever became of the course: a broken learn.json, a deleted directory.
    """
    from ..store.journal import Journal, JournalError

    course = known_course(arguments)
    config = config_of(arguments, course.root)
    directory = course_state_dir(config, course.root)
    try:
        return course, Journal.open(directory, create=False, read_only=True), directory
    except JournalError as error:
        why = silence(config, directory)
        raise Failed(UNAVAILABLE, f"nothing is recorded: {why}" if why else str(error)) from None


def silence(config: Config, directory: str) -> str | None:
    """Why nothing is recorded and sent in this course now; None: it is."""
    from ..store.control import read_control

    try:
        control = read_control(directory)
    except ValueError as error:
        return str(error)
    why = control.why_silent(time.time_ns() // 1_000_000, needs_consent=config.consent)
    return f"{why}, until {time_of(control.silent_until)}" if why == "paused" and control.silent_until else why


def time_of(ms: int) -> str:
    """A time (ms) as the student's clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))


def known_course(arguments: argparse.Namespace) -> Course:
    """The course, or what is left of one of which something is recorded; 77 or 78 with one line where there is none."""
    from ..core.course import Course
    from ..sensors.course import CourseError, find_course, read_course

    root = os.path.realpath(arguments.course)
    try:
        root = os.path.realpath(find_course(arguments.course))
        return read_course(root)
    except CourseError as error:
        if not os.path.isdir(course_state_dir(config_of(arguments), root)):
            raise Failed(PERMISSION if error.permission else CONFIGURATION, str(error)) from None
        return Course(root, os.path.basename(root))


def print_json(line: bytes) -> None:
    """JSON is UTF-8, whatever the terminal's encoding: other programs read it."""
    sys.stdout.buffer.write(line + b"\n")


def has_own_state(arguments: argparse.Namespace) -> bool:
    """Whether somebody named the state directory: an agent with one of its own may work beside another."""
    return hasattr(arguments, "state_dir") or bool(os.environ.get("LEARNPACK_AGENT_STATE_DIR"))


def explained(error: Exception) -> tuple[int, str]:
    """The exit code and the line for what ended an agent; UNEXPLAINED where it is a fault of ours, or of the disk."""
    from ..sensors.course import CourseError
    from ..store.journal import JournalError, JournalTooNew
    from ..store.lock import AlreadyRunning

    match error:
        case CourseError():
            return (PERMISSION if error.permission else CONFIGURATION), str(error)
        case AlreadyRunning():
            return ALREADY_RUNNING, str(error)
        case JournalTooNew():
            return CONFIGURATION, str(error)
        case JournalError():
            return CANNOT_CREATE, str(error)
        case PermissionError():
            return PERMISSION, f"{error.filename or 'permission'}: {error.strerror}"
        case OSError():
            return CANNOT_CREATE, f"{error.filename or 'error'}: {error.strerror or error}"
    return UNEXPLAINED, f"{type(error).__name__}: {error}"


def log_to(handler: logging.Handler, level: str) -> None:
    """Log lines as the journal of systemd wants them (priority in front), and readable elsewhere."""
    import logging

    class Format(logging.Formatter):
        priorities = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))

        def format(self, record: logging.LogRecord) -> str:
            line = one_line(super().format(record))
            if not under_systemd:
                return line
            return f"<{next(number for level, number in self.priorities if record.levelno >= level)}>{line}"

    under_systemd = is_journal_of_systemd()
    handler.setFormatter(Format("%(message)s" if under_systemd else "%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # it would write whole URLs


def is_journal_of_systemd() -> bool:
    """Whether stderr is: $JOURNAL_STREAM names the device and inode of a service's stream, and everything that the
    service starts inherits it."""
    stream = os.environ.get("JOURNAL_STREAM")
    if stream is None:
        return False
    try:
        status = os.fstat(sys.stderr.fileno())
    except OSError:  # something else stands in for it
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
