"""What the agent may be told: a frozen `Config`, put together once, before anything starts.

Later sources win: defaults < /etc/learnpack-agent/config.toml < the user's config.toml < the file named by
`--config` or LEARNPACK_AGENT_CONFIG < environment < arguments.  Of `[send]` each key is replaced by itself, a
`[[sink]]` by one of the same name, a `[credentials."HOST"]` by one for the same host.  A fault is a `ConfigError` of
one line: file, key, what is wrong, and the key that was probably meant.

What a course's learn.json names is no part of this: see `agent.destinations`.
"""

from __future__ import annotations

import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .core.course import one_line, printable
from .core.urls import problem_of

SYSTEM_FILE = "/etc/learnpack-agent/config.toml"
PROCESS_SENSORS = ("auto", "connector", "pidfd", "polling")
LOG_LEVELS = ("debug", "info", "warning", "error")
SINK_KINDS = ("learnpack-streaming", "learnpack-batch", "otlp", "xapi", "jsonl")
SCHEMES = ("Token", "Bearer", "Basic")
XAPI_VERSIONS = ("1.0.3", "2.0.0")
#: A whole number is at least 1 where nothing else stands here.
AT_LEAST = {"start_spread_seconds": 0, "final_milliseconds": 0, "delay_seconds": 0, "journal_max_mb": 0}
#: A year; and more than any receiver takes.  Beyond, times would no longer fit into what they are stored in.
AT_MOST = {
    "session_silence_minutes": 365 * 24 * 60,
    "idle_minutes": 365 * 24 * 60,
    "output_max_kb": 65_536,
    "document_max_mb": 4096,
    "journal_max_mb": 1 << 20,
    "start_spread_seconds": 3600,
    "final_milliseconds": 60_000,
    "delay_seconds": 24 * 3600,
}


class ConfigError(Exception):
    """A fault in the configuration, in one line."""


@dataclass(frozen=True, slots=True)
class Send:
    """The table `[send]`: what leaves, and how, whoever named the destination.

    `source_code`, `output`: whether programs and what they printed are sent.  `course_hosts` are patterns for the hosts
    that a learn.json may name ("*": any, none: its URLs are not used); `private_addresses`: whether such a URL may lead
    to an address that is not public.  `ca_file` holds certificates that are trusted besides the usual ones; `proxy` is
    a URL, "none", or "" for the environment's.  At the end a last try takes `final_milliseconds` at most; what waits at
    the start goes some time within `start_spread_seconds`, so that a room of machines does not begin in one moment.
    """

    source_code: bool = True
    output: bool = True
    course_hosts: tuple[str, ...] = ("*",)
    private_addresses: bool = False
    ca_file: str = ""
    proxy: str = field(default="", repr=False)
    final_milliseconds: int = 1500
    start_spread_seconds: int = 5


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """A `[[sink]]`: `url` of a server, or for "jsonl" the `directory` in which files appear.

    `delay_seconds`: so long after an event it is sent, with what came meanwhile; None: what fits the kind.  `headers`
    are added to each request.  `version` is that of xAPI.  `file_mode` is of the files.
    """

    name: str = ""
    kind: str = ""
    url: str = field(default="", repr=False)  # a path or a query may be as good as a token
    directory: str = ""
    delay_seconds: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    version: str = "1.0.3"
    file_mode: str = "0600"


@dataclass(frozen=True, slots=True)
class Credential:
    """A `[credentials."HOST"]`: what is sent to that host (with its port, where the URL names one) and to no other.

    One of `token`, `credential` (the name of a file in $CREDENTIALS_DIRECTORY, systemd's `LoadCredential=`) and
    `learnpack_session` (the token of the student who is logged in to LearnPack).  For the scheme Basic the token is
    `user:password`.  Without TLS it is only sent when `plain_http` says so.  A `token` or `credential` goes with the
    configuration's sinks only, unless `for_courses`: a learn.json may name any path at that host.
    """

    token: str = field(default="", repr=False)
    credential: str = ""
    learnpack_session: bool = False
    scheme: str = "Token"
    plain_http: bool = False
    for_courses: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; the names are the keys of config.toml.

    `state_dir` holds one directory per course.  `session_silence_minutes`: without a LearnPack server a session
    ends after so long without work.  `idle_minutes`: a longer time without a save, a run or an opening is not counted
    as work in a step.  `output_max_kb`: of more than that on a stream only the head and the tail are kept.
    `document_max_mb`: above this size telemetry.json leaves out the oldest outputs.  `journal_max_mb`: above this size
    the journal drops the oldest programs and outputs, sent or not (0: never).
    `process_sensor`: "auto" takes the best that works here.  `consent`: nothing is recorded until the student said yes.
    """

    state_dir: str = ""
    log_level: str = "info"
    session_silence_minutes: int = 30
    idle_minutes: int = 5
    output_max_kb: int = 256
    document_max_mb: int = 8
    journal_max_mb: int = 0
    process_sensor: str = "auto"
    consent: bool = False
    send: Send = Send()
    sinks: tuple[SinkConfig, ...] = ()
    credentials: Mapping[str, Credential] = field(default_factory=dict)


def load_config(*, file: str | None, environment: Mapping[str, str], arguments: Mapping[str, object | None]) -> Config:
    """The configuration from all sources.  `arguments` holds only what was given (None: not given).

    Raises ConfigError; a file named explicitly must exist, the others may.
    """
    named = file if file is not None else environment.get("LEARNPACK_AGENT_CONFIG") or None
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    config = Config(state_dir=_default_state_dir(environment))
    for path, required in (
        (SYSTEM_FILE, False),
        (os.path.join(home, "learnpack-agent", "config.toml"), False),
        (named, True),
    ):
        if path is not None:
            config = _with(config, _from_file(path, required=required), path)
    if environment.get("LEARNPACK_AGENT_STATE_DIR"):
        config = replace(config, state_dir=environment["LEARNPACK_AGENT_STATE_DIR"])
    given = {key: value for key, value in arguments.items() if value is not None}
    config = _with(config, given, "the command line")
    return replace(config, state_dir=os.path.abspath(config.state_dir))


def _default_state_dir(environment: Mapping[str, str]) -> str:
    # systemd names the directory of `StateDirectory=` in $STATE_DIRECTORY (several are separated by ":").
    if environment.get("STATE_DIRECTORY"):
        return environment["STATE_DIRECTORY"].split(":")[0]
    base = environment.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "learnpack-agent")


def _from_file(path: str, *, required: bool) -> dict[str, Any]:
    if not required and not os.path.exists(path) and not (path == SYSTEM_FILE and _is_hidden(path)):
        return {}
    import tomllib

    try:
        with open(path, "rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: it is nested too deeply") from None


def _is_hidden(path: str) -> bool:
    """Whether we may not even see if it is there: the admin's rules are not left out without a word."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


#: The tables of config.toml: each has a reader of its own.
_TABLES = ("send", "sink", "credentials")


def _with(config: Config, found: Mapping[str, Any], origin: str) -> Config:
    """The configuration with what this source says.  Raises ConfigError."""
    top = {key: value for key, value in found.items() if key not in _TABLES}
    changes = _checked(Config, top, origin, also=_TABLES)
    if "send" in found:
        changes["send"] = replace(config.send, **_send(found["send"], f"{origin}: send"))
    if "sink" in found:
        sinks = {sink.name: sink for sink in (*config.sinks, *_sinks(found["sink"], origin))}
        changes["sinks"] = tuple(sinks.values())
    if "credentials" in found:
        changes["credentials"] = {**config.credentials, **_credentials(found["credentials"], origin)}
    return replace(config, **changes)


def _send(found: object, where: str) -> dict[str, Any]:
    send = _checked(Send, _table(found, where), where)
    for pattern in send.get("course_hosts", ()):
        if "/" in pattern or "@" in pattern or _WITH_PORT.fullmatch(pattern):
            raise ConfigError(f'{where}: course_hosts are hosts, without scheme, port and path: "*.school.org"')
    if not os.path.isabs(send.get("ca_file") or "/"):
        raise ConfigError(f"{where}: ca_file must be an absolute path")
    scheme, sign, _ = send.get("proxy", "").partition("://")
    if sign and scheme.lower() not in ("http", "https"):
        raise ConfigError(f'{where}: proxy must be a URL that begins with http:// or https://, or "none"')
    return send


_WITH_PORT = re.compile(r"[^:]*:[0-9]+")


def _sinks(found: object, origin: str) -> list[SinkConfig]:
    if not isinstance(found, list):
        raise ConfigError(f"{origin}: sink must be a list of tables: [[sink]]")
    sinks: list[SinkConfig] = []
    for number, table in enumerate(found, start=1):
        where = f"{origin}: sink {number}"
        sink = SinkConfig(**_checked(SinkConfig, _table(table, where), where))
        if not sink.name:
            raise ConfigError(f"{where}: it needs a name")
        where = f"{origin}: sink {sink.name}"
        if not sink.kind:
            raise ConfigError(f"{where}: it needs a kind: one of {', '.join(SINK_KINDS)}")
        if sink.name.startswith("course-"):
            raise ConfigError(f"{where}: names that begin with course- belong to learn.json's URLs")
        if sink.name in {other.name for other in sinks}:
            raise ConfigError(f"{where}: there are two of this name")
        needed, other = ("directory", "url") if sink.kind == "jsonl" else ("url", "directory")
        if not getattr(sink, needed) or getattr(sink, other):
            raise ConfigError(f"{where}: one of kind {sink.kind} needs {needed}, and has no {other}")
        if sink.url and (problem := problem_of(sink.url)) is not None:
            raise ConfigError(f"{where}: url: {problem}")
        if sink.directory and not os.path.isabs(sink.directory):
            raise ConfigError(f"{where}: directory must be an absolute path")
        if not re.fullmatch(r"0?[0-7]{3}", sink.file_mode):
            raise ConfigError(f'{where}: file_mode must be an octal number as a text, as in "0640"')
        sinks.append(sink)
    return sinks


def _credentials(found: object, origin: str) -> dict[str, Credential]:
    credentials = {}
    for host, table in _table(found, f"{origin}: credentials").items():
        where = f'{origin}: credentials."{host}"'
        if isinstance(table, dict) and table and all(isinstance(one, dict) for one in table.values()):
            raise ConfigError(f'{where}: a host\'s name stands in quotes, as in [credentials."{host}.example.org"]')
        if not _HOST.fullmatch(host):
            raise ConfigError(f'{where}: it must be a host, with the port that the URL names: "lrs.school.org:8443"')
        one = Credential(**_checked(Credential, _table(table, where), where))
        if (bool(one.token), bool(one.credential), one.learnpack_session).count(True) != 1:
            raise ConfigError(f"{where}: it needs one of token, credential and learnpack_session = true")
        if "/" in one.credential or "\0" in one.credential or one.credential in (".", ".."):
            raise ConfigError(f"{where}: credential is the name of a file in $CREDENTIALS_DIRECTORY")
        if not one.token.isprintable() or not (one.token.isascii() or one.scheme == "Basic"):
            raise ConfigError(f"{where}: token holds a character that can't be sent: a line end, or none of ASCII")
        if one.token and one.scheme == "Basic" and ":" not in one.token:
            raise ConfigError(f"{where}: for the scheme Basic the token is user:password")
        credentials[host.lower()] = one
    return credentials


#: As `destinations.host_of` writes it.
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?")


def _table(found: object, origin: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise ConfigError(f"{origin} must be a table")
    return found


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


def _checked(kind: type, found: Mapping[str, object], origin: str, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values for this dataclass; `also` are keys that are known besides its own.  No word shows a text's value."""
    own = [one for one in fields(kind) if one.name != "sinks"]  # which is [[sink]] in the file
    known = {one.name: one.default for one in own if type(one.default) in _WORDS or one.name in _TYPES}
    checked: dict[str, Any] = {}
    for key, value in found.items():
        if key not in known:
            import difflib

            meant = difflib.get_close_matches(key, (*known, *also), n=1)
            hint = f" (did you mean {meant[0]}?)" if meant else ""
            raise ConfigError(f"{origin}: unknown key {one_line(key)}{hint}")
        expected = _TYPES.get(key) or type(known[key])
        checked[key] = _value(value, expected, f"{origin}: {key}")
        if expected is int:
            least = AT_LEAST.get(key, 1)
            if checked[key] < least:
                raise ConfigError(f"{origin}: {key} must be at least {least}")
            if checked[key] > AT_MOST[key]:
                raise ConfigError(f"{origin}: {key} must be at most {AT_MOST[key]}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise ConfigError(f"{origin}: {key} must be one of {', '.join(_CHOICES[key])}")
    return checked


def _value(value: object, expected: type, where: str) -> Any:
    """The value, a list of texts as a tuple."""
    if expected is tuple:
        is_right = isinstance(value, list) and all(isinstance(one, str) for one in value)
        value = tuple(value) if is_right and isinstance(value, list) else value
    elif expected is dict:
        is_right = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    else:
        is_right = type(value) is expected  # to isinstance, true is a whole number
    if not is_right:
        raise ConfigError(f"{where} must be {_WORDS[expected]}")
    return value


def course_key(root: str) -> str:
    """The name of a course's directory in the state directory: readable, and one per absolute path."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in printable(os.path.basename(root)))
    # A checksum tells courses of one name apart; hashlib would cost 3.4 MB of OpenSSL in every agent.
    return f"{name[:48] or 'course'}-{binascii.crc32(os.fsencode(root)):08x}"


def course_state_dir(config: Config, root: str) -> str:
    return os.path.join(config.state_dir, course_key(root))
