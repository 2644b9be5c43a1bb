"""The commands about delivery (send, queue, sinks, check) and what may be recorded (pause, resume, consent, forget).

A running agent is told by `control.json` and SIGUSR1 and does it itself; where none runs, the command takes the
course's lock and does it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..config import Config, course_state_dir
from ..core.course import one_line
from .common import (
    ALREADY_RUNNING,
    CONFIGURATION,
    FAILURE,
    PERMISSION,
    UNAVAILABLE,
    USAGE,
    Failed,
    config_of,
    course_of,
    known_course,
    print_json,
    recorded,
    silence,
    time_of,
)

if TYPE_CHECKING:
    from ..core.course import Course
    from ..store.control import Control
    from ..store.journal import Journal

#: So long a running agent may take for what it was told.
PATIENCE_S = 15.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_commands(command: Callable[..., argparse.ArgumentParser], course_argument: Callable[..., None]) -> None:
    """`command(name, function, words)` makes a parser, `course_argument(parser, optional=)` adds COURSE_DIR."""
    sub = command("send", _send, "send what waits, and say what came of it")
    course_argument(sub, optional=True)
    sub.add_argument("--now", action="store_true", help="also to a server that failed and would be tried again later")
    sub.add_argument("--parked", action="store_true", help="also the records that a server rejected")
    sub.add_argument("--preview", action="store_true", help="send nothing: print what would be sent, byte for byte")
    sub.add_argument("--sink", metavar="NAME", help="with --preview: only this one")

    sub = command("queue", _queue, "what waits for each sink, for how long, and why")
    course_argument(sub, optional=True)
    sub.add_argument("--json", action="store_true", help="one JSON object")

    sub = command("sinks", _sinks, "where records go; `sinks test` sends a marked test event and says what came back")
    sub.add_argument("action", choices=["list", "test"])
    course_argument(sub, optional=True)
    sub.add_argument("--sink", metavar="NAME", help="only this one")

    sub = command("check", _check, "what the 4Geeks receiver would do with a telemetry.json")
    sub.add_argument("file", metavar="FILE", help="the document")
    sub.add_argument("--json", action="store_true", help="one JSON object")

    sub = command("pause", _pause, "record and send nothing, until `resume`")
    course_argument(sub, optional=True)
    sub.add_argument("--for", dest="span", metavar="TIME", help="resume by itself after 45s, 30m, 1h or 2d")

    sub = command("resume", _resume, "go on recording after a pause")
    course_argument(sub, optional=True)

    sub = command("consent", _consent, "say whether your work in a course may be recorded")
    sub.add_argument("answer", choices=["yes", "no"])
    course_argument(sub, optional=True)

    sub = command("forget", _forget, "erase what was recorded in a course, also what waits to be sent; gives a receipt")
    course_argument(sub, optional=False)
    sub.add_argument("--yes", action="store_true", help="don't ask")


# --- delivery ---


def _send(arguments: argparse.Namespace) -> int:
    from ..destinations import planned
    from ..sending import send_here, sink_lines, sinks_of
    from ..store.control import change_control
    from ..store.lock import AlreadyRunning, Lock, holder
    from ..store.outbox import Outbox

    if arguments.sink and not arguments.preview:
        raise Failed(USAGE, "--sink goes with --preview")
    course, journal, directory = recorded(arguments)
    config = config_of(arguments, course.root)
    used = [one for one in planned(config, course) if one.refused is None]
    with journal:
        if not used:
            raise Failed(CONFIGURATION, "no sink is configured, and learn.json names no URL that may be used")
        names = [one.name for one in used]
        if arguments.sink and arguments.sink not in names:
            raise Failed(CONFIGURATION, f"there is no sink {arguments.sink}, only {', '.join(names)}")
        if arguments.preview:
            return _preview(arguments, config, course, journal, directory)
        _refuse_others_agent(course, directory)
        if (why := silence(config, directory)) is not None:
            raise Failed(FAILURE, f"nothing is sent: {why}")
        if arguments.parked:
            with Outbox(directory, journal.id) as outbox:
                for one in used:
                    outbox.send_again(one.name)
        asked_at = _now()
        if holder(directory) is None:
            try:
                lock = Lock.acquire(directory)
                try:
                    send_here(config, course, directory, PATIENCE_S)
                finally:
                    lock.release()
            except AlreadyRunning:
                pass  # one was started just now, and sends
        else:
            to_all = arguments.now or arguments.parked
            change_control(directory, send_at=asked_at, send_to_all=to_all)
            _signal(directory)
            if not to_all:
                asked_at = 0  # one that failed before is not asked again

        def settled() -> bool:
            return all(_is_settled(one, asked_at) for one in sinks_of(config, course, journal, directory))

        _until(settled)
        sinks = sinks_of(config, course, journal, directory)
    _print_lines(sink_lines(sinks, _now()))
    return 0 if all(not one["waiting"] or one["refused"] for one in sinks) else FAILURE


def _is_settled(sink: dict[str, Any], asked_at: int) -> bool:
    """Nothing waits, nothing may be sent, or it failed since we asked."""
    if sink["refused"] or (not sink["waiting"] and not any(parked["again"] for parked in sink["parked"])):
        return True
    return bool(sink["why"]) and (sink["failed_at"] or 0) >= asked_at


def _preview(arguments: argparse.Namespace, config: Config, course: Course, journal: Any, directory: str) -> int:
    from ..sending import credentials_word, previews

    count = 0
    for shown in previews(config, course, journal, directory, arguments.sink):
        count += 1
        if shown.withheld:
            print(one_line(f"{shown.sink.name} to {shown.sink.place}: {shown.withheld}"), file=sys.stderr)
            continue
        headers = "".join(f"; {name}: {value}" for name, value in shown.headers.items())
        words = f"{shown.sink.name} to {shown.sink.place}: {len(shown.content)} bytes; "
        print(one_line(words + credentials_word(shown.sink, config) + headers), file=sys.stderr)
        sys.stdout.buffer.write(shown.content if shown.content.endswith(b"\n") else shown.content + b"\n")
    if not count:
        print("nothing waits", file=sys.stderr)
    return 0


def _queue(arguments: argparse.Namespace) -> int:
    from ..sending import sink_lines, sinks_of
    from ..store.journal import dumped

    course, journal, directory = recorded(arguments)
    with journal:
        sinks = sinks_of(config_of(arguments, course.root), course, journal, directory)
    if arguments.json:
        print_json(dumped({"sinks": sinks}))
    else:
        _print_lines(sink_lines(sinks, _now()) if sinks else ["no sink is configured, and learn.json names no URL"])
    return 0


def _sinks(arguments: argparse.Namespace) -> int:
    from ..destinations import planned
    from ..sending import credentials_word, test_sink

    course = course_of(arguments.course)
    config = config_of(arguments, course.root)
    plans = [one for one in planned(config, course) if arguments.sink in (None, one.name)]
    if not plans:
        raise Failed(CONFIGURATION, f"there is no sink {arguments.sink}" if arguments.sink else "no sink is configured")
    if arguments.action == "list":
        for one in plans:
            by = "learn.json" if one.by_course else "the configuration"
            used = f"not used: {one.refused}" if one.refused else credentials_word(one, config)
            print(one_line(f"{one.name}: {one.config.kind} to {one.place}, named by {by}; {used}"))
        return 0
    code = 0
    with _journal_of(course, config) as journal:
        for one in plans:
            if one.refused:
                print(one_line(f"{one.name}: not used: {one.refused}"))
                continue
            sent = test_sink(one, config, course, journal)
            print(one_line(f"{one.name} ({one.place}): {sent.outcome.value}: {sent.words}"))
            code = code if sent.outcome.value == "delivered" else FAILURE
    return code


@contextmanager
def _journal_of(course: Course, config: Config) -> Iterator[Journal | None]:
    """The course's journal; None where nothing is recorded yet: a sink can be tested before."""
    from ..store.journal import Journal, JournalError

    try:
        journal = Journal.open(course_state_dir(config, course.root), create=False, read_only=True)
    except JournalError:
        yield None
        return
    with journal:
        yield journal


def _check(arguments: argparse.Namespace) -> int:
    import dataclasses

    import orjson

    from ..core.json_as_node import read_as_node
    from ..core.receiver import rehearse

    try:
        with open(arguments.file, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        raise Failed(UNAVAILABLE, f"{arguments.file}: no such file") from None
    try:
        document = read_as_node(content, orjson.loads)
    except orjson.JSONDecodeError as error:
        raise Failed(FAILURE, f"{arguments.file}: no JSON: {error}") from None
    if not isinstance(document, dict):
        raise Failed(FAILURE, f"{arguments.file}: no JSON object")
    found = rehearse(document)
    if arguments.json:
        print_json(orjson.dumps({**dataclasses.asdict(found), "approves": found.approves}))
        return FAILURE if found.errors else 0
    if found.errors:
        print("it does nothing with the document, and answers 200 all the same unless another number stands here:")
        _print_lines(f"  {error}" for error in found.errors)
    _print_lines(f"it counts wrongly: {doubt}" for doubt in found.doubts)
    if not found.errors:
        for step in found.steps:
            failed = f", failed {step.failed_compilations} builds and {step.failed_tests} tests before"
            failures = failed if step.failed_compilations or step.failed_tests else ""
            print(one_line(f"  {step.status:<10} {step.slug} ({step.seconds:.0f} s{failures})"))
        print(
            f"completed {found.completion_rate:g} %, engagement {found.engagement:g}, frustration {found.frustration:g}"
        )
        print(f"the student's task would {'be' if found.approves else 'not be'} done and approved")
    return FAILURE if found.errors else 0


# --- what may be recorded ---


def _pause(arguments: argparse.Namespace) -> int:
    now = _now()
    until = 0 if arguments.span is None else now + _milliseconds(arguments.span)
    _say(arguments, until=until)
    print(f"nothing is recorded and nothing is sent until {time_of(until) if until else '`resume`'}")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    control, config = _say(arguments, until=_now())
    if why := control.why_silent(_now() + 1, needs_consent=config.consent):
        why += " (`learnpack-agent consent yes` changes that)" if control.consent is False else ""
        raise Failed(FAILURE, f"nothing is recorded: {why}")
    print("recording goes on")
    return 0


def _consent(arguments: argparse.Namespace) -> int:
    is_yes = arguments.answer == "yes"
    _say(arguments, until=_now() if is_yes else 0, consent=is_yes)
    print("your work in this course may be recorded" if is_yes else "nothing is recorded and nothing is sent any more")
    return 0


def _say(arguments: argparse.Namespace, *, until: int, **changes: Any) -> tuple[Control, Config]:
    """Nothing is recorded until then; in the past: no longer.  Returns what now holds, and the configuration."""
    from ..store.control import Control, change_control, read_control

    course = course_of(arguments.course)
    config = config_of(arguments, course.root)
    directory = course_state_dir(config, course.root)
    _refuse_others_agent(course, directory)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    now = _now()
    try:
        before = read_control(directory)
        was_silent = before.why_silent(now, needs_consent=config.consent) is not None
    except ValueError:
        before, was_silent = Control(), True
    is_silent = until == 0 or until > now
    if was_silent or is_silent:
        changes["silent_until"] = until
        if not was_silent:
            # A pause that no agent has noted yet goes on in this one: only the last is known.
            changes["silent_since"] = now if _is_noted(directory, before.silence) else before.silent_since
    control = change_control(directory, **changes)
    if _signal(directory) and is_silent and not was_silent and not _until(lambda: _has_stopped(directory, now)):
        raise Failed(FAILURE, "the running agent did not stop its work yet; `status` tells when it has")
    return control, config


def _forget(arguments: argparse.Namespace) -> int:
    import orjson

    from ..forgetting import forget, receipt_path
    from ..sensors.processes.servers import server_of
    from ..store.control import change_control
    from ..store.lock import AlreadyRunning, Lock

    course = known_course(arguments)
    directory = course_state_dir(config_of(arguments), course.root)
    _refuse_others_agent(course, directory)
    if not os.path.isdir(directory):
        raise Failed(UNAVAILABLE, f"nothing is recorded of {course.root}")
    if (pid := server_of(course)) is not None:
        words = f"LearnPack is running for this course (process {pid}) and would write its telemetry.json again"
        raise Failed(ALREADY_RUNNING, f"{words}: stop it first")
    if not arguments.yes:
        print(f"everything recorded in {course.root}, and its telemetry.json, is erased for good; type yes: ", end="")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() != "yes":
            raise Failed(FAILURE, "nothing was erased")
    asked_at = _now()
    path = receipt_path(directory, asked_at)
    if _signal(directory, before=lambda: change_control(directory, forget_at=asked_at)):
        if not _until(path.exists):
            raise Failed(FAILURE, "the running agent did not do it; stop it and say it again")
        receipt = orjson.loads(path.read_bytes())
    else:
        try:
            lock = Lock.acquire(directory)
        except AlreadyRunning as error:
            raise Failed(ALREADY_RUNNING, f"{error}: say it again") from None
        try:
            receipt = forget(course, directory, asked_at)
        finally:
            lock.release()
    print_json(orjson.dumps(receipt, option=orjson.OPT_INDENT_2))
    print(one_line(f"the receipt is kept in {path}"))
    return FAILURE if receipt["left"] else 0


# --- talking to a running agent ---


def _signal(directory: str, before: Callable[[], object] = lambda: None) -> bool:
    """Tells the running agent to look; False where none runs."""
    from ..store.lock import holder

    pid = holder(directory)
    if not pid:
        return False
    before()
    try:
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise Failed(PERMISSION, f"no permission to tell the running agent (process {pid})") from None
    return True


def _refuse_others_agent(course: Course, directory: str) -> None:
    """What is said in another state directory, the agent that runs does not hear: root's is not the student's."""
    from ..config import course_key
    from ..sensors.processes.servers import agent_of
    from ..store.lock import NAME, holder

    if os.path.isdir(directory) and holder(directory) is not None:
        return
    if (pid := agent_of(f"/{course_key(course.root)}/{NAME}")) is not None and pid != os.getpid():
        words = f"the agent of this course (process {pid}) keeps its records in another directory"
        raise Failed(ALREADY_RUNNING, f"{words}: name that with --state-dir")


def _has_stopped(directory: str, since: int) -> bool:
    """Whether the agent ended its work since then, as it says, or there is none any more."""
    from ..store.lock import holder

    return holder(directory) is None or int((_fact(directory, "status") or {}).get("stopped_at") or 0) >= since


def _is_noted(directory: str, silence: tuple[int, int] | None) -> bool:
    """Whether an agent knows of this pause."""
    from ..feeds import PAUSES

    return silence is None or list(silence) in (_fact(directory, PAUSES) or [])


def _fact(directory: str, name: str) -> Any:
    from ..store.journal import Journal, JournalError

    try:
        with Journal.open(directory, create=False, read_only=True) as journal:
            return journal.fact(name)
    except JournalError:
        return None


def _until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _milliseconds(span: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", span)
    if match is None or not int(match[1]):
        raise Failed(USAGE, f"--for {span}: a number and s, m, h or d, as in 90m")
    return int(match[1]) * _UNITS[match[2]] * 1000


def _now() -> int:
    return time.time_ns() // 1_000_000


def _print_lines(lines: Any) -> None:
    for line in lines:
        print(one_line(line))
