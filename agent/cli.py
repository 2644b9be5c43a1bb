"""`learnpack-agent`: arguments → calls, errors → one line and an exit code.

Exit codes: 0 well, 1 failure, 2 usage, 69 nothing there to show, 73 cannot create, 75 already running for this
course (`repair`: also a LearnPack server), 77 permission, 78 configuration (also: no such course, a broken
learn.json).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from . import __version__
from .commands.common import (
    ALREADY_RUNNING,
    CANNOT_CREATE,
    CONFIGURATION,
    FAILURE,
    PERMISSION,
    UNAVAILABLE,
    UNEXPLAINED,
    Failed,
    become_owner,
    config_of,
    course_of,
    explained,
    has_own_state,
    is_journal_of_systemd,
    log_to,
    print_json,
    recorded,
    silence,
)
from .commands.completion import add_completion
from .commands.configuration import add_config
from .commands.controlling import add_control
from .commands.delivery import add_commands
from .commands.health import add_doctor
from .commands.managing import add_managing
from .config import LOG_LEVELS, ConfigError, course_key, course_state_dir
from .core.course import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from .store.journal import Journal, Record

_DESCRIPTION = """\
Watches one LearnPack course directory and writes down what the student does there: steps opened, programs run,
tests passed.  LearnPack does not have to call it, and terminal work is seen too.  Nothing leaves this machine unless
a sink is configured or the course's learn.json names a telemetry URL.
"""

_EPILOG = """\
first steps:
  learnpack-agent demo                 see it work, in a temporary course
  learnpack-agent run ~/my-course      watch a course (what systemd and launchd start; Ctrl-C ends it)
  learnpack-agent status ~/my-course   where the student is, and whether everything can be seen
"""


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    options = common.add_argument_group("options of all commands")
    options.add_argument(
        "--state-dir",
        metavar="DIR",
        type=_absolute,
        default=argparse.SUPPRESS,
        help="where journals are kept, one directory per course (default: $LEARNPACK_AGENT_STATE_DIR,"
        " $STATE_DIRECTORY, /var/lib/learnpack-agent/UID if that is there and yours, or the XDG state home)",
    )
    options.add_argument(
        "--config",
        metavar="FILE",
        type=_absolute,
        default=argparse.SUPPRESS,
        help="a config.toml to read after all others",
    )
    options.add_argument(
        "--log-level", choices=LOG_LEVELS, default=argparse.SUPPRESS, help="how much is logged to stderr"
    )
    options.add_argument("--version", action="version", version=f"learnpack-agent {__version__}")

    parser = argparse.ArgumentParser(
        prog="learnpack-agent",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, function: Callable[[argparse.Namespace], int], words: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common], help=words, description=words)
        sub.set_defaults(function=function)
        return sub

    def course_argument(sub: argparse.ArgumentParser, *, optional: bool) -> None:
        words = "the course, or any directory inside it"
        if optional:
            sub.add_argument("course", metavar="COURSE_DIR", nargs="?", default=".", help=f"{words} (default: here)")
        else:
            sub.add_argument("course", metavar="COURSE_DIR", help=words)

    sub = command("run", _run, "watch a course, in the foreground, until SIGTERM or Ctrl-C")
    course_argument(sub, optional=True)
    sub.add_argument("--record", metavar="TRACE", help="also write every observation to this file (for `replay`)")

    command("demo", _demo, "a small course, a scripted student, the real agent: shows what it concludes, in 20 s")

    sub = command("status", _status, "what is watched, what can't be seen, and how far the student is")
    course_argument(sub, optional=True)
    sub.add_argument("--all", action="store_true", help="a line for each agent of this machine (root), or of yours")
    sub.add_argument("--json", action="store_true", help="one JSON object")

    sub = command("events", _events, "what the student did, one line each, oldest first")
    course_argument(sub, optional=True)
    sub.add_argument("--follow", action="store_true", help="go on as new events are concluded")
    sub.add_argument("--json", action="store_true", help="one JSON object a line, as `export` writes them")

    sub = command("explain", _explain, "why one event is believed: the observations behind it")
    course_argument(sub, optional=False)
    sub.add_argument("event", metavar="EVENT_ID", help="an event's id or number, as `events` shows it")

    sub = command("export", _export, "all events, everything decoded, for other programs")
    course_argument(sub, optional=True)
    sub.add_argument("--format", choices=["jsonl"], required=True, help="jsonl: one JSON object a line, oldest first")
    sub.add_argument("--output", metavar="FILE", help="write here (mode 0600) and not to stdout")

    sub = command("repair", _repair, "mend a damaged or old telemetry.json, and say line by line what is changed")
    course_argument(sub, optional=False)
    sub.add_argument("--dry-run", action="store_true", help="only say what would be changed")

    add_commands(command, course_argument)
    add_doctor(command)
    add_config(command, common)
    add_managing(command)
    add_control(command)

    sub = command("replay", _replay, "put recorded observations (`run --record`) through the inference again")
    sub.add_argument("trace", metavar="TRACE", help="the recording")
    sub.add_argument("--course", metavar="COURSE_DIR", help="take this course in the place of the recorded one")

    add_completion(command, parser)
    return parser


def _absolute(path: str) -> str:
    """It is used again at a reload, and by then the process may have left this directory.  "" stays a fault."""
    return os.path.abspath(path) if path else path


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal of another encoding can't show becomes an escape.  (JSON is written as bytes, always UTF-8.)
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _call(parser().parse_args(argv))
    except ConfigError as error:
        for fault in error.faults:
            _say(CONFIGURATION, str(fault))
        return CONFIGURATION
    except Failed as error:
        return _say(error.code, str(error))
    except BrokenPipeError:
        # Whoever read our output went away (`| head`): no failure.
        _drop_unwritable_output()
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        _drop_unwritable_output()
        return _say(*explained(error))


def _open_closed_streams() -> None:
    """What was closed (`2>&-`), which Python makes None of, leads nowhere; else the next file would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for as long as we live


def _call(arguments: argparse.Namespace) -> int:
    """The command; a journal that can't be read is an error of one line, whatever the command."""
    from .hosting.manager import ManagerError
    from .store.journal import JournalError
    from .store.outbox import OutboxError

    try:
        if os.geteuid() == 0:
            become_owner(arguments)
        code: int = arguments.function(arguments)
        sys.stdout.flush()
    except (JournalError, OutboxError, ManagerError) as error:
        raise Failed(FAILURE, str(error)) from None
    return code


def _drop_unwritable_output() -> None:
    """What stdout does not take now is not tried again at the interpreter's end, which would print a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(code: int, line: str) -> int:
    priority = "<3>" if is_journal_of_systemd() else ""
    print(f"{priority}learnpack-agent: {one_line(line)}", file=sys.stderr)
    return code


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from .host import run

    course = course_of(arguments.course)
    config = config_of(arguments, course.root)
    log_to(logging.StreamHandler(sys.stderr), config.log_level)
    try:
        run(
            course.root,
            config,
            lambda: config_of(arguments, course.root),
            record=arguments.record,
            is_only=not has_own_state(arguments),
        )
    except Exception as error:
        code, words = explained(error)
        if code == UNEXPLAINED:
            raise
        raise Failed(code, words) from None
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import demo

    return demo()


def _status(arguments: argparse.Namespace) -> int:
    from .commands.table import status_all
    from .sending import sinks_of
    from .status import status_lines, status_of
    from .store.journal import dumped

    if arguments.all:
        return status_all(arguments)
    course, journal, directory = recorded(arguments)
    config = config_of(arguments, course.root)
    with journal:
        status = status_of(course, journal, directory)
        status["silent"] = silence(config, directory)
        status["sinks"] = sinks_of(config, course, journal, directory)
    if arguments.json:
        print_json(dumped(status))
    else:
        print("\n".join(map(one_line, status_lines(status))))
    return 0


def _events(arguments: argparse.Namespace) -> int:
    from .store.lines import Lines
    from .views import event_line

    _, journal, _ = recorded(arguments)
    with journal:
        lines = Lines(journal)
        read = _followed if arguments.follow else _all
        for record in read(journal, with_texts=arguments.json):
            if arguments.json:
                print_json(lines.line(record))
            else:
                print(one_line(event_line(record)))
            if arguments.follow:
                sys.stdout.flush()
    return 0


def _all(journal: Journal, *, with_texts: bool) -> Iterator[Record]:
    return journal.records(with_texts=with_texts)


def _followed(journal: Journal, *, with_texts: bool) -> Iterator[Record]:
    """All records, and then those to come, until the journal is another file or none: then 69."""
    import time

    def inode() -> tuple[int, int] | None:
        try:
            found = os.stat(journal.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    last, opened = 0, inode()
    while True:
        is_gone = inode() != opened  # asked first: what was written until then is still read
        for record in journal.records(after=last, with_texts=with_texts):
            last = record.number
            yield record
        if is_gone:
            raise Failed(UNAVAILABLE, f"{journal.path}: deleted or moved away")
        time.sleep(0.25)


def _explain(arguments: argparse.Namespace) -> int:
    from .explain import explanation, found

    course, journal, _ = recorded(arguments)
    with journal:
        record = found(journal, arguments.event)
        if record is None:
            raise Failed(FAILURE, f"no event {arguments.event} is recorded of {course.root}")
        print("\n".join(map(one_line, explanation(journal, record))))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from .store.lines import Lines
    from .views import is_open_as, write_private

    _, journal, _ = recorded(arguments)
    with journal:
        lines_of = Lines(journal)
        lines = (lines_of.line(record) for record in journal.records())
        if arguments.output and not is_open_as(arguments.output, sys.stdout.fileno()):
            write_private(arguments.output, (line + b"\n" for line in lines))
        else:
            for line in lines:
                print_json(line)
    return 0


def _repair(arguments: argparse.Namespace) -> int:
    import time
    from pathlib import Path

    from .sensors.learnpack import config_trouble
    from .sensors.processes.servers import agent_of, server_of
    from .store.adoption import OtherCourse
    from .store.lock import NAME, AlreadyRunning, Lock, holder
    from .store.on_disk import DocumentError
    from .store.repairing import mend

    course = course_of(arguments.course)
    config = config_of(arguments, course.root)
    state = Path(course_state_dir(config, course.root))
    again = "stop it, repair, and start it again"
    pid = holder(state) if state.is_dir() else None
    if pid is None:  # one with another state directory: root's is not the student's
        pid = agent_of(f"/{course_key(course.root)}/{NAME}")
    if pid is not None:
        raise Failed(ALREADY_RUNNING, f"an agent is running for this course (process {pid or 'unknown'}): {again}")
    if (pid := server_of(course)) is not None:
        words = f"LearnPack is running for this course (process {pid}) and would write the file over"
        raise Failed(ALREADY_RUNNING, f"{words}: {again}")
    lock = None
    try:
        if state.is_dir() and not arguments.dry_run:
            lock = Lock.acquire(state)  # no agent begins meanwhile
        limit = config.document_max_mb << 20
        done = mend(course, state, now=time.time_ns() // 1_000_000, limit=limit, dry_run=arguments.dry_run)
    except AlreadyRunning as error:
        raise Failed(ALREADY_RUNNING, str(error)) from None
    except OtherCourse as error:
        raise Failed(FAILURE, f"telemetry.json is left as it is: {error}") from None
    except DocumentError as error:
        raise Failed(_code_of(error.__cause__), str(error)) from None
    finally:
        if lock is not None:
            lock.release()
    if _is_another_users(course.root, state):
        print("the journal of the course's owner is not used; name it with --state-dir, or repair as that user")
    notes = [*done.notes, *filter(None, [config_trouble(course)])]
    for line in (*done.changes, *(f"can't be mended: {note}" for note in notes)):
        print(one_line(line))
    if not done.changes:
        print("nothing to mend")
    elif arguments.dry_run:
        print("dry run: nothing was written")
    else:
        kept = f"the original is in {done.aside}" if done.aside else "the original was empty"
        print(one_line(f"mended; {kept}"))
    return 0


def _is_another_users(root: str, state: Path) -> bool:
    """Whether root works on a student's course without the student's state directory."""
    owner = os.stat(root).st_uid
    return os.geteuid() == 0 != owner and not (state.is_dir() and state.stat().st_uid == owner)


def _code_of(cause: BaseException | None) -> int:
    if isinstance(cause, PermissionError):
        return PERMISSION
    return CANNOT_CREATE if isinstance(cause, OSError) else FAILURE


def _replay(arguments: argparse.Namespace) -> int:
    from .core.export import public
    from .store.journal import dumped
    from .trace import TraceError, replay

    course = course_of(arguments.course) if arguments.course else None
    try:
        for number, event in enumerate(replay(arguments.trace, course), start=1):
            print_json(dumped(public(number, f"replay-{number}", event)))
    except TraceError as error:
        raise Failed(FAILURE, str(error)) from None
    return 0
