"""What agents do now: start, stop, restart, logs; with a service manager or without one (`start --detach`)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..config import course_state_dir
from ..core.course import one_line
from .common import (
    ALREADY_RUNNING,
    FAILURE,
    UNAVAILABLE,
    USAGE,
    Failed,
    become_owner_of,
    config_of,
    course_root,
    explained,
    has_own_state,
    log_to,
)
from .managing import known_root, managers_here, tried

if TYPE_CHECKING:
    import logging

    from ..config import Config
    from ..hosting.manager import Manager

_ALL = "all agents of this machine (root), or yours"
#: So long an agent that was started by hand may take to end.
_STOP_S = 10.0


def add_control(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`command(name, function, words)` makes a parser."""
    for verb, words in (("start", "start"), ("stop", "stop"), ("restart", "stop and start")):
        sub = command(verb, _control, f"{words} the agent of a course, or all")
        sub.set_defaults(verb=verb)
        sub.add_argument("courses", metavar="COURSE_DIR", nargs="*", help="the course")
        sub.add_argument("--all", action="store_true", help=_ALL)
        if verb == "start":
            sub.add_argument("--detach", action="store_true", help="without a service manager: as a daemon of its own")

    sub = command("logs", _logs, "what the agent of a course said")
    sub.add_argument("course", metavar="COURSE_DIR", nargs="?", default=".", help="the course (default: here)")
    sub.add_argument("--all", action="store_true", help=_ALL)
    sub.add_argument("--follow", action="store_true", help="go on with what it says")
    sub.add_argument("--lines", metavar="N", type=int, default=50, help="so many lines at first (default: 50)")


def _control(arguments: argparse.Namespace) -> int:
    from ..machine import managers

    if arguments.all == bool(arguments.courses):
        raise Failed(USAGE, "name one course or more, or --all")
    if getattr(arguments, "detach", False):
        if arguments.all:
            raise Failed(USAGE, "with --detach, name one course or more")
        return _start_detached(arguments)
    if arguments.all:
        manager = managers_here()[0]
        instances = manager.instances()
        if not instances:
            raise Failed(UNAVAILABLE, f"no agent is installed ({manager.words})")
        return tried(manager, manager.control(arguments.verb, None), [one.course for one in instances])
    found = [(manager, [one.course for one in manager.instances()]) for manager in managers()]
    return max(_control_one(arguments, course, found) for course in arguments.courses)


def _control_one(arguments: argparse.Namespace, course: str, found: Sequence[tuple[Manager, list[str]]]) -> int:
    for manager, courses in found:
        root = known_root(course, courses)
        if root in courses:
            return tried(manager, manager.control(arguments.verb, [root]), [root])
    return _control_by_hand(arguments, known_root(course, ()))


def _control_by_hand(arguments: argparse.Namespace, root: str) -> int:
    """An agent that no service manager has: `start --detach`, or `run` in a terminal, can be stopped."""
    from ..hosting.manager import ManagerError
    from ..hosting.owner import as_user, owner_of

    code, line = _by_hand(arguments, root)
    if code == UNAVAILABLE and os.geteuid() == 0:
        owner = None
        with suppress(ManagerError, OSError):
            owner = owner_of(root)
        if owner is not None and owner.uid != 0:

            def ask() -> bytes:
                return os.fsencode("{} {}".format(*_by_hand(arguments, root)))

            number, _, line = os.fsdecode(as_user(owner, ask, _STOP_S + 5)).partition(" ")
            code = int(number)
    print(one_line(line if code == 0 else f"learnpack-agent: {line}"), file=sys.stderr if code else sys.stdout)
    return code


def _by_hand(arguments: argparse.Namespace, root: str) -> tuple[int, str]:
    """The same as whoever calls, with what is theirs: exit code and line."""
    from ..store.lock import holder

    directory = course_state_dir(config_of(arguments, root), root)
    # In another's directory the lock may name any process, and root would end it.
    pid = holder(directory) if _is_ours(directory) else None
    if arguments.verb != "stop" and pid is not None:
        return ALREADY_RUNNING, f"{root}: its agent runs without a service manager: stop it first"
    if arguments.verb != "stop":
        hint = "`install` it, or `start --detach` one without a service manager"
        return UNAVAILABLE, f"{root}: no agent is installed: {hint}"
    if pid is None:
        return UNAVAILABLE, f"{root}: no agent runs for it"
    if pid == 0:
        return FAILURE, f"{root}: which process its agent is can't be read"
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _STOP_S
    while holder(directory) == pid:
        if time.monotonic() > end:
            return FAILURE, f"{root}: process {pid} goes on"
        time.sleep(0.02)
    return 0, f"{root}: stopped"


def _is_ours(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _start_detached(arguments: argparse.Namespace) -> int:
    from ..hosting.detached import CannotDetach, DidNotStart, log_path, start_detached

    code = 0
    for course in arguments.courses:
        root = course_root(course)
        config = config_of(arguments, root)
        directory = course_state_dir(config, root)

        def watch(handler: logging.Handler, root: str = root, config: Config = config) -> None:
            from ..host import run

            log_to(handler, config.log_level)
            run(root, config, lambda: config_of(arguments, root), is_only=not has_own_state(arguments))

        try:
            pid = start_detached(watch, directory, explained)
        except CannotDetach as error:
            raise Failed(USAGE, str(error)) from None
        except DidNotStart as error:
            print(f"learnpack-agent: {one_line(f'{root}: {error}')}", file=sys.stderr)
            code = error.code
        else:
            print(one_line(f"{root}: started, process {pid}, log {log_path(directory)}"))
    return code


def _logs(arguments: argparse.Namespace) -> int:
    from ..hosting.detached import log_path
    from ..machine import managers

    follow, lines = arguments.follow, arguments.lines
    if arguments.all:
        return _replace(managers_here()[0].log_command(None, follow=follow, lines=lines))
    for manager in managers():
        courses = [one.course for one in manager.instances()]
        if (root := known_root(arguments.course, courses)) in courses:
            return _replace(manager.log_command(root, follow=follow, lines=lines))
    if os.geteuid() == 0:
        become_owner_of(arguments)
    root = known_root(arguments.course, ())
    log = log_path(course_state_dir(config_of(arguments, root), root))
    if not os.path.exists(log):
        raise Failed(UNAVAILABLE, f"{root}: no agent is installed, and none was started with --detach")
    return _replace(["tail", "-n", str(lines), *(["-F"] if follow else []), log])


def _replace(argv: list[str]) -> int:
    """This process becomes that command."""
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        raise Failed(UNAVAILABLE, f"{argv[0]}: {error.strerror}") from None
