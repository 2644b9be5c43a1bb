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
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO

import orjson

from .. import __version__
from ..core.course import Course, one_line
from ..core.privacy import names_of
from ..destinations import privacy_of
from ..doctor import Task
from . import members, said
from .case import Case
from .scrubbing import Scrub

#: A member may take so long to be made.
PATIENCE_S = 15.0


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
        os.path.dirname(os.path.dirname(os.path.dirname(__file__))): "[program]",
        sys.prefix: "[python]",
        **dict.fromkeys((course.root, *course.aliases), "[course]"),
    }
    longest_first = dict(sorted(names.items(), key=lambda one: -len(one[0])))
    return Scrub(replace(privacy, names=longest_first), places)


_MEMBERS: Sequence[tuple[str, Callable[[Case], Any]]] = (
    ("doctor.json", members.doctor),
    ("system.json", members.system),
    ("configuration.toml", members.configuration),
    ("status.json", members.status),
    ("journal.json", members.journal),
    ("files.json", members.files),
    ("log.txt", said.log),
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
