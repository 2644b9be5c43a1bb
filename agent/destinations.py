"""Where a course's records go: the configuration's sinks and learn.json's two URLs in one list; how each kind works.

Looking at this list costs nothing: what a kind needs (requests, 19 MB) is imported by `opened`, when there is
something to send.  A token is looked up by the URL's host at that moment, so it is in no picture of the configuration,
and a course can name whatever it likes: what it gets is what the admin named for that host.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from .config import Config, Credential, SinkConfig
from .core.bodies import Body, Sendable, Whose
from .core.course import Course
from .core.delivery import Sent
from .core.privacy import Privacy, names_of
from .core.urls import problem_of
from .sensors.learnpack import session_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .sinks.http import Destination


class Sink(Protocol):
    """One destination.  It belongs to one thread, and raises nothing that its `send` could tell."""

    def body(self, sendables: Sequence[Sendable], whose: Whose) -> Body:
        """What would be sent for these records, byte for byte: the same at every try."""
        ...

    def send(self, body: Body, within_s: float) -> Sent:
        """Offer it.  `within_s` bounds what a server may take; a file system is waited for."""
        ...

    def close(self) -> None:
        """Let go of connections; `send` may follow."""
        ...

    def abort(self) -> None:
        """End a `send` that goes on in another thread."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """How records go to a kind of sink: which events it gets, how many at most in one body, and how long (ms) after an
    event, so that what belongs to it is there and what comes close together goes together.

    `is_document`: it gets the whole document when one of its events has happened.  `as_attempt`: a record is
    LearnPack's form of it, not a line of `export`.
    """

    events: frozenset[str]
    at_most: int
    delay_ms: int
    is_document: bool = False
    as_attempt: bool = False


_LEARNPACKS = frozenset(("open_step", "compile", "test", "ai_interaction"))
_ACTS = _LEARNPACKS | {"session_start", "session_end", "complete_step", "reset_step"}

#: Add a kind: a line here, one in `_make`, one in config's SINK_KINDS, and a file in `agent/sinks`.
KINDS: Mapping[str, Kind] = {
    "learnpack-streaming": Kind(_LEARNPACKS, 1, 0, as_attempt=True),
    # LearnPack's moments (start, open_step, end; its UI after a test, too), and ours where it has none.  It may send
    # its own document at the same moments, and the receiver keeps the last one: ours comes after it.
    "learnpack-batch": Kind(_ACTS - {"compile", "ai_interaction", "reset_step"}, 0, 5_000, is_document=True),
    "otlp": Kind(_ACTS | {"gap"}, 500, 1_000),
    "xapi": Kind(_ACTS, 100, 1_000),
    # A file for each student and minute, not for each click.
    "jsonl": Kind(_ACTS | {"gap"}, 5_000, 60_000),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A sink that is configured.  `refused` says why nothing is sent to it, None where something is."""

    name: str
    config: SinkConfig
    by_course: bool = False
    refused: str | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.config.kind]

    @property
    def delay_ms(self) -> int:
        seconds = self.config.delay_seconds
        return self.kind.delay_ms if seconds is None else seconds * 1000

    @property
    def place(self) -> str:
        """Where it leads, for people: a host or a directory, never a whole URL."""
        return self.config.directory or host_of(self.config.url)


def planned(config: Config, course: Course) -> list[Planned]:
    """All sinks of this course, the configuration's first."""
    return [*(Planned(sink.name, sink) for sink in config.sinks), *_named_by(course, config)]


def _named_by(course: Course, config: Config) -> Iterator[Planned]:
    for what, url in (("streaming", course.streaming), ("batch", course.batch)):
        is_ours = any((sink.kind, sink.url) == (f"learnpack-{what}", url) for sink in config.sinks)
        if url is not None and not is_ours:  # else it would get everything twice
            sink = SinkConfig(f"course-{what}", f"learnpack-{what}", url)
            yield Planned(sink.name, sink, by_course=True, refused=_why_refused(url, config))


def _why_refused(url: str, config: Config) -> str | None:
    if (problem := problem_of(url)) is not None:
        return f"learn.json's URL can't be used: {problem}"
    name = urlsplit(url).hostname or ""
    if any(fnmatchcase(name, pattern.lower()) for pattern in config.send.course_hosts):
        return None
    return f"the configuration does not let a course name {name} (send.course_hosts)"


def host_of(url: str) -> str:
    """The host, with its port where the URL names one: how `[credentials]` names it."""
    try:
        parts = urlsplit(url)
        name = parts.hostname or "?"
        name = f"[{name}]" if ":" in name else name
        return name if parts.port is None else f"{name}:{parts.port}"
    except ValueError:
        return "?"


def opened(one: Planned, config: Config, course: Course) -> Sink:
    """The sink itself.  This is where `requests` is imported."""
    if one.config.kind == "jsonl":
        from .sinks.jsonl import Files

        return Files(one.config.directory, int(one.config.file_mode, 8))
    from .sinks import learnpack, otlp, xapi
    from .sinks.http import Server

    server = Server(destination_of(one, config, course))
    match one.config.kind:
        case "learnpack-streaming":
            return learnpack.Streaming(server)
        case "learnpack-batch":
            return learnpack.Batch(server)
        case "otlp":
            return otlp.Otlp(server)
        case _:
            return xapi.Xapi(server, one.config.version)


def destination_of(one: Planned, config: Config, course: Course) -> Destination:
    """Where a sink that has a URL leads, with what goes with it now.  Imports requests."""
    from .sinks.http import Destination

    credential = credential_for(one, config)
    return Destination(
        url=one.config.url,
        authorization=authorization_of(one, config, course),
        private=not one.by_course or config.send.private_addresses,
        ca_file=config.send.ca_file or None,
        proxy={"": None, "none": ""}.get(config.send.proxy, config.send.proxy),
        headers=one.config.headers,
        plain_credentials=credential is not None and credential.plain_http,
    )


def _authorization(credential: Credential, course: Course) -> str | None:
    """The header's value; None while there is no such token."""
    token = credential.token
    if credential.learnpack_session:
        token = session_of(course).get("token") or ""
    elif credential.credential:
        token = _systemd_credential(credential.credential)
    if token and credential.scheme == "Basic":
        from base64 import b64encode

        token = b64encode(token.encode()).decode()  # a password may have any letter
    return f"{credential.scheme} {token}" if token and token.isascii() and token.isprintable() else None


def _systemd_credential(name: str) -> str:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return ""
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as stream:
            return stream.read(65_536).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def credential_for(one: Planned, config: Config) -> Credential | None:
    """What is named for its host, if it may go with this sink."""
    credential = config.credentials.get(host_of(one.config.url).lower()) if one.config.url else None
    if credential is None or (one.by_course and not (credential.learnpack_session or credential.for_courses)):
        return None
    return credential


def authorization_of(one: Planned, config: Config, course: Course) -> str | None:
    """The header that goes with it now; None where nothing is named for it, or what is named is not there."""
    credential = credential_for(one, config)
    return None if credential is None else _authorization(credential, course)


def missing_credentials(one: Planned, config: Config, course: Course) -> str | None:
    """Why what is named for its host can't go with it now; None: it can, or nothing is named."""
    credential = credential_for(one, config)
    if credential is None or _authorization(credential, course) is not None:
        return None
    if credential.learnpack_session:
        return "nobody is logged in to LearnPack in this course"
    return f"here is no credential {credential.credential} (systemd gives it to its service only)"


def privacy_of(config: Config, course: Course) -> Privacy:
    """What is taken out of this student's records.  Imports the rules for secrets (2 MB)."""
    from .sinks.secrets import mask

    session = session_of(course)
    host = socket.gethostname()
    both = " ".join(filter(None, map(session.get, _FIRST_AND_LAST)))
    full_names = [both, *filter(None, map(session.get, _SESSION_NAMES))]
    names: dict[str, str] = {}
    for user in _accounts(course):
        login, home = (user.pw_name, user.pw_dir) if user else ("", os.path.expanduser("~"))
        for full_name in (user.pw_gecos.split(",")[0] if user else "", *full_names):
            names |= names_of(login, full_name, host, home)
    longest_first = dict(sorted(names.items(), key=lambda item: -len(item[0])))
    return Privacy(config.send.source_code, config.send.output, longest_first, mask)


_FIRST_AND_LAST = ("first_name", "last_name")
_SESSION_NAMES = ("full_name", "fullname", "name", "username")


def _accounts(course: Course) -> Iterator[pwd.struct_passwd | None]:
    """Ours, and the course's owner's: root's `send` and an agent of root's send a student's work.  None: a container's
    user without an entry."""
    users = {os.getuid()}
    with suppress(OSError):
        users.add(os.stat(course.root).st_uid)
    for user in users:
        try:
            yield pwd.getpwuid(user)
        except KeyError:
            yield None
