"""Which courses have an agent: install, uninstall, discover.

What is done is planned by a service manager (`hosting.manager`) and performed or shown (`hosting.actions`).
"""

from __future__ import annotations

import argparse
import os
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
    Failed,
    config_of,
    course_root,
)

if TYPE_CHECKING:
    from ..hosting.manager import Action, Instance, Manager, Owner, Placement


def add_managing(command: Callable[..., argparse.ArgumentParser]) -> None:
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


def _install(arguments: argparse.Namespace) -> int:
    from ..hosting.manager import Placement
    from ..hosting.owner import user_named

    manager = managers_here(_program())[0]
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
    if done(manager.install(placements), is_shown=is_shown):
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
    for other in managers_here()[1:]:
        if any(instance.course == one.course for instance in other.instances()):
            raise Failed(ALREADY_RUNNING, f"{words} ({other.words}), and needs no other")
    if (pid := agent_of(f"/{course_key(one.course)}/{NAME}")) is not None:
        raise Failed(ALREADY_RUNNING, f"{words} (process {pid}): stop that one first")


def _uninstall(arguments: argparse.Namespace) -> int:
    manager = managers_here()[0]
    installed = {one.course: one for one in manager.instances()}
    roots = list(dict.fromkeys(known_root(course, installed) for course in arguments.courses))
    there = [root for root in roots if root in installed]
    if there and done(manager.uninstall(there), is_shown=arguments.is_shown):
        return 0
    for root in roots:
        words = "uninstalled" if root in installed else f"it has no agent of {manager.words}"
        if arguments.purge and not arguments.is_shown:
            words += _purged(arguments, root, installed.get(root))
        print(one_line(f"{root}: {words}"))
    return 0


def known_root(course: str, installed: Collection[str]) -> str:
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
    manager, *others = managers_here(_program() if arguments.install else None)
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
        done(manager.uninstall([one.course for one in change.gone]), is_shown=arguments.is_shown)
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
        done(manager.control("start", again), is_shown=True)
    elif again:
        tried(manager, manager.control("start", again), again)
    return 0  # that a student's learn.json is torn is no failure of looking for courses


def managers_here(program: str | None = None) -> list[Manager]:
    from ..machine import managers

    found = managers(program=program)
    if not found:
        raise Failed(UNAVAILABLE, "there is no service manager here (systemd, launchd): use `start --detach`")
    return found


def done(actions: list[Action], *, is_shown: bool = False) -> bool:
    """Perform, or show; returns whether they were only shown."""
    from ..hosting.actions import perform, shown

    if is_shown:
        print("\n".join(map(one_line, shown(actions))))
    else:
        perform(actions)
    return is_shown


def tried(manager: Manager, actions: list[Action], courses: Sequence[str]) -> int:
    """Perform, and tell how these agents fare: an agent that fails says more than its manager about it."""
    from ..hosting.manager import ManagerError

    try:
        done(actions)
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
