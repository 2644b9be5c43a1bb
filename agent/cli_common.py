"""What all commands share: exit codes, the one error with words, and finding course, configuration and journal."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from .config import Config, course_state_dir, load_config

if TYPE_CHECKING:
    from .core.course import Course
    from .store.journal import Journal

FAILURE, USAGE, UNAVAILABLE, CANNOT_CREATE, ALREADY_RUNNING, PERMISSION, CONFIGURATION = 1, 2, 69, 73, 75, 77, 78


class Failed(Exception):
    """An error that the user can do something about: exit code and one line."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(line)
        self.code = code


def config_of(arguments: argparse.Namespace) -> Config:
    given = {name: getattr(arguments, name, None) for name in ("state_dir", "log_level")}
    return load_config(file=getattr(arguments, "config", None), environment=os.environ, arguments=given)


def course_of(directory: str) -> Course:
    """The course that holds this directory; 77 or 78 with one line where there is none."""
    from .sensors.course import CourseError, find_course, read_course

    try:
        return read_course(find_course(directory))
    except CourseError as error:
        raise Failed(PERMISSION if error.permission else CONFIGURATION, str(error)) from None


def recorded(arguments: argparse.Namespace) -> tuple[Course, Journal, str]:
    """The course, its journal and the directory of that; 69 where nothing is recorded.

    What was recorded can be read whatever became of the course: a broken learn.json, a deleted directory.
    """
    from .store.journal import Journal, JournalError

    course, config = known_course(arguments), config_of(arguments)
    directory = course_state_dir(config, course.root)
    try:
        return course, Journal.open(directory, create=False, read_only=True), directory
    except JournalError as error:
        why = silence(config, directory)
        raise Failed(UNAVAILABLE, f"nothing is recorded: {why}" if why else str(error)) from None


def silence(config: Config, directory: str) -> str | None:
    """Why nothing is recorded and sent in this course now; None: it is."""
    from .store.control import read_control

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
    from .core.course import Course
    from .sensors.course import CourseError, find_course, read_course

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
