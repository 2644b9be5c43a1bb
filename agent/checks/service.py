"""The agent itself: its configuration, whether one runs and who looks after it, its journal and its sinks."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from urllib.parse import urlsplit

from .. import __version__
from ..config import course_key
from ..core.course import one_line
from ..destinations import Planned, destination_of, missing_credentials
from ..hosting.manager import Instance, ManagerError
from ..overview import CourseState, read_state
from ..sensors.processes.servers import agent_of
from ..store.journal import NAME as JOURNAL
from ..store.journal import Journal, JournalCorrupt, JournalError
from ..store.lock import NAME as LOCK
from .finding import Finding, Place, command, existing, fault, note, ok, warning


def configuration(place: Place) -> Finding:
    if place.faults:
        return fault("; ".join(map(str, place.faults)), command("learnpack-agent", "config", "check"))
    return ok("no fault in it")


# --- the agent ---


def agent(place: Place) -> Finding:
    """Whether one runs for the course, and who looks after it."""
    state = read_state(place.root, place.config.state_dir, place.config)
    instance = _instance(place)
    if state.is_running:
        return _running(place, state, instance)
    if (pid := agent_of(f"/{course_key(place.root)}/{LOCK}")) is not None:
        words = f"the agent of this course (process {pid}) keeps its records in another state directory"
        return warning(f"{words}: name that with --state-dir")
    if instance is not None and instance.state == "failed":
        words = f"{instance.name} failed: {one_line(instance.detail)}"
        return fault(words, command("learnpack-agent", "logs", place.root))
    if instance is not None:
        words = f"{instance.name} is {instance.state}: nothing is watched"
        return warning(words, command("learnpack-agent", "start", place.root))
    words = "no agent runs for this course, and none is installed"
    return warning(words, command("learnpack-agent", "install", place.root))


def _running(place: Place, state: CourseState, instance: Instance | None) -> Finding:
    unit = unit_of(state.pid) if state.pid else None
    keeper = unit or (instance.name if instance and instance.pid == state.pid else None)
    words = f"it runs (process {state.pid or 'unknown'})"
    words += f", {keeper} looks after it" if keeper else ", and nobody would start it again: no service manager has it"
    if state.processes:
        words += f"; processes are seen by {state.processes.level}"
    if state.silent:
        words += f"; nothing is recorded: {state.silent}"
    if state.version not in (None, __version__):
        words += f"; it is of version {state.version}, this program of {__version__}"
        return warning(words, command("learnpack-agent", "restart", place.root))
    return note(words) if state.silent or not keeper else ok(words)


def _instance(place: Place) -> Instance | None:
    for manager in place.managers:
        with suppress(ManagerError):
            for one in manager.instances():
                if one.course == place.root:
                    return one
    return None


def unit_of(pid: int) -> str | None:
    """systemd's unit of ours that this process belongs to; None: another one's, or nobody's."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
            return unit_in(stream.read())
    except OSError:
        return None


def unit_in(groups: str) -> str | None:
    """The same in the text of /proc/PID/cgroup."""
    units = re.findall(r"/(learnpack-agent@[^/\n]+\.service)", groups)
    return units[-1] if units else None


def journal(place: Place) -> Finding:
    if not os.path.lexists(os.path.join(place.directory, JOURNAL)):
        return ok("there is none yet")
    try:
        with Journal.open(place.directory, create=False, read_only=True) as found:
            trouble = read_state(place.root, place.config.state_dir, place.config).trouble
            words = f"{found.last_number} events, {found.gaps} gaps, {found.size >> 10} KB"
    except JournalCorrupt as error:
        words = f"it is damaged ({one_line(str(error))}): at its next start the agent moves it aside and begins another"
        return fault(words, command("learnpack-agent", "restart", place.root))
    except JournalError as error:
        return fault(one_line(str(error)))
    return warning(trouble) if trouble else ok(words)


# --- sinks ---

#: So long a server may take to answer.
ANSWER_S = 4.0


def sink(one: Planned, place: Place) -> Finding:
    """Whether it can be reached.  No event is sent and no token shown: a server is asked for its OPTIONS."""
    where = f"{one.place} ({one.config.kind})"
    if one.refused is not None:
        return note(f"{where}: not used: {one.refused}")
    if one.config.directory:
        return _directory(one.config.directory, where)
    found = _server(one, where, place)
    missing = missing_credentials(one, place.config, place.course) if place.course else None
    if found.mend or found.level > 1 or missing is None:
        return found
    return note(f"{found.words}; without credentials, because {missing}")


def _directory(path: str, where: str) -> Finding:
    if not os.path.isdir(path):
        return fault(f"{where}: there is no such directory", command("sudo", "mkdir", "-p", path))
    if not os.access(existing(path), os.W_OK | os.X_OK):
        return fault(f"{where}: no permission to write", command("sudo", "chown", str(os.geteuid()), path))
    return ok(f"{where}: it can be written")


def _server(one: Planned, where: str, place: Place) -> Finding:
    from dataclasses import replace

    from ..sinks.http import Server

    assert place.course is not None
    destination = replace(destination_of(one, place.config, place.course), authorization=None, headers={})
    server = Server(destination)
    try:
        answer = server.reach(ANSWER_S)
    finally:
        server.close()
    if answer.status is None or answer.status == 407:
        return warning(f"{where}: not reached: {answer.words}; what is for it waits")
    # Over TLS only the server itself can answer.  Else what answers for it wants a login or shows a page.
    is_plain = urlsplit(one.config.url).scheme == "http"
    if answer.status == 511 or (is_plain and (300 <= answer.status < 400 or answer.is_page)):
        words = "something else answers in its place: a captive portal that wants a login, or a proxy"
        return warning(f"{where}: {words} ({answer.status})")
    if answer.status >= 500:
        return warning(f"{where}: reached, but it answers {answer.status}: it fails")
    return ok(f"{where}: reached")
