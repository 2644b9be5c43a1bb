"""What one source says, as plain data → the values it sets, and everything that is wrong with it.

Pure.  A fault is a key path and words; which line that is, `positions` finds.  What is faulty is left out, and the rest
is still looked at, so that an admin mends a file once and not fault by fault.  No word shows a text's value.

Tables: what a value must be, the bounds of the numbers, the choices, and the rules about several keys together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from ..core.course import one_line
from ..core.urls import problem_of
from .settings import (
    LOG_LEVELS,
    PROCESS_SENSORS,
    SCHEMES,
    SINK_KINDS,
    XAPI_VERSIONS,
    Config,
    Credential,
    Send,
    SinkConfig,
)

#: A whole number is at least 1 where nothing else stands here.
AT_LEAST = {"start_spread_seconds": 0, "final_milliseconds": 0, "delay_seconds": 0, "journal_max_mb": 0}
#: A year; and more than any receiver takes.  Beyond, times would no longer fit into what they are stored in.
AT_MOST = {
    "session_silence_minutes": 365 * 24 * 60,
    "idle_minutes": 365 * 24 * 60,
    "output_max_kb": 65_536,
    "document_max_mb": 4096,
    "journal_max_mb": 1 << 20,
    "discover_per_user": 1000,
    "start_spread_seconds": 3600,
    "final_milliseconds": 60_000,
    "delay_seconds": 24 * 3600,
}
_CHOICES = {
    "process_sensor": PROCESS_SENSORS,
    "log_level": LOG_LEVELS,
    "kind": SINK_KINDS,
    "scheme": SCHEMES,
    "version": XAPI_VERSIONS,
}
_WORDS = {
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    tuple: "a list of texts",
    dict: "a table of texts",
}
_TYPES = {"delay_seconds": int, "headers": dict}

#: The names of the tables in the file, and of their fields in Config.
TABLES = {"send": "send", "sink": "sinks", "credentials": "credentials"}
#: What a file may hold besides settings: sections for some courses.
COURSES = "course"
#: Keys of the top level that one course can't have for itself: they are of the machine.
OF_THE_MACHINE = frozenset({"state_dir", "discover_roots", "discover_per_user"})
_NOT_FOR_SOME = "can't be set for some courses only"

Path = tuple[str | int, ...]
#: Where in the source, and what is wrong there.
Problem = tuple[Path, str]


def keys_of(kind: type) -> dict[str, type]:
    """The keys of one table, and what each must be."""
    own = (one for one in fields(kind) if one.name not in TABLES.values())
    return {one.name: _TYPES.get(one.name) or type(one.default) for one in own}


class Part(NamedTuple):  # a frozen dataclass takes 0.8 ms at each start, and there are five of these
    """What one source says, checked.  `courses`: what it says for those courses whose path is like a pattern."""

    top: Mapping[str, Any]
    send: Mapping[str, Any] = {}
    sinks: tuple[SinkConfig, ...] = ()
    credentials: Mapping[str, Credential] = {}
    courses: Mapping[str, Any] = {}  # pattern → Part


def checked_file(found: Mapping[str, Any], problems: list[Problem]) -> Part:
    """All of a file; what is wrong is added to `problems`."""
    top = _top(found, (), "", problems, known={*TABLES, COURSES})
    send = _send(found.get("send", {}), ("send",), "send", problems)
    courses = _courses(found.get(COURSES, {}), problems)
    return Part(top, send, _sinks(found, problems), _credentials(found.get("credentials", {}), problems), courses)


def checked_values(found: Mapping[str, object], problems: list[Problem]) -> Part:
    """Single keys of the top level, from the environment or the command line: paths may be relative there."""
    return Part(_values(Config, found, (), "", problems)[0])


Rule = tuple[tuple[str, ...], Callable[[Any], str | None]]
#: About the first key, asked when none of the keys is faulty: what is wrong with this value, None: nothing.
_TOP_RULES: tuple[Rule, ...] = (
    (("state_dir",), lambda of: None if os.path.isabs(of.state_dir or "/") else "state_dir must be an absolute path"),
    (
        ("discover_roots",),
        lambda of: None if all(map(os.path.isabs, of.discover_roots)) else "discover_roots must be absolute paths",
    ),
)


def _top(
    found: Mapping[str, Any],
    path: Path,
    where: str,
    problems: list[Problem],
    *,
    known: Container[str],
    refused: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    rest = {key: value for key, value in found.items() if key not in known}
    problems += [((*path, key), f"{where}: {key} {_NOT_FOR_SOME}") for key in rest if key in refused]
    rest = {key: value for key, value in rest.items() if key not in refused}
    values, bad = _values(Config, rest, path, where, problems)
    _ask(_TOP_RULES, Config(**values), bad, path, where, problems, found)
    return values


def _host_problem(send: Send) -> str | None:
    if any("/" in one or "@" in one or _WITH_PORT.fullmatch(one) for one in send.course_hosts):
        return 'course_hosts are hosts, without scheme, port and path: "*.school.org"'
    return None


_WITH_PORT = re.compile(r"[^:]*:[0-9]+")


def _proxy_problem(send: Send) -> str | None:
    scheme, sign, _ = send.proxy.partition("://")
    if sign and scheme.lower() not in ("http", "https"):
        return 'proxy must be a URL that begins with http:// or https://, or "none"'
    return None


_SEND_RULES: tuple[Rule, ...] = (
    (("course_hosts",), _host_problem),
    (("ca_file",), lambda of: None if os.path.isabs(of.ca_file or "/") else "ca_file must be an absolute path"),
    (("proxy",), _proxy_problem),
)


def _send(found: object, path: Path, where: str, problems: list[Problem]) -> dict[str, Any]:
    table = _table(found, path, where, problems)
    values, bad = _values(Send, table, path, where, problems)
    _ask(_SEND_RULES, Send(**values), bad, path, where, problems, table)
    return values


def _place_problem(sink: SinkConfig) -> str | None:
    needed, other = ("directory", "url") if sink.kind == "jsonl" else ("url", "directory")
    if not getattr(sink, needed) or getattr(sink, other):
        return f"one of kind {sink.kind} needs {needed}, and has no {other}"
    return None


def _url_problem(sink: SinkConfig) -> str | None:
    problem = problem_of(sink.url) if sink.url else None
    return None if problem is None else f"url: {problem}"


def _mode_problem(sink: SinkConfig) -> str | None:
    is_octal = re.fullmatch(r"0?[0-7]{3}", sink.file_mode)
    return None if is_octal else 'file_mode must be an octal number as a text, as in "0640"'


_SINK_RULES: tuple[Rule, ...] = (
    (("name",), lambda of: None if of.name else "it needs a name"),
    (("kind",), lambda of: None if of.kind else f"it needs a kind: one of {', '.join(SINK_KINDS)}"),
    (
        ("name",),
        lambda of: (
            "names that begin with course- belong to learn.json's URLs" if of.name.startswith("course-") else None
        ),
    ),
    (("kind", "url", "directory"), _place_problem),
    (("url",), _url_problem),
    (("directory",), lambda of: None if os.path.isabs(of.directory or "/") else "directory must be an absolute path"),
    (("file_mode",), _mode_problem),
)


def _sinks(found: Mapping[str, Any], problems: list[Problem]) -> tuple[SinkConfig, ...]:
    tables = found.get("sink", [])
    if not isinstance(tables, list):
        problems.append((("sink",), "sink must be a list of tables: [[sink]]"))
        return ()
    sinks: dict[str, SinkConfig] = {}
    for index, one in enumerate(tables):
        path, where = ("sink", index), f"sink {index + 1}"
        if not isinstance(one, dict):
            problems.append((path, f"{where} must be a table"))
            continue
        values, bad = _values(SinkConfig, one, path, where, problems)
        sink = SinkConfig(**values)
        where = f"sink {one_line(sink.name)}" if sink.name else where
        _ask(_SINK_RULES, sink, bad, path, where, problems, one)
        if sink.name in sinks:
            problems.append(((*path, "name"), f"{where}: there are two of this name"))
        elif sink.name:
            sinks[sink.name] = sink
    return tuple(sinks.values())


def _source_problem(one: Credential) -> str | None:
    if (bool(one.token), bool(one.credential), one.learnpack_session).count(True) != 1:
        return "it needs one of token, credential and learnpack_session = true"
    return None


def _file_problem(one: Credential) -> str | None:
    if "/" in one.credential or "\0" in one.credential or one.credential in (".", ".."):
        return "credential is the name of a file in $CREDENTIALS_DIRECTORY"
    return None


def _token_problem(one: Credential) -> str | None:
    if not one.token.isprintable() or not (one.token.isascii() or one.scheme == "Basic"):
        return "token holds a character that can't be sent: a line end, or none of ASCII"
    if one.token and one.scheme == "Basic" and ":" not in one.token:
        return "for the scheme Basic the token is user:password"
    return None


_CREDENTIAL_RULES: tuple[Rule, ...] = (
    (("token", "credential", "learnpack_session"), _source_problem),
    (("credential",), _file_problem),
    (("token", "scheme"), _token_problem),
)

#: As `destinations.host_of` writes it.
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?")


def _credentials(found: object, problems: list[Problem]) -> dict[str, Credential]:
    credentials: dict[str, Credential] = {}
    for host, table in _table(found, ("credentials",), "credentials", problems).items():
        path, where = ("credentials", host), f'credentials."{one_line(host)}"'
        if isinstance(table, dict) and table and all(isinstance(one, dict) for one in table.values()):
            words = f'a host\'s name stands in quotes, as in [credentials."{one_line(host)}.example.org"]'
            problems.append((path, f"{where}: {words}"))
            continue
        if not _HOST.fullmatch(host):
            words = 'it must be a host, with the port that the URL names: "lrs.school.org:8443"'
            problems.append((path, f"{where}: {words}"))
        if not isinstance(table, dict):
            problems.append((path, f"{where} must be a table"))
            continue
        values, bad = _values(Credential, table, path, where, problems)
        credentials[host.lower()] = Credential(**values)
        _ask(_CREDENTIAL_RULES, credentials[host.lower()], bad, path, where, problems, table)
    return credentials


def _courses(found: object, problems: list[Problem]) -> dict[str, Part]:
    courses = {}
    for pattern, section in _table(found, (COURSES,), COURSES, problems).items():
        path, where = (COURSES, pattern), f'{COURSES}."{one_line(pattern)}"'
        if not pattern.startswith(("/", "*")) or pattern.endswith("/"):
            words = 'it must be a pattern for absolute paths, without / at the end: "/home/*/python-*"'
            problems.append((path, f"{where}: {words}"))
        table = _table(section, path, where, problems)
        others = [key for key in table if key in TABLES and key != "send"]
        problems += [((*path, key), f"{where}: {key} {_NOT_FOR_SOME}") for key in others]
        top = _top(table, path, where, problems, known=TABLES, refused=OF_THE_MACHINE)
        courses[pattern] = Part(top, _send(table.get("send", {}), (*path, "send"), f"{where}: send", problems))
    return courses


def _table(found: object, path: Path, where: str, problems: list[Problem]) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        problems.append((path, f"{where} must be a table"))
        return {}
    return found


def _values(
    kind: type, found: Mapping[str, object], path: Path, where: str, problems: list[Problem]
) -> tuple[dict[str, Any], set[str]]:
    """The right values for this dataclass, and the keys of the faulty ones."""
    known = keys_of(kind)
    before = f"{where}: " if where else ""
    values: dict[str, Any] = {}
    bad: set[str] = set()
    for key, value in found.items():
        if key not in known:
            meant, hint = _meant(key, kind)
            bad |= {key, meant}  # that the meant one is missing need not be said, too
            words: str | None = f"unknown key {one_line(key)}{hint}"
        elif (words := _wrong(key, value, known[key])) is not None:
            bad.add(key)
        else:
            values[key] = tuple(value) if isinstance(value, list) else value
        if words is not None:
            problems.append(((*path, key), before + words))
    return values, bad


def _meant(key: str, kind: type) -> tuple[str, str]:
    """The key that was probably meant ("" where that is none of this table), and words about it."""
    import difflib

    if kind is Config and key in keys_of(Send):
        return "", " (did you mean it in [send]?)"
    if kind is not Config and key in keys_of(Config):
        return "", " (did you mean it above the first [table]?)"
    names = [*keys_of(kind), *((*TABLES, COURSES) if kind is Config else ())]
    close = difflib.get_close_matches(key, names, n=1)
    return (close[0], f" (did you mean {close[0]}?)") if close else ("", "")


def _wrong(key: str, value: object, expected: type) -> str | None:
    """What is wrong with the value of this key; None: nothing."""
    if not _is(value, expected):
        return f"{key} must be {_WORDS[expected]}"
    if isinstance(value, int) and expected is int:
        least = AT_LEAST.get(key, 1)
        if value < least:
            return f"{key} must be at least {least}"
        if value > AT_MOST[key]:
            return f"{key} must be at most {AT_MOST[key]}"
    if key in _CHOICES and value not in _CHOICES[key]:
        return f"{key} must be one of {', '.join(_CHOICES[key])}"
    return None


def _is(value: object, expected: type) -> bool:
    if expected is tuple:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if expected is dict:
        return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    return type(value) is expected  # to isinstance, true is a whole number


def _ask(
    rules: tuple[Rule, ...],
    value: object,
    bad: set[str],
    path: Path,
    where: str,
    problems: list[Problem],
    written: Container[str],
) -> None:
    """Adds what the rules say; what was faulty before is not asked about again."""
    before = f"{where}: " if where else ""
    for keys, problem in rules:
        if bad.isdisjoint(keys) and (words := problem(value)) is not None:
            bad.add(keys[0])
            at = next((key for key in keys if key in written), None)
            problems.append((path if at is None else (*path, at), before + words))
