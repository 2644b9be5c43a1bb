"""A process that detaches, as `learnpack-agent start --detach` does:

    python -m tests.hosting.detaching WHAT COURSE STATE

WHAT is "agent" for the real agent, or one of the short lives below, each of which comes to an end in its own way.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable

from agent.commands.common import ALREADY_RUNNING, CANNOT_CREATE, CONFIGURATION, USAGE
from agent.config import course_state_dir, load_config
from agent.hosting.detached import CannotDetach, DidNotStart, start_detached
from agent.hosting.notify import notify
from agent.sensors.course import CourseError
from agent.store.lock import AlreadyRunning


def watch(course: str, state: str) -> None:
    from agent.host import run

    def read() -> object:
        return load_config(file=None, environment=os.environ, arguments={"state_dir": state})

    run(course, read(), read)  # type: ignore[arg-type]


def speak(course: str, state: str) -> None:
    """A program that it starts has a stdout, and so has whoever prints."""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "echo from a program; cat"], {})
    os.waitpid(child, 0)
    os.write(2, b"from a library\n")
    notify(READY="1")


def tell_environment(course: str, state: str) -> None:
    notify(READY="1")
    os.write(2, " ".join(sorted(os.environ)).encode() + b"\n")


def fail_late(course: str, state: str) -> None:
    notify(READY="1")
    raise RuntimeError("later on")


def be_killed(course: str, state: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(course: str, state: str) -> None:
    """Stopped while it starts."""


LIVES: dict[str, Callable[[str, str], None]] = {
    "agent": watch,
    "speak": speak,
    "tell-environment": tell_environment,
    "fail-late": fail_late,
    "be-killed": be_killed,
    "leave": leave,
}


def explained(error: Exception) -> tuple[int, str]:
    codes = {CourseError: CONFIGURATION, AlreadyRunning: ALREADY_RUNNING}
    return codes.get(type(error), CANNOT_CREATE), str(error)


def main(what: str, course: str, state: str) -> int:
    if what == "service":  # what systemd says to the process that it starts
        os.environ["SYSTEMD_EXEC_PID"] = str(os.getpid())
        what = "agent"

    def run(log: logging.Handler) -> None:
        logging.basicConfig(level="INFO", handlers=[log])
        LIVES[what](course, state)

    config = load_config(file=None, environment={}, arguments={"state_dir": state})
    try:
        print(start_detached(run, course_state_dir(config, course), explained))
    except CannotDetach as error:
        print(error, file=sys.stderr)
        return USAGE
    except DidNotStart as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
