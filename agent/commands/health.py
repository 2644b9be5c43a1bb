"""The commands that tell an admin how agents fare: doctor, support-bundle, metrics."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..core.course import one_line
from .common import FAILURE, Failed, become_owner_of, config_of, course_of, loaded_of, print_json

if TYPE_CHECKING:
    from ..checks.finding import Place
    from ..config.loading import Loaded
    from ..core.course import Course


def add_doctor(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`command(name, function, words)` makes a parser."""
    sub = command("doctor", _doctor, "what is well here and what is not, and the commands that mend it")
    _add_course(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object")

    sub = command(
        "support-bundle", _support_bundle, "a file for whoever helps: no code, no output, no token, no name is in it"
    )
    _add_course(sub)
    sub.add_argument("--output", metavar="FILE", help="the .tar.gz to make (default: one named by the time, here)")

    sub = command("metrics", _metrics, "for node_exporter's textfile collector: how the agents fare, in numbers")
    sub.add_argument("--output", metavar="FILE", help="replace this file in one moment (default: stdout)")


def _add_course(sub: argparse.ArgumentParser) -> None:
    words = "the course, or any directory inside it (default: here, where this is one; else only the machine)"
    sub.add_argument("course", metavar="COURSE_DIR", nargs="?", help=words)


def _doctor(arguments: argparse.Namespace) -> int:
    from ..doctor import examine, has_fault, lines, plain
    from ..store.journal import dumped

    place, _ = _place(arguments, _course(arguments))
    examined = examine(place)
    if arguments.json:
        print_json(dumped(plain(examined, place)))
    else:
        print("\n".join(lines(examined)))
    return FAILURE if has_fault(examined) else 0


def _support_bundle(arguments: argparse.Namespace) -> int:
    from ..support.bundle import default_name, new_file, write_bundle
    from ..support.case import Case

    path = arguments.output or default_name()
    try:
        stream = new_file(path)  # as the caller, whose directory it is
    except FileExistsError:
        raise Failed(FAILURE, f"{path}: it is there already, and is left as it is") from None
    course, why = None, None
    try:
        if os.geteuid() == 0:
            become_owner_of(arguments)
        course = _course(arguments)
    except Failed as error:  # no such course: what can be said without one is still said
        why = str(error)
    try:
        with stream:
            left_out = write_bundle(stream, Case(*_place(arguments, course), arguments.course, why))
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    print(f"{path}: look into it before you give it away")
    for words in left_out:
        print(one_line(f"not in it: {words}"), file=sys.stderr)
    return 0


def _metrics(arguments: argparse.Namespace) -> int:
    from ..machine import all_watched
    from ..metrics import rendered, write_metrics

    text = rendered(one.state for one in all_watched(lambda: config_of(arguments)))
    if arguments.output:
        write_metrics(arguments.output, text)
    else:
        sys.stdout.write(text)
    return 0


def _course(arguments: argparse.Namespace) -> Course | None:
    """The one that is named, else the one here, if there is one.  Raises Failed where the named one can't be read."""
    from ..doctor import PATIENCE_S, Task

    try:
        # In a thread, because the directory may lie in a dead network file system.
        return Task(lambda: course_of(arguments.course or ".")).result(time.monotonic() + PATIENCE_S)
    except TimeoutError:
        if arguments.course:
            raise Failed(FAILURE, f"{arguments.course}: no answer within {PATIENCE_S:g} s") from None
    except Failed:
        if arguments.course:
            raise
    return None


def _place(arguments: argparse.Namespace, course: Course | None) -> tuple[Place, Loaded]:
    """What is looked at; a fault in the configuration is part of what is told."""
    from ..checks.finding import Place
    from ..machine import managers

    loaded = loaded_of(arguments, course.root if course else None)
    return Place(loaded.config, course, loaded.faults, tuple(managers())), loaded
