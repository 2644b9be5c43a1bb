"""The commands for whoever manages agents: install, uninstall, discover, start, stop, restart, logs, `status --all`.

What is done is planned by a service manager (`hosting.manager`) and performed or shown (`hosting.actions`).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ..config import course_key, course_state_dir
from ..core.course import one_line
from .common import (
    ALREADY_RUNNING,
    FAILURE,
    PERMISSION,
    UNAVAILABLE,
    USAGE,
    Failed,
    become_owner_of,
    config_of,
    course_root,
    explained,
    has_own_state,
    log_to,
    print_json,
)

if TYPE_CHECKING:
    import logging

    from ..config import Config
    from ..hosting.manager import Action, Instance, Manager, Owner, Placement
    from ..machine import Watched

_ALL = "all agents of this machine (root), or yours"
_COURSE_WIDTH = 48
#: So long an agent that was started by hand may take to end.
_STOP_S = 10.0


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`command(name, function, words)` makes a parser."""
    sub = command("install", _install, "have an agent for a course from now on, started at boot; root: for anybody's")
    sub.add_argument("courses", metavar="COURSE_DIR", nargs="+", help="a course, or any directory inside it")
    sub.add_argument("--user", metavar="NAME", help="as root: who it runs as (default: the directory's owner)")
    sub.add_argument("--print", dest="is_shown", action="store_true", help="only show what would be done")

    sub = command("uninstall", _uninstall, "have no agent for a course any more; what was recorded stays")
    sub.add_argument("courses", metavar="COURSE_DIR", nargs="+", help="the course, which need not exist any more")
    sub.add_argument("--purge", action="store_true", help="also erase the journal (not the course's telemetry.json)")
    sub.add_argument("--print", dest="is_shown", action="store_true", help="only show what would be done")

    sub = command("discover", _discover, "find courses, and say which are watched")
    sub.add_argument("roots", metavar="DIR", nargs="*", help="where to look (default: discover_roots, /home)")
    sub.add_argument("--install", action="store_true", help="install what is new, uninstall what is gone")
    sub.add_argument(
        "--grace", metavar="SECONDS", type=float, default=0.0, help="look again for what is gone after this"
    )
    sub.add_argument(
        "--print", dest="is_shown", action="store_true", help="with --install: only show what would be done"
    )

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


# --- install, uninstall, discover ---


def _install(arguments: argparse.Namespace) -> int:
    from ..hosting.manager import Placement
    from ..hosting.owner import user_named

    manager = _managers(_program())[0]
    if arguments.user and os.geteuid() != 0:
        raise Failed(PERMISSION, "--user is for root")
    chosen = user_named(arguments.user) if arguments.user else None
    placements = [
        Placement(root, chosen or _owner(root), is_chosen=chosen is not None)
        for root in dict.fromkeys(map(course_root, arguments.courses))
    ]
    for one in placements:
        _refuse_second(one, manager)
    return _put(manager, placements, is_shown=arguments.is_shown)


def _program() -> str:
    """What is installed; root installs nothing for everybody that is not for everybody."""
    from ..hosting.files import program, why_not_for_all

    own = program()
    for path in (own, sys.executable):
        if os.geteuid() == 0 and (why := why_not_for_all(path)) is not None:
            raise Failed(PERMISSION, f"{why}: install the agent where everybody can run it and only root can change it")
    return own


def _put(manager: Manager, placements: Sequence[Placement], *, is_shown: bool) -> int:
    """Install these, and say how they fare."""
    if _done(manager.install(placements), is_shown=is_shown):
        return 0
    found = {one.course: one for one in manager.instances()}
    failed = 0
    for one in placements:
        instance = found.get(one.course)
        failed += instance is None or instance.state == "failed"
        print(one_line(f"{one.course}: {_fate(instance)}, as {one.owner.name} ({manager.words})"))
    return FAILURE if failed else 0


def _fate(instance: Instance | None) -> str:
    if instance is None:
        return "not installed"
    return f"installed, {instance.state}{f': {instance.detail}' if instance.state == 'failed' else ''}"


def _owner(root: str) -> Owner:
    from ..hosting.owner import owner_of, user_of

    return owner_of(root) if os.geteuid() == 0 else user_of(os.geteuid())


def _refuse_second(one: Placement, manager: Manager) -> None:
    """A course has one agent: who has it from elsewhere (the own service manager, `start --detach`) keeps that."""
    from ..sensors.processes.servers import agent_of
    from ..store.lock import NAME

    if any(instance.course == one.course for instance in manager.instances()):
        return
    words = f"{one.course}: it has an agent already"
    for other in _managers()[1:]:
        if any(instance.course == one.course for instance in other.instances()):
            raise Failed(ALREADY_RUNNING, f"{words} ({other.words}), and needs no other")
    if (pid := agent_of(f"/{course_key(one.course)}/{NAME}")) is not None:
        raise Failed(ALREADY_RUNNING, f"{words} (process {pid}): stop that one first")


def _uninstall(arguments: argparse.Namespace) -> int:
    manager = _managers()[0]
    installed = {one.course: one for one in manager.instances()}
    roots = list(dict.fromkeys(_known_root(course, installed) for course in arguments.courses))
    there = [root for root in roots if root in installed]
    if there and _done(manager.uninstall(there), is_shown=arguments.is_shown):
        return 0
    for root in roots:
        words = "uninstalled" if root in installed else f"it has no agent of {manager.words}"
        if arguments.purge and not arguments.is_shown:
            words += _purged(arguments, root, installed.get(root))
        print(one_line(f"{root}: {words}"))
    return 0


def _known_root(course: str, installed: Collection[str]) -> str:
    """The course's path as it was installed: the course, or what is left of it, may be gone."""
    from ..sensors.course import CourseError, find_course

    path = os.path.realpath(course)
    if path in installed:
        return path
    with suppress(CourseError):
        return os.path.realpath(find_course(course))
    inside = [one for one in installed if path.startswith(f"{one}/")]
    return max(inside, key=len, default=path)


def _purged(arguments: argparse.Namespace, root: str, instance: Instance | None) -> str:
    from ..hosting.manager import ManagerError
    from ..hosting.owner import as_user, owner_of, user_of

    def erase() -> bytes:
        from ..forgetting import erase_state

        return b"yes" if erase_state(course_state_dir(config_of(arguments), root)) else b"no"

    if os.geteuid() != 0:
        is_erased = erase()
    else:
        try:
            user = user_of(instance.uid) if instance is not None else owner_of(root)
        except (ManagerError, OSError):
            return "; whose journal it had is not known"
        is_erased = erase() if user.uid == 0 else as_user(user, erase, 60.0)
    return "; its journal is erased" if is_erased == b"yes" else "; it had no journal"


def _discover(arguments: argparse.Namespace) -> int:
    from ..discovery import Difference, Found, Skipped, difference, find_courses, was_deleted
    from ..hosting.manager import ManagerError, Placement
    from ..hosting.owner import user_of

    config = config_of(arguments)
    roots = arguments.roots or list(config.discover_roots)
    manager, *others = _managers(_program() if arguments.install else None)
    users = None if os.geteuid() == 0 else {os.geteuid()}
    installed = manager.instances()
    elsewhere = {one.course for other in others for one in other.instances()}

    def look() -> tuple[list[Found | Skipped], Difference]:
        found = list(find_courses(roots))
        ours = [one for one in found if one.path not in elsewhere]
        change = difference(ours, installed, roots, per_user=config.discover_per_user, users=users)
        return found, replace(change, gone=tuple(one for one in change.gone if was_deleted(one.course, roots)))

    found, change = look()
    if change.gone and arguments.grace > 0:
        time.sleep(arguments.grace)  # it may be deleted only to be cloned again
        found, change = look()
    there = {one.path for one in found if isinstance(one, Found)}
    words = {one.path: "new" for one in change.new} | {one.path: "another user's now" for one in change.moved}
    for course in found:
        if isinstance(course, Found) and course.path not in {one.path for one in change.skipped}:
            print(one_line(f"{words.get(course.path, 'watched'):<10} {course.path}"))
    for one in change.gone:
        print(one_line(f"{'gone':<10} {one.course}"))
    for left_out in change.skipped:
        print(one_line(f"{'left out':<10} {left_out.path}: {left_out.why}"))
    if not arguments.install:
        return 0
    if change.gone:
        _done(manager.uninstall([one.course for one in change.gone]), is_shown=arguments.is_shown)
    placements: list[Placement] = []
    for course in (*change.new, *change.moved):
        try:
            placements.append(Placement(course.path, user_of(course.uid)))
        except ManagerError as error:
            print(one_line(f"{'left out':<10} {course.path}: {error}"))
    if placements:
        _put(manager, placements, is_shown=arguments.is_shown)
    # What was not there, or broken, may be well now.  What somebody stopped stays stopped.
    again = [one.course for one in installed if one.state in ("absent", "failed") and one.course in there]
    if again and arguments.is_shown:
        _done(manager.control("start", again), is_shown=True)
    elif again:
        _tried(manager, manager.control("start", again), again)
    return 0  # that a student's learn.json is torn is no failure of looking for courses


# --- start, stop, restart, logs ---


def _control(arguments: argparse.Namespace) -> int:
    from ..machine import managers

    if arguments.all == bool(arguments.courses):
        raise Failed(USAGE, "name one course or more, or --all")
    if getattr(arguments, "detach", False):
        if arguments.all:
            raise Failed(USAGE, "with --detach, name one course or more")
        return _start_detached(arguments)
    if arguments.all:
        manager = _managers()[0]
        instances = manager.instances()
        if not instances:
            raise Failed(UNAVAILABLE, f"no agent is installed ({manager.words})")
        return _tried(manager, manager.control(arguments.verb, None), [one.course for one in instances])
    found = [(manager, [one.course for one in manager.instances()]) for manager in managers()]
    return max(_control_one(arguments, course, found) for course in arguments.courses)


def _control_one(arguments: argparse.Namespace, course: str, found: Sequence[tuple[Manager, list[str]]]) -> int:
    for manager, courses in found:
        root = _known_root(course, courses)
        if root in courses:
            return _tried(manager, manager.control(arguments.verb, [root]), [root])
    return _control_by_hand(arguments, _known_root(course, ()))


def _tried(manager: Manager, actions: list[Action], courses: Sequence[str]) -> int:
    """Perform, and tell how these agents fare: an agent that fails says more than its manager about it."""
    from ..hosting.manager import ManagerError

    try:
        _done(actions)
    except ManagerError:
        if _tell(manager, courses) == 0:
            raise
        return FAILURE
    return _tell(manager, courses)


def _tell(manager: Manager, courses: Sequence[str]) -> int:
    """How these fare now; 1 where one failed."""
    told = [one for one in manager.instances() if one.course in courses]
    for one in told:
        print(one_line(f"{one.course}: {one.state}{f': {one.detail}' if one.state == 'failed' else ''}"))
    return FAILURE if any(one.state == "failed" for one in told) else 0


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
        return _replace(_managers()[0].log_command(None, follow=follow, lines=lines))
    for manager in managers():
        courses = [one.course for one in manager.instances()]
        if (root := _known_root(arguments.course, courses)) in courses:
            return _replace(manager.log_command(root, follow=follow, lines=lines))
    if os.geteuid() == 0:
        become_owner_of(arguments)
    root = _known_root(arguments.course, ())
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


# --- status --all ---


def status_all(arguments: argparse.Namespace) -> int:
    """A line for each agent; 0 where all are well, 1 where one is not."""
    from ..core.codec import to_plain
    from ..machine import all_watched
    from ..store.journal import dumped

    watched = all_watched(lambda: config_of(arguments))
    if arguments.json:
        lines = [{**to_plain(one.state), "state": one.words, "detail": _trouble(one)} for one in watched]
        print_json(dumped(lines))
    elif not watched:
        print("no agent is installed, and nothing is recorded")
    else:
        print("\n".join(map(one_line, table(watched, int(time.time() * 1000)))))
    return FAILURE if any(one.words == "failed" or one.state.trouble for one in watched) else 0


def _trouble(one: Watched) -> str | None:
    return one.state.trouble or (one.instance.detail if one.instance is not None and one.words == "failed" else None)


def table(watched: Sequence[Watched], now: int) -> list[str]:
    """Columns for people; what is wrong stands in a line of its own below."""
    from ..explain import duration

    rows = [("COURSE", "USER", "STATE", "PROCESSES", "LAST EVENT", "QUEUE", "GAPS")]
    notes: list[str | None] = [None]
    for one in watched:
        state = one.state
        level = state.processes.level if state.processes is not None else "-"
        ago = "never" if state.last_event_at is None else f"{duration(max(0, now - state.last_event_at))} ago"
        queue = f"{state.waiting}{f' (+{state.parked} aside)' if state.parked else ''}"
        course = _shortened(one_line(state.course or state.key))
        rows.append((course, _login(state.uid), one.words, level, ago, queue, str(state.gaps)))
        notes.append(_trouble(one) or (state.silent if one.words == "paused" else None))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    for row, note in zip(rows, notes, strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if note:
            lines.append(f"    {note}")
    return lines


def _shortened(path: str) -> str:
    """At most so wide that the other columns find room; what a path is told by is at its ends."""
    if len(path) <= _COURSE_WIDTH:
        return path
    half = (_COURSE_WIDTH - 3) // 2
    return f"{path[: _COURSE_WIDTH - 3 - half]}...{path[-half:]}"


def _login(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# --- helpers ---


def _managers(program: str | None = None) -> list[Manager]:
    from ..machine import managers

    found = managers(program=program)
    if not found:
        raise Failed(UNAVAILABLE, "there is no service manager here (systemd, launchd): use `start --detach`")
    return found


def _done(actions: list[Action], *, is_shown: bool = False) -> bool:
    """Perform, or show; returns whether they were only shown."""
    from ..hosting.actions import perform, shown

    if is_shown:
        print("\n".join(map(one_line, shown(actions))))
    else:
        perform(actions)
    return is_shown
