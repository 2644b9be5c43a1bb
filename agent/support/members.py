"""The members of a bundle but for the log: each of what is known anyway, none of what is in a record, a program, an
output or an answer of a server."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..checks.finding import asked
from ..checks.learnpack import installed
from ..doctor import examine, plain
from ..sending import sinks_of
from ..sensors.picture import LEARNPACK_FILES
from ..status import status_of
from ..store.journal import NAME as JOURNAL
from ..store.journal import Journal
from ..store.on_disk import NAME as DOCUMENT
from ..store.outbox import NAME as OUTBOX
from .case import Case

_MOST_FILES = 500
_MOST_GAPS = 200


def doctor(case: Case) -> Any:
    return plain(examine(case.place), case.place)


def system(case: Case) -> Any:
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


def configuration(case: Case) -> Any:
    from ..config.showing import shown

    faults = "".join(f"# fault: {fault}\n" for fault in case.loaded.faults)
    return faults + shown(case.loaded, origin=True)


def status(case: Case) -> Any:
    course = case.named_course
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


def journal(case: Case) -> Any:
    """Numbers of the two databases, also of one that the agent would refuse: a damaged one, a newer one's."""
    _ = case.named_course
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


def files(case: Case) -> Any:
    """What lies in LearnPack's directory.  Of a name that is not LearnPack's only the ending is told: it may be
    somebody's."""
    course = case.named_course
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
