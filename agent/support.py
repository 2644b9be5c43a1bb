"""`support-bundle`: one file for whoever helps, in which nobody can be found.

Each member is made by a function of its own, of what is known anyway (doctor, configuration, status, log, the journal's
numbers, the names and sizes of LearnPack's files), and every text of it goes through `scrubbing`.  What is in a record,
a program, an output, an answer of a server, is not read.  A member that can't be made is named in the manifest with the
reason, and the others are there.

Known to be weak: see `scrubbing`.  So the command says: look into it before you give it away.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import sqlite3
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from . import __version__
from .checks.finding import Place, asked
from .checks.learnpack import installed
from .config import course_state_dir
from .core.course import Course, one_line
from .core.privacy import names_of
from .destinations import privacy_of
from .doctor import Task, examine, plain
from .hosting.manager import ManagerError
from .scrubbing import Scrub
from .sending import sinks_of
from .sensors.course import base_of
from .sensors.picture import LEARNPACK_FILES
from .status import status_of
from .store.journal import NAME as JOURNAL
from .store.journal import Journal
from .store.on_disk import NAME as DOCUMENT
from .store.outbox import NAME as OUTBOX

if TYPE_CHECKING:
    from .config.loading import Loaded

#: A member may take so long to be made.
PATIENCE_S = 15.0
_LOG_LINES = 300
_LOG_BYTES = 256 << 10
_MOST_FILES = 500
_MOST_GAPS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """What the bundle is about.  `named` is the course as the caller named it, `why` says why it can't be read."""

    place: Place
    loaded: Loaded
    named: str | None = None
    why: str | None = None

    @property
    def course(self) -> Course | None:
        """Also one that can't be read: something may be recorded of it."""
        if self.place.course is not None or self.named is None:
            return self.place.course
        root = os.path.realpath(self.named)
        return Course(root, "course", base=base_of(root), aliases=(os.path.abspath(self.named),))

    @property
    def directory(self) -> str:
        course = self.course
        return course_state_dir(self.place.config, course.root) if course else self.place.config.state_dir


def default_name() -> str:
    return time.strftime("learnpack-agent-support-%Y%m%d-%H%M%S.tar.gz")


def new_file(path: str) -> BinaryIO:
    """A file of mode 0600 where none was, not even a link.  Raises OSError (FileExistsError)."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def write_bundle(stream: BinaryIO, case: Case) -> list[str]:
    """Writes the .tar.gz; returns what could not be put in, in words.  Raises OSError."""
    members, left_out = _members(case)
    stream.write(_packed(members))
    return left_out


def _members(case: Case) -> tuple[dict[str, bytes], list[str]]:
    """The contents by name, and what is missing."""
    until = time.monotonic() + PATIENCE_S
    scrub = Task(partial(_scrub, case)).result(until)  # without it there is no bundle
    started = [(name, Task(partial(make, case))) for name, make in _MEMBERS]
    until += PATIENCE_S
    members: dict[str, bytes] = {}
    left_out: list[str] = []
    for name, task in started:
        try:
            made = scrub.plain(task.result(until))
        except TimeoutError:
            left_out.append(f"{name}: it took more than {PATIENCE_S:g} s")
        except Exception as error:  # whatever is broken here is why somebody asks for help
            left_out.append(scrub.text(f"{name}: {type(error).__name__}: {one_line(str(error))}"))
        else:
            members[name] = _written(made)
    members = {"manifest.txt": _manifest(members, left_out, scrub.text(case.why or "")), **members}
    return members, left_out


def _written(made: Any) -> bytes:
    if isinstance(made, str):
        return made.encode()
    return orjson.dumps(made, option=orjson.OPT_INDENT_2) + b"\n"


def _packed(members: Mapping[str, bytes]) -> bytes:
    """A .tar.gz that names no user, no group and no file of ours."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb") as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, content in members.items():
            member = tarfile.TarInfo(f"learnpack-agent-support/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _scrub(case: Case) -> Scrub:
    config, course = case.place.config, case.course or Course("/", "")
    privacy = privacy_of(config, course)
    logins = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")}
    names = dict(privacy.names)
    for login in logins:
        names |= names_of(login, "", "", "")
    places = {
        config.state_dir: "[state]",
        case.directory: "[records]",
        os.path.dirname(os.path.dirname(__file__)): "[program]",
        sys.prefix: "[python]",
        **dict.fromkeys((course.root, *course.aliases), "[course]"),
    }
    longest_first = dict(sorted(names.items(), key=lambda one: -len(one[0])))
    return Scrub(replace(privacy, names=longest_first), places)


# --- the members ---


def _doctor(case: Case) -> Any:
    return plain(examine(case.place), case.place)


def _system(case: Case) -> Any:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for name in ("watchdog", "psutil", "orjson", "requests", "urllib3", "certifi", "python-daemon", "detect-secrets"):
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    release = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    systemd = asked("systemctl", "--version") if sys.platform == "linux" else None
    learnpack = installed()
    return {
        "learnpack_agent": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": sys.platform,
        "distribution": release.get("PRETTY_NAME"),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "systemd": systemd.stdout.decode(errors="replace").partition("\n")[0] if systemd else None,
        "learnpack": None if learnpack is None else learnpack.version,
        "packages": packages,
        "is_root": os.geteuid() == 0,
        "file_system_encoding": sys.getfilesystemencoding(),
        "time_zone": time.strftime("%z"),
        # The names alone: a value may be anything.
        "variables": sorted(name for name in os.environ if name in _VARIABLES or name.startswith("LEARNPACK_AGENT_")),
    }


_VARIABLES = frozenset(
    "STATE_DIRECTORY CREDENTIALS_DIRECTORY NOTIFY_SOCKET JOURNAL_STREAM XDG_STATE_HOME XDG_CONFIG_HOME TMPDIR"
    " HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy CODESPACES GITPOD_WORKSPACE_ID container".split()
)


def _configuration(case: Case) -> Any:
    from .config.showing import shown

    faults = "".join(f"# fault: {fault}\n" for fault in case.loaded.faults)
    return faults + shown(case.loaded, origin=True)


def _status(case: Case) -> Any:
    course = _course(case)
    with Journal.open(case.directory, create=False, read_only=True) as journal:
        status = status_of(course, journal, case.directory)
        sinks = sinks_of(case.place.config, course, journal, case.directory)
    agent = {key: status["agent"].get(key) for key in _OF_THE_AGENT}
    return {
        "agent": agent,
        "session": status["session"],
        "steps": len(status["steps"]),
        "events": status["events"],
        "last_event": status["last_event"] and {key: status["last_event"][key] for key in ("number", "event", "at")},
        "coverage": status["coverage"],
        "gap_reasons": status["gap_reasons"],
        "gaps": status["gaps"][-_MOST_GAPS:],
        "sinks": [_of_sink(sink) for sink in sinks],
    }


_OF_THE_AGENT = (
    *("running", "version", "started_at", "ready_at", "stopped_at", "processes", "files"),
    *("lost", "skipped", "document", "document_omitted", "document_size"),
)
_OF_A_SINK = (
    *("name", "kind", "place", "refused", "waiting", "oldest_at"),
    *("why", "failed_at", "next_at", "waits_for_somebody", "sent_at"),
)


def _of_sink(sink: Mapping[str, Any]) -> dict[str, Any]:
    parked = Counter(one["words"] for one in sink["parked"])
    return {key: sink[key] for key in _OF_A_SINK} | {
        "parked": [{"words": words, "count": count} for words, count in parked.most_common(20)],
        "doubts_of_the_receiver": len(sink["receiver"]),
    }


def _journal(case: Case) -> Any:
    """Numbers of the two databases, also of one that the agent would refuse: a damaged one, a newer one's."""
    _course(case)
    directory = Path(case.directory)
    sizes = [
        {"name": one.name, "size": one.lstat().st_size, "modified_at": int(one.lstat().st_mtime)}
        for one in sorted(directory.iterdir())[:_MOST_FILES]
    ]
    return {
        "files": sizes,
        "journal": _database(directory / JOURNAL, _OF_JOURNAL),
        "delivery": _database(directory / OUTBOX, _OF_OUTBOX),
    }


_OF_JOURNAL = {
    "records": "SELECT event, count(*), min(at), max(at) FROM records GROUP BY event",
    "texts": "SELECT count(*) FROM records WHERE texts IS NOT NULL",
    "facts": "SELECT key, length(value) FROM facts",
    "adopted": "SELECT count(*), sum(waits) FROM adopted",
}
_OF_OUTBOX = {
    "sinks": "SELECT name, cursor, length(notes) FROM sinks",
    "parked": "SELECT sink, count(*) FROM parked GROUP BY sink",
}
_CHECK_S = 8.0


def _database(path: Path, queries: Mapping[str, str]) -> dict[str, Any]:
    if not path.exists():
        return {"is_there": False}
    until = time.monotonic() + _CHECK_S
    found: dict[str, Any] = {"is_there": True}
    wanted = {
        "schema": "PRAGMA user_version",
        "page_size": "PRAGMA page_size",
        "pages": "PRAGMA page_count",
        "free_pages": "PRAGMA freelist_count",
        "mode": "PRAGMA journal_mode",
        **queries,
        "quick_check": "PRAGMA quick_check(20)",
    }
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        for name, query in wanted.items():
            try:
                found[name] = [list(row) for row in connection.execute(query)]
            except sqlite3.Error as error:
                found[name] = f"{type(error).__name__}: {error}"
    return found


def _files(case: Case) -> Any:
    """What lies in LearnPack's directory.  Of a name that is not LearnPack's only the ending is told: it may be
    somebody's."""
    course = _course(case)
    own = {*LEARNPACK_FILES, DOCUMENT, "reports", "resets", "dist", ".session", "exercises", "assets"}
    own |= {step.slug for step in course.steps} | {f"{step.slug}.json" for step in course.steps}
    listed: list[dict[str, Any]] = []
    top = os.path.join(course.root, course.base)
    for directory, names, files in os.walk(top, onerror=_raise):
        names.sort()
        inside = os.path.relpath(directory, top)
        for name in sorted((*names, *files)):
            if len(listed) == _MOST_FILES:
                return [*listed, {"path": "and more"}]
            info = os.lstat(os.path.join(directory, name))
            path = [] if inside == "." else inside.split("/")
            listed.append(
                {
                    "path": "/".join(part if part in own else _ending(part) for part in (*path, name)),
                    "mode": f"{info.st_mode:o}",
                    "uid": info.st_uid,
                    "size": info.st_size,
                    "modified_at": int(info.st_mtime),
                }
            )
    return listed


def _raise(error: OSError) -> None:
    raise error


def _ending(name: str) -> str:
    ending = os.path.splitext(name)[1]
    return f"[…]{ending}" if re.fullmatch(r"\.[a-z0-9]{1,5}", ending) else "[…]"


def _log(case: Case) -> Any:
    return "".join(f"{line}\n" for line in [*_said(case)][-_LOG_LINES:])


def _said(case: Case) -> Iterator[str]:
    """What the agent said last, to its service manager or in a file of its own."""
    from .hosting.detached import log_path

    course = _course(case)
    for manager in case.place.managers:
        try:
            if not any(one.course == course.root for one in manager.instances()):
                continue
            command = manager.log_command(course.root, follow=False, lines=_LOG_LINES)
        except ManagerError as error:
            yield f"({manager.words}: {error})"
            continue
        if command[0] == "journalctl":
            command += ["--output=json", "--output-fields=MESSAGE,PRIORITY"]
        if (answer := asked(*command, within_s=5.0)) is None:
            yield f"({manager.words} does not answer)"
        else:
            yield from _from_journalctl(answer.stdout) if command[0] == "journalctl" else _from_file(answer.stdout)
    with suppress(FileNotFoundError):
        descriptor = os.open(log_path(case.directory), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            stream.seek(max(0, os.fstat(descriptor).st_size - _LOG_BYTES))
            yield from _from_file(stream.read(_LOG_BYTES))


#: Debug lines tell whole events, with programs and outputs.
_DEBUG = 7
_LINE = re.compile(r"(\S+ \S+) (INFO|WARNING|ERROR|CRITICAL) (.*)")
_WHERE = re.compile(r"File \"[^\"]*?/(agent/[\w/]+\.py)\", line (\d+)")
_TRACEBACK = re.compile(r"(?:\\n|\s)*Traceback \(most recent call last\)")


def _from_journalctl(printed: bytes) -> Iterator[str]:
    for line in printed.splitlines():
        try:
            said = orjson.loads(line)
            at, priority, words = int(said["__REALTIME_TIMESTAMP"]), int(said.get("PRIORITY", 6)), said["MESSAGE"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(words, str) and priority < _DEBUG:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at / 1_000_000))
            yield f"{stamp} {priority} {_without_traceback(words)}"


def _from_file(content: bytes) -> Iterator[str]:
    """The agent's own lines: of others (a traceback that nobody caught) only where in the agent it was."""
    for line in content.decode("utf-8", "replace").splitlines():
        if (match := _LINE.fullmatch(line)) is not None:
            yield f"{match[1]} {match[2]} {_without_traceback(match[3])}"
        elif (where := _WHERE.search(line)) is not None:
            yield f"  in {where[1]}, line {where[2]}"


def _without_traceback(words: str) -> str:
    """A traceback's text may quote what was worked on."""
    begins = _TRACEBACK.search(words)
    if begins is None:
        where = _WHERE.search(words)
        return f"in {where[1]}, line {where[2]}" if where else words
    places = ", ".join(f"{path}:{line}" for path, line in _WHERE.findall(words))
    return f"{words[: begins.start()]} (traceback: {places or 'elsewhere'})"


def _course(case: Case) -> Course:
    """Raises LookupError."""
    if case.course is None:
        raise LookupError("no course was named")
    return case.course


_MEMBERS: Sequence[tuple[str, Callable[[Case], Any]]] = (
    ("doctor.json", _doctor),
    ("system.json", _system),
    ("configuration.toml", _configuration),
    ("status.json", _status),
    ("journal.json", _journal),
    ("files.json", _files),
    ("log.txt", _log),
)

_WORDS = {
    "doctor.json": "what `doctor` finds",
    "system.json": "versions of the agent, Python, its packages and the system; names of variables, no values",
    "configuration.toml": "the configuration without tokens and headers; of URLs scheme and host",
    "status.json": "levels of the sensors, counts of events, gaps with reasons, queues",
    "journal.json": "sizes, counts and SQLite's own check of the databases, not what is in them",
    "files.json": "sizes and times of LearnPack's files in the course; names that are not LearnPack's are left out",
    "log.txt": "what the agent said last, without debug lines and texts of tracebacks",
}


def _manifest(members: Mapping[str, bytes], left_out: Sequence[str], why: str) -> bytes:
    lines = [
        f"Support bundle of learnpack-agent {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        *([f"There is no course to look at: {one_line(why)}"] if why else []),
        "",
        "In it:",
        *(f"  {name}: {_WORDS[name]} ({len(content)} bytes)" for name, content in members.items()),
        "",
        "Not in it: programs, outputs, questions to the AI tutor, command lines, tokens, names, e-mail addresses, host",
        "names of this machine, home paths and the course's path, git's remotes, values of variables.",
        *(["", "Wanted, and could not be made:"] if left_out else []),
        *(f"  {words}" for words in left_out),
    ]
    return "\n".join(lines).encode() + b"\n"
